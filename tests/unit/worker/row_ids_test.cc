#include "worker/tables/row_ids.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "common/base/philox.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::thrown;

VariableTable one_table(int parts = 1024, std::int64_t entry = 1) {
  VariableSpec spec;
  spec.name = "user/embeddings";
  spec.scope = "user";
  spec.shape = {0, 4};
  spec.table = TableSpec{.ids = IdType::int64, .parts = parts, .entry = entry};
  return VariableTable({spec});
}

TensorView view(std::vector<std::int64_t>& v, const Shape& shape) {
  return {DType::int64, shape, reinterpret_cast<std::byte*>(v.data())};
}
TensorView view(std::vector<std::int64_t>& v) { return view(v, Shape{std::ssize(v)}); }
TensorView view(std::vector<float>& v) {
  return {DType::float32, {std::ssize(v)}, reinterpret_cast<std::byte*>(v.data())};
}

struct Rows {
  RowPlan plan;
  RowIds ids;
  explicit Rows(std::vector<RowLookup> lookups, int logical_workers = 1, int servers = 1, int parts = 1024,
                std::int64_t entry = 1)
      : plan(RowPlan::make(one_table(parts, entry), servers)),
        ids(plan[TableId(0)], std::move(lookups), logical_workers) {}
  // What the positions of a lookup stand for.
  std::vector<std::uint64_t> ids_of(int v, std::size_t k) const {
    std::vector<std::uint64_t> all;
    for (const std::int32_t p : ids.feeds(v, k).positions.as<std::int32_t>())
      all.push_back(p == ids.size() ? 999999 : ids.ids()[static_cast<std::size_t>(p)]);
    return all;
  }
};

constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min(),
                       kMost = std::numeric_limits<std::int64_t>::max();

TEST(RowIds, ReserveNoId) {
  Rows rows({{.input = "user"}});
  std::vector<std::int64_t> ids{kLeast, -2, -1, 0, kMost, -1};
  rows.ids.add(0, 0, {.ids = view(ids, {3, 2})});
  rows.ids.finish();
  EXPECT_EQ(rows.ids.size(), 5);
  EXPECT_EQ(rows.ids.feeds(0, 0).positions.shape(), (Shape{3, 2}));
  EXPECT_FALSE(rows.ids.feeds(0, 0).offsets);
  std::vector<std::uint64_t> wanted;
  for (const std::int64_t id : ids) wanted.push_back(static_cast<std::uint64_t>(id));
  EXPECT_EQ(rows.ids_of(0, 0), wanted);
}

TEST(RowIds, ExtendInt32BySign) {
  Rows rows({{.input = "user"}});
  Tensor ids = Tensor::of<std::int32_t>({3}, {-1, std::numeric_limits<std::int32_t>::min(), 7});
  rows.ids.add(0, 0, {.ids = ids.view()});
  rows.ids.finish();
  EXPECT_THAT(rows.ids_of(0, 0), ElementsAre(~std::uint64_t{0}, 0xffffffff80000000ULL, 7));
}

TEST(RowIds, LeaveOutPaddingAndWeightsOfZero) {
  Rows rows({{.input = "history", .padding = 7, .in_bags = true}, {.input = "item", .padding = 7}});
  std::vector<std::int64_t> ids{99, 7, 1, 2, 3, 7, 7, 5, 99}, offsets{1, 4, 4, 7, 8}, items{7, 2};
  std::vector<float> weights{9, 1, 0, 2, -3, 1, 0, 0, 9};
  rows.ids.add(0, 0, {.ids = view(ids), .offsets = view(offsets), .weights = view(weights)});
  rows.ids.add(0, 1, {.ids = view(items)});
  rows.ids.finish();
  // The bags are {7, 1 of weight 0, 2}, {}, {3, 7, 7}, {5 of weight 0}.
  EXPECT_THAT(rows.ids_of(0, 0), ElementsAre(2, 3));
  const RowFeeds feeds = rows.ids.feeds(0, 0);
  EXPECT_THAT(feeds.offsets.value().as<std::int64_t>(), ElementsAre(0, 1, 1, 2, 2));
  EXPECT_THAT(feeds.weights.value().as<float>(), ElementsAre(2, -3));
  EXPECT_EQ(rows.ids.size(), 2);
  EXPECT_THAT(rows.ids_of(0, 1), ElementsAre(999999, 2));  // a row of zeros behind the others
  EXPECT_EQ(rows.ids.touched(0).size(), 2U);
}

