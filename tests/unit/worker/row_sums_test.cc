#include "worker/tables/row_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/base/philox.h"
#include "common/placement/canonical_sum.h"
#include "worker/tables/row_ids.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RowPlan plan_of(std::int64_t entry, DType dtype = DType::float32) {
  VariableSpec spec;
  spec.name = "user/embeddings";
  spec.shape = {0, 2};
  spec.dtype = dtype;
  spec.table = TableSpec{.ids = IdType::int64, .parts = 4, .entry = entry};
  return RowPlan::make(VariableTable({spec}), 1);
}

TEST(RowSums, AddWhatBothHaveAndTakeWhatOneHas) {
  const RowPlan plan = plan_of(3, DType::float64);
  RowSums sums(plan[TableId(0)], 2);
  auto* left = reinterpret_cast<double*>(sums.begin(0, 4));
  auto* right = reinterpret_cast<double*>(sums.begin(1, 4));
  for (int i = 0; i < 8; ++i) {
    left[i] = i;
    right[i] = 10 * i;
  }
  const std::vector<std::int32_t> of_left{0, 2}, of_right{2, 3};
  const std::vector<std::uint32_t> n_left{1, 5}, n_right{2, 7};
  sums.touch(0, of_left, n_left);
  sums.touch(1, of_right, n_right);
  sums.add(0, 1, 4);
  EXPECT_THAT(sums.touched(0), ElementsAre(0, 2, 3));
  const auto* sum = reinterpret_cast<const double*>(sums.gradients(0));
  EXPECT_THAT(std::vector<double>(sum + 4, sum + 8), ElementsAre(44, 55, 60, 70));
  EXPECT_EQ(sum[0], 0);
  EXPECT_EQ(sum[1], 1);
  EXPECT_EQ(sums.counts(0)[0], 1U);
  EXPECT_EQ(sums.counts(0)[2], 7U);
  EXPECT_EQ(sums.counts(0)[3], 7U);
}

// Also right after a step in which the buffer had rows.
TEST(RowSums, WithoutSamplesHaveNothing) {
  const RowPlan plan = plan_of(2);
  RowSums sums(plan[TableId(0)], 2);
  const std::vector<std::int32_t> all{0, 1, 2};
  const std::vector<std::uint32_t> nines{9, 9, 9}, one{1};
  sums.begin(0, 3);
  sums.touch(0, all, nines);
  sums.touch(0, {}, {});
  EXPECT_THAT(sums.touched(0), IsEmpty());
  auto* right = reinterpret_cast<float*>(sums.begin(1, 3));
  right[2] = 4;
  sums.touch(1, std::vector<std::int32_t>{1}, one);
  sums.add(0, 1, 3);
  EXPECT_THAT(sums.touched(0), ElementsAre(1));
  EXPECT_EQ(sums.counts(0)[1], 1U);
  EXPECT_EQ(reinterpret_cast<const float*>(sums.gradients(0))[2], 4);
  sums.add(0, 1, 3);  // and one that has something, with one that has
  EXPECT_EQ(sums.counts(0)[1], 2U);
}

TEST(RowSums, OfATableThatDoesNotCountHaveNoCounts) {
  const RowPlan plan = plan_of(1);
  RowSums sums(plan[TableId(0)], 1);
  sums.begin(0, 1);
  sums.touch(0, std::vector<std::int32_t>{0}, {});
  EXPECT_EQ(sums.counts(0), nullptr);
}

// Of four parts; a row that the buffer has not touched, and the padding's, count for none and stay as they
// are.
TEST(RowSums, SquaresArePartByPartAndScalingTakesTouchedRowsOnly) {
  const RowPlan plan = plan_of(1, DType::float64);
  RowSums sums(plan[TableId(0)], 1);
  constexpr std::size_t kRows = 40;
  auto* rows = reinterpret_cast<double*>(sums.begin(0, kRows));
  std::vector<std::uint64_t> ids;
  std::vector<std::int32_t> touched;
  std::vector<double> expected(4, 0), found(4, 0);
  for (std::size_t r = 0; r < kRows; ++r) {
    ids.push_back(1000 + 7 * r);
    rows[2 * r] = static_cast<double>(r);
    rows[2 * r + 1] = 0.5;
    if (r % 3 == 0) continue;
    touched.push_back(static_cast<std::int32_t>(r));
    expected[static_cast<std::size_t>(plan[TableId(0)].part_of(ids[r]))] += static_cast<double>(r * r) + 0.25;
  }
  rows[2 * kRows] = rows[2 * kRows + 1] = 99;
  sums.touch(0, touched, {});
  sums.add_squares(0, ids, found);
  EXPECT_EQ(found, expected);
  EXPECT_THAT(expected, ::testing::Each(::testing::Gt(0)));
  sums.scale(0, 0.5);
  for (std::size_t r = 0; r < kRows; ++r) {
    EXPECT_EQ(rows[2 * r], static_cast<double>(r) * (r % 3 == 0 ? 1 : 0.5)) << r;
    EXPECT_EQ(rows[2 * r + 1], r % 3 == 0 ? 0.5 : 0.25) << r;
  }
  EXPECT_EQ(rows[2 * kRows], 99);
}

