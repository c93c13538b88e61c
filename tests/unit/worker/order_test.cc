#include "worker/data/order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/base/error.h"

namespace varscope {
namespace {

std::vector<std::int64_t> all_of(const EpochOrder& order) {
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