// By logical worker, over its lookups; without padding, weights of 0 and empty bags.
TEST(RowIds, CountHowOftenTheyOccur) {
  Rows rows({{.input = "history", .padding = 7, .in_bags = true}, {.input = "item", .padding = 7}}, 3, 1, 4,
            2);
  std::vector<std::int64_t> ids{7, 1, 2, 2, 3, 7, 5}, offsets{0, 3, 3, 7}, items{7, 2, 4}, more{2, 2};
  std::vector<float> weights{1, 0, 2, 1, 1, 1, 0};
  for (int step = 0; step < 2; ++step) {
    rows.ids.clear();
    rows.ids.add(0, 0, {.ids = view(ids), .offsets = view(offsets), .weights = view(weights)});
    rows.ids.add(0, 1, {.ids = view(items)});
    rows.ids.add(2, 1, {.ids = view(more)});
    rows.ids.finish();
    const auto counts = [&](int v) {
      std::map<std::uint64_t, std::uint32_t> n;
      const auto touched = rows.ids.touched(v);
      const auto counted = rows.ids.counts(v);
      EXPECT_EQ(touched.size(), counted.size());
      for (std::size_t i = 0; i < touched.size(); ++i)
        n[rows.ids.ids()[static_cast<std::size_t>(touched[i])]] = counted[i];
      return n;
    };
    using Counts = std::map<std::uint64_t, std::uint32_t>;
    EXPECT_EQ(counts(0), (Counts{{2, 3}, {3, 1}, {4, 1}}));
    EXPECT_EQ(counts(1), Counts{});
    EXPECT_EQ(counts(2), (Counts{{2, 2}}));
  }
}

TEST(RowIds, AreNotCountedWhereNoRowWaits) {
  Rows rows({{.input = "user"}});
  std::vector<std::int64_t> ids{1, 1};
  rows.ids.add(0, 0, {.ids = view(ids)});
  rows.ids.finish();
  EXPECT_EQ(rows.ids.touched(0).size(), 1U);
  EXPECT_THAT(rows.ids.counts(0), IsEmpty());
}

TEST(RowIds, BagsOfAFixedNumberNeedNoOffsets) {
  Rows rows({{.input = "history", .padding = 0, .in_bags = true}});
  std::vector<std::int64_t> ids{4, 0, 0, 0, 0, 4, 5, 6, 5};
  rows.ids.add(0, 0, {.ids = view(ids, {3, 3})});
  rows.ids.finish();
  EXPECT_THAT(rows.ids.feeds(0, 0).offsets.value().as<std::int64_t>(), ElementsAre(0, 1, 2, 5));
  EXPECT_THAT(rows.ids_of(0, 0), ElementsAre(4, 4, 5, 6, 5));
}

TEST(RowIds, NoSamplesAreNoRows) {
  Rows rows({{.input = "a", .in_bags = true}, {.input = "b"}}, 2, 3);
  for (int step = 0; step < 2; ++step) {
    rows.ids.clear();
    std::vector<std::int64_t> none, zero{0};
    rows.ids.add(1, 0, {.ids = view(none), .offsets = view(zero)});
    rows.ids.add(1, 1, {.ids = view(none)});
    rows.ids.finish();
    EXPECT_EQ(rows.ids.size(), 0);
    for (int s = 0; s < 3; ++s) EXPECT_THAT(rows.ids.ids(ServerId(s)), IsEmpty());
    EXPECT_THAT(rows.ids.touched(0), IsEmpty());
    EXPECT_THAT(rows.ids.feeds(1, 0).offsets.value().as<std::int64_t>(), ElementsAre(0));
  }
}

// One step of random bags and ids against sets: W logical workers, two lookups.
class RandomStep {
 public:
  RandomStep(Rows& rows, std::uint64_t seed, int logical_workers, std::uint64_t n, std::uint64_t n_ids)
      : rows_(rows), random_(seed, RandomPurpose::test, 0), n_ids_(n_ids), inputs_(2 * logical_workers) {
    rows_.ids.clear();
    for (int v = 0; v < logical_workers; ++v) {
      if (v % 3 == 1) continue;  // without samples
      for (std::size_t k = 0; k < 2; ++k) add(v, k, n);
    }
    rows_.ids.finish();
  }
  // Every id once, those of a server together and in the order of mix_row_id.
  void check_ids(int servers) const {
    std::set<std::uint64_t> all;
    for (const Input& input : inputs_) all.insert(input.kept.begin(), input.kept.end());
    std::vector<std::uint64_t> wanted(all.begin(), all.end());
    const RowPlan::Table& table = rows_.plan[TableId(0)];
    std::ranges::sort(wanted, {},
                      [&](std::uint64_t id) { return std::pair(table.server_of(id).value, mix_row_id(id)); });
    EXPECT_TRUE(std::ranges::equal(rows_.ids.ids(), wanted));
    std::int64_t first = 0;
    for (int s = 0; s < servers; ++s) {
      const auto of_server = rows_.ids.ids(ServerId(s));
      EXPECT_EQ(rows_.ids.first(ServerId(s)), first);
      for (const std::uint64_t id : of_server) EXPECT_EQ(table.server_of(id), ServerId(s));
      first += std::ssize(of_server);
    }
    EXPECT_EQ(first, rows_.ids.size());
  }
  void check_logical_worker(int v, int servers) const {
    std::set<std::int32_t> touched;
    for (std::size_t k = 0; k < 2; ++k) {
      const Input& input = inputs_[static_cast<std::size_t>(v) * 2 + k];
      if (input.ids.empty()) continue;
      EXPECT_EQ(rows_.ids_of(v, k), input.kept);
      const RowFeeds feeds = rows_.ids.feeds(v, k);
      EXPECT_TRUE(std::ranges::equal(feeds.offsets.value().as<std::int64_t>(), input.kept_offsets));
      if (k == 0) {
        EXPECT_TRUE(std::ranges::equal(feeds.weights.value().as<float>(), input.kept_weights));
      }
      for (const std::int32_t p : feeds.positions.as<std::int32_t>()) touched.insert(p);
    }
    EXPECT_TRUE(std::ranges::equal(rows_.ids.touched(v), touched));
    std::size_t n = 0;
    for (int s = 0; s < servers; ++s) {
      for (const std::int32_t p : rows_.ids.touched(v, ServerId(s))) {
        EXPECT_EQ(rows_.plan[TableId(0)].server_of(rows_.ids.ids()[static_cast<std::size_t>(p)]),
                  ServerId(s));
        ++n;
      }
    }
    EXPECT_EQ(n, touched.size());
  }

