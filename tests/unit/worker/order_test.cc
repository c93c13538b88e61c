#include "worker/data/order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/base/error.h"

namespace varscope {
namespace {

std::vector<std::int64_t> all_of(EpochOrder order) {
  const auto part = order.part(0, order.size());
  return {part.begin(), part.end()};
}

TEST(EpochOrder, IsAPermutationThatDependsOnSeedAndEpochOnly) {
  std::vector<std::int64_t> sorted(1000);
  std::iota(sorted.begin(), sorted.end(), 0);
  const auto order = all_of(EpochOrder(3, 4, 1000, Shuffle::yes));
  EXPECT_EQ(order, all_of(EpochOrder(3, 4, 1000, Shuffle::yes)));
  EXPECT_NE(order, all_of(EpochOrder(3, 5, 1000, Shuffle::yes)));
  EXPECT_NE(order, all_of(EpochOrder(4, 4, 1000, Shuffle::yes)));
  EXPECT_NE(order, sorted);
  EXPECT_EQ(all_of(EpochOrder(3, 4, 1000, Shuffle::no)), sorted);
  auto again = order;
  std::sort(again.begin(), again.end());
  EXPECT_EQ(again, sorted);
}

TEST(EpochOrder, EveryPositionIsUniform) {
  // 2000 shuffles of 5: each element is at each position about 400 times (6 standard deviations are 107).
  int count[5][5] = {};
  for (std::int64_t epoch = 0; epoch < 2000; ++epoch) {
    const auto order = all_of(EpochOrder(1, epoch, 5, Shuffle::yes));
    for (std::size_t i = 0; i < 5; ++i) ++count[i][order[i]];
  }
  for (const auto& row : count) {
    for (const int n : row) EXPECT_NEAR(n, 400, 107);
  }
}

// More samples than are listed.
constexpr std::int64_t kMany = EpochOrder::kMostListed + 12345;

TEST(EpochOrder, OfManySamplesVisitsEachOnce) {
  for (const std::int64_t n : {EpochOrder::kMostListed + 1, kMany, std::int64_t{1025} * 1025}) {
    std::vector<bool> seen(static_cast<std::size_t>(n), false);
    for (const std::int64_t i : all_of(EpochOrder(3, 4, n, Shuffle::yes))) {
      ASSERT_TRUE(i >= 0 && i < n) << i;
      ASSERT_FALSE(seen[static_cast<std::size_t>(i)]) << i << " twice, of " << n;
      seen[static_cast<std::size_t>(i)] = true;
    }
  }
}

TEST(EpochOrder, OfManySamplesDependsOnSeedAndEpochOnly) {
  const auto order = all_of(EpochOrder(3, 4, kMany, Shuffle::yes));
  EXPECT_EQ(order, all_of(EpochOrder(3, 4, kMany, Shuffle::yes)));
  const auto alike = [&](EpochOrder other) {
    const auto part = other.part(0, kMany);
    int n = 0;
    for (std::size_t i = 0; i < order.size(); ++i) n += part[i] == order[i] ? 1 : 0;
    return n;
  };
  // Two random permutations agree in one place on average.
  EXPECT_LT(alike(EpochOrder(3, 5, kMany, Shuffle::yes)), 10);
  EXPECT_LT(alike(EpochOrder(4, 4, kMany, Shuffle::yes)), 10);
  EXPECT_LT(alike(EpochOrder(3, 4, kMany, Shuffle::no)), 10);
  // A part is the same alone.
  EpochOrder alone(3, 4, kMany, Shuffle::yes);
  const auto part = alone.part(777'777, 777'780);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), order.begin() + 777'777));
  EXPECT_THROW(alone.part(0, kMany + 1), Error);
}

TEST(EpochOrder, OfManySamplesMixesNearAndFar) {
  const auto order = all_of(EpochOrder(5, 0, kMany, Shuffle::yes));
  // Each tenth of the epoch has a tenth of each tenth of the samples: 10,609 of them, standard deviation 93.
  int count[10][10] = {};
  int neighbours = 0, ascents = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    ++count[i * 10 / order.size()][order[i] * 10 / kMany];
    if (i == 0) continue;
    neighbours += std::abs(order[i] - order[i - 1]) < 1000 ? 1 : 0;
    ascents += order[i] > order[i - 1] ? 1 : 0;
  }
  for (const auto& row : count) {
    for (const int n : row) EXPECT_NEAR(n, kMany / 100.0, 6 * 93);
  }
  EXPECT_NEAR(neighbours, 2.0 * 999, 6 * 45);
  EXPECT_NEAR(ascents, kMany / 2.0, 6 * 300);
}