// The samples of eight logical workers, the last but one without any: bags with padding and weights of 0.
class Step {
 public:
  static constexpr int kLeaves = 8;
  explicit Step(std::uint64_t seed) : random_(seed, RandomPurpose::test, 0) {
    for (int v = 0; v < kLeaves; ++v) {
      Leaf& leaf = leaves_[static_cast<std::size_t>(v)];
      for (int row = 0; v != 6 && row < 20; ++row) {
        for (std::uint64_t i = draw(6); i > 0; --i) {
          leaf.ids.push_back(static_cast<std::int64_t>(draw(30)) - 3);
          leaf.weights.push_back(static_cast<float>(draw(3)));
        }
        leaf.offsets.push_back(std::ssize(leaf.ids));
      }
    }
  }
  // How often each id occurs; padding is 0.
  std::map<std::uint64_t, std::uint32_t> occurrences() const {
    std::map<std::uint64_t, std::uint32_t> n;
    for (const Leaf& leaf : leaves_) {
      for (std::size_t i = 0; i < leaf.ids.size(); ++i) {
        if (leaf.ids[i] != 0 && leaf.weights[i] != 0) ++n[static_cast<std::uint64_t>(leaf.ids[i])];
        if (leaf.ids[i] != 0) ++n[static_cast<std::uint64_t>(leaf.ids[i])];  // the other lookup
      }
    }
    return n;
  }
  // The sum over all contributions of one worker that has `leaves`.
  void add_worker(RowIds& ids, RowSums& sums, LeafRange leaves, std::map<std::uint64_t, std::uint32_t>& n) {
    const LocalSumPlan plan = LocalSumPlan::make(leaves, kLeaves);
    ids.clear();
    for (int v = leaves.begin; v < leaves.end; ++v) {
      Leaf& leaf = leaves_[static_cast<std::size_t>(v)];
      if (leaf.ids.empty()) continue;
      const TensorView view(DType::int64, {std::ssize(leaf.ids)}, bytes(leaf.ids));
      ids.add(v - leaves.begin, 0,
              {.ids = view,
               .offsets = TensorView(DType::int64, {std::ssize(leaf.offsets)}, bytes(leaf.offsets)),
               .weights = TensorView(DType::float32, {std::ssize(leaf.weights)}, bytes(leaf.weights))});
      ids.add(v - leaves.begin, 1, {.ids = view});
    }
    ids.finish();
    const auto n_rows = static_cast<std::size_t>(ids.size());
    for (int v = leaves.begin; v < leaves.end; ++v) {
      const int local = v - leaves.begin;
      const LocalSumPlan::Leaf& leaf = plan.leaves[static_cast<std::size_t>(local)];
      sums.begin(leaf.buffer, n_rows);
      sums.touch(leaf.buffer, ids.touched(local), ids.counts(local));
      for (const LocalSumPlan::Merge& m : leaf.merges) sums.add(m.into, m.from, n_rows);
    }
    for (int c = 0; c < static_cast<int>(plan.contributions.size()); ++c) {
      for (const std::int32_t row : sums.touched(c))
        n[ids.ids()[static_cast<std::size_t>(row)]] += sums.counts(c)[row];
    }
  }

 private:
  struct Leaf {
    std::vector<std::int64_t> ids, offsets{0};
    std::vector<float> weights;
  };
  template <class T>
  static std::byte* bytes(std::vector<T>& v) {
    return reinterpret_cast<std::byte*>(v.data());
  }
  std::uint64_t draw(std::uint64_t bound) { return random_.below(at_++, bound); }

  RandomStream random_;
  std::uint64_t at_ = 0;
  std::array<Leaf, kLeaves> leaves_;
};

TEST(RowSums, CountEachIdAsOftenOnAnyNumberOfWorkers) {
  const RowPlan plan = plan_of(3);
  const RowPlan::Table& table = plan[TableId(0)];
  for (const int workers : {1, 2, 3, 4, 8}) {
    SCOPED_TRACE(workers);
    std::vector<std::unique_ptr<RowIds>> ids;
    std::vector<std::unique_ptr<RowSums>> sums;
    const std::vector<RowLookup> lookups{{.input = "history", .padding = 0, .in_bags = true},
                                         {.input = "item", .padding = 0}};
    for (int w = 0; w < workers; ++w) {
      ids.push_back(std::make_unique<RowIds>(table, lookups, Step::kLeaves));
      sums.push_back(std::make_unique<RowSums>(table, 8));
    }
    for (std::uint64_t seed = 1; seed < 4; ++seed) {  // steps of one run: buffers are used again
      Step step(seed);
      std::map<std::uint64_t, std::uint32_t> n;
      for (int w = 0; w < workers; ++w) {
        const auto i = static_cast<std::size_t>(w);
        step.add_worker(*ids[i], *sums[i], {w * Step::kLeaves / workers, (w + 1) * Step::kLeaves / workers},
                        n);
      }
      EXPECT_EQ(n, step.occurrences());
    }
  }
}

}  // namespace
}  // namespace varscope