 private:
  struct Input {
    std::vector<std::int64_t> ids, offsets;
    std::vector<float> weights;
    std::vector<std::uint64_t> kept;
    std::vector<std::int64_t> kept_offsets;
    std::vector<float> kept_weights;
  };
  std::uint64_t draw(std::uint64_t bound) { return random_.below(at_++, bound); }
  void add(int v, std::size_t k, std::uint64_t n) {
    Input& input = inputs_[static_cast<std::size_t>(v) * 2 + k];
    input.offsets = input.kept_offsets = {0};
    for (std::uint64_t row = 0; row < n; ++row) {
      const std::uint64_t size = draw(6);
      for (std::uint64_t i = 0; i < size; ++i) {
        const std::uint64_t id = draw(n_ids_) * 0x9e3779b97f4a7c15ULL;
        const auto weight = static_cast<float>(draw(3));
        input.ids.push_back(static_cast<std::int64_t>(id));
        input.weights.push_back(weight);
        if (id == 0 || (k == 0 && weight == 0)) continue;
        input.kept.push_back(id);
        input.kept_weights.push_back(weight);
      }
      input.offsets.push_back(std::ssize(input.ids));
      input.kept_offsets.push_back(std::ssize(input.kept));
    }
    RowInput in{.ids = view(input.ids), .offsets = view(input.offsets)};
    if (k == 0) in.weights = view(input.weights);
    rows_.ids.add(v, k, in);
  }

  Rows& rows_;
  RandomStream random_;
  std::uint64_t n_ids_, at_ = 0;
  std::vector<Input> inputs_;  // by logical worker, then lookup
};

TEST(RowIds, AreThoseOfSets) {
  for (const int servers : {1, 2, 3, 7}) {
    for (const int logical_workers : {1, 4}) {
      Rows rows(
          {{.input = "a", .padding = 0, .in_bags = true}, {.input = "b", .padding = 0, .in_bags = true}},
          logical_workers, servers, 8);
      std::uint64_t seed = 1;
      for (const auto& [n, n_ids] : {std::pair{3, 5}, {2000, 100000}, {1, 2}, {2000, 50}, {300, 100000}}) {
        SCOPED_TRACE(fmt::format("{} servers, {} logical workers, {} rows", servers, logical_workers, n));
        const RandomStep step(rows, seed++, logical_workers, n, n_ids);
        step.check_ids(servers);
        for (int v = 0; v < logical_workers; ++v) step.check_logical_worker(v, servers);
      }
    }
  }
}