TEST(EpochOrder, OfBillionsOfSamplesTakesNoMemory) {
  EpochOrder order(1, 2, std::int64_t{1} << 40, Shuffle::yes);
  const auto part = order.part((std::int64_t{1} << 39) - 2, (std::int64_t{1} << 39) + 2);
  EXPECT_EQ(std::vector<std::int64_t>(part.begin(), part.end()),
            (std::vector<std::int64_t>{395791936067, 416435581833, 978829117959, 659695999067}));
}

TEST(EpochOrder, OfFewSamplesIsTheOneItAlwaysWas) {
  EpochOrder order(1, 0, 8, Shuffle::yes);
  const auto part = order.part(0, 8);
  EXPECT_EQ(std::vector<std::int64_t>(part.begin(), part.end()),
            (std::vector<std::int64_t>{4, 1, 6, 0, 5, 7, 3, 2}));
}

TEST(EpochOrder, HandlesNoneAndOne) {
  EXPECT_EQ(EpochOrder(1, 0, 0, Shuffle::yes).size(), 0);
  EXPECT_EQ(all_of(EpochOrder(1, 0, 1, Shuffle::yes)), std::vector<std::int64_t>{0});
  EXPECT_TRUE(EpochOrder(1, 0, 3, Shuffle::yes).part(3, 3).empty());
  EXPECT_THROW(EpochOrder(1, 0, 3, Shuffle::yes).part(1, 4), Error);
  EXPECT_THROW(EpochOrder(1, 0, 3, Shuffle::yes).part(-1, 2), Error);
}

TEST(BatchAt, KeepsTheShortLastBatch) {
  EXPECT_EQ(steps_per_epoch(10, 4), 3);
  EXPECT_EQ(batch_at(0, 10, 4), (BatchRange{0, 0, 0, 4}));
  EXPECT_EQ(batch_at(2, 10, 4), (BatchRange{0, 2, 8, 10}));
  EXPECT_EQ(batch_at(3, 10, 4), (BatchRange{1, 0, 0, 4}));
  EXPECT_EQ(batch_at(3'000'000'002, 10, 4), (BatchRange{1'000'000'000, 2, 8, 10}));
}

TEST(BatchAt, HandlesExactAndOversizedBatches) {
  EXPECT_EQ(steps_per_epoch(8, 4), 2);
  EXPECT_EQ(batch_at(1, 8, 4), (BatchRange{0, 1, 4, 8}));
  EXPECT_EQ(batch_at(5, 8, 100), (BatchRange{5, 0, 0, 8}));
  EXPECT_THROW(batch_at(0, 0, 4), Error);
  EXPECT_THROW(batch_at(0, 4, 0), Error);
  EXPECT_THROW(batch_at(-1, 4, 4), Error);
}

TEST(LogicalRange, CoversWithoutHoleOrOverlap) {
  for (const std::int64_t n : {0, 1, 5, 7, 64, 127}) {
    for (const std::int64_t parts : {1, 2, 3, 8, 64}) {
      std::int64_t at = 10;
      for (std::int64_t v = 0; v < parts; ++v) {
        const Range r = logical_range(10, 10 + n, v, parts);
        EXPECT_EQ(r.begin, at);
        EXPECT_GE(r.size(), n / parts);
        EXPECT_LE(r.size(), n / parts + 1);
        at = r.end;
      }
      EXPECT_EQ(at, 10 + n) << n << " in " << parts;
    }
  }
  EXPECT_EQ(logical_range(0, 7, 0, 3), (Range{0, 3})) << "the larger parts come first";
  EXPECT_THROW(logical_range(0, 7, 3, 3), Error);
  EXPECT_THROW(logical_range(0, 7, -1, 3), Error);
  EXPECT_THROW(logical_range(7, 0, 0, 1), Error);
}

}  // namespace
}  // namespace varscope