// Also of ids that a hash that is the identity would give to one of them.
TEST(RowIds, AreSpreadOverTheServers) {
  for (const std::int64_t factor : {std::int64_t{1}, std::int64_t{1} << 32}) {
    for (const int servers : {3, 4}) {
      Rows rows({{.input = "user"}}, 1, servers);
      std::vector<std::int64_t> ids;
      for (std::int64_t i = 0; i < 100'000; ++i) ids.push_back(i * factor);
      rows.ids.add(0, 0, {.ids = view(ids)});
      rows.ids.finish();
      for (int s = 0; s < servers; ++s)
        EXPECT_LT(static_cast<double>(rows.ids.ids(ServerId(s)).size()), 1.05 * 100'000 / servers) << s;
    }
  }
}

// Ids that somebody has chosen so that all are in one bucket.
TEST(RowIds, SortIdsThatCollide) {
  Rows rows({{.input = "user"}});
  std::vector<std::int64_t> ids;
  for (std::uint64_t i = 0; i < 5000; ++i)
    ids.push_back(static_cast<std::int64_t>(unmix_row_id(i * 4919 % 5000)));
  rows.ids.add(0, 0, {.ids = view(ids)});
  rows.ids.finish();
  for (std::uint64_t i = 0; i < 5000; ++i) ASSERT_EQ(rows.ids.ids()[i], unmix_row_id(i));
}

TEST(RowIds, AMillionInOneSample) {
  Rows rows({{.input = "user", .in_bags = true}});
  std::vector<std::int64_t> ids(1 << 20), offsets{0, 1 << 20};
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i / 2);
  rows.ids.add(0, 0, {.ids = view(ids), .offsets = view(offsets)});
  rows.ids.finish();
  EXPECT_EQ(rows.ids.size(), 1 << 19);
  EXPECT_EQ(rows.ids.feeds(0, 0).positions.n_elements(), 1 << 20);
}

TEST(RowIds, RefuseMoreThanPositionsAfterCountingThem) {
  Rows rows({{.input = "user"}, {.input = "history", .in_bags = true}});
  std::vector<std::int64_t> few{1, 2};
  rows.ids.add(0, 0, {.ids = view(few)});
  std::vector<std::int64_t> offsets{0, RowIds::kMostIds - 1};
  // The ids are not there: they are counted, not read.
  const TensorView many(DType::int64, {RowIds::kMostIds}, reinterpret_cast<std::byte*>(few.data()));
  EXPECT_EQ(
      thrown([&] { rows.ids.add(0, 1, {.ids = many, .offsets = view(offsets)}); }),
      "data: input \"history\": the batch has 2,147,483,645 ids, 2,147,483,647 of table \"user/embeddings\" in "
      "this step; there is room for 2,147,483,646: lower train.batch, or have more workers");
}

TEST(RowIds, SayWhereAWeightIsBad) {
  const auto error = [](float bad, bool positive) {
    Rows rows({{.input = "history", .padding = 5, .in_bags = true, .positive_weights = positive}});
    std::vector<std::int64_t> ids{1, 2, 3, 5}, offsets{0, 2, 4};
    std::vector<float> weights{1, 1, 1, bad};
    return thrown(
        [&] { rows.ids.add(0, 0, {.ids = view(ids), .offsets = view(offsets), .weights = view(weights)}); });
  };
  EXPECT_EQ(
      error(std::numeric_limits<float>::quiet_NaN(), false),
      "data: input \"history\": row 1 of the batch has weight nan at position 1 of its bag; weights must be "
      "finite");
  EXPECT_THAT(error(std::numeric_limits<float>::infinity(), true), HasSubstr("has weight inf at position 1"));
  EXPECT_EQ(
      error(-2, true),
      "data: input \"history\": row 1 of the batch has weight -2 at position 1 of its bag; weights must be "
      "finite, and with mean and sqrtn not negative");
  EXPECT_EQ(error(-2, false), "no error");
}

TEST(RowIds, SayWhichOffsetsAreBad) {
  const auto error = [](std::vector<std::int64_t> offsets, std::vector<float> weights) {
    Rows rows({{.input = "history", .in_bags = true}});
    std::vector<std::int64_t> ids{1, 2, 3};
    return thrown(
        [&] { rows.ids.add(0, 0, {.ids = view(ids), .offsets = view(offsets), .weights = view(weights)}); });
  };
  EXPECT_EQ(
      error({0, 2, 1}, {1, 1, 1}),
      "data: input \"history\": offset 2 of the bags of the batch is 1; it must be 2 .. 3, between the offset "
      "before and the number of ids");
  EXPECT_THAT(error({0, 4}, {1, 1, 1}),
              HasSubstr("offset 1 of the bags of the batch is 4; it must be 0 .. 3"));
  EXPECT_THAT(error({-1, 2}, {1, 1, 1}), HasSubstr("offset 0 of the bags of the batch is -1"));
  EXPECT_EQ(error({0, 3}, {1, 1}),
            "data: input \"history\": the bags of the batch have 3 ids and 2 weights; each id has one");
}

TEST(RowIds, AreAddedInOrder) {
  Rows rows({{.input = "user"}}, 2);
  std::vector<std::int64_t> ids{1};
  rows.ids.add(1, 0, {.ids = view(ids)});
  const char* words = "argument: input \"user\": the ids of a step were not added in their order";
  EXPECT_EQ(thrown([&] { rows.ids.add(1, 0, {.ids = view(ids)}); }), words);
  EXPECT_EQ(thrown([&] { rows.ids.add(0, 0, {.ids = view(ids)}); }), words);
}

}  // namespace
}  // namespace varscope
