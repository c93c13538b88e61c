#include "bench/bench.h"

#include <gtest/gtest.h>

#include <limits>

namespace varscope::bench {
namespace {

TEST(Spread, HasTheMedianBetweenTheExtremes) {
  const Spread odd = Spread::of({3, 1, 2}), even = Spread::of({4, 1, 2, 3}), none = Spread::of({});
  EXPECT_EQ(std::tuple(odd.median, odd.min, odd.max), std::tuple(2.0, 1.0, 3.0));
  EXPECT_EQ(std::tuple(even.median, even.min, even.max), std::tuple(2.5, 1.0, 4.0));
  EXPECT_EQ(std::tuple(none.median, none.min, none.max), std::tuple(0.0, 0.0, 0.0));
}

TEST(RequirePositive, LetsSpeedsPass) { require_positive("push", Spread::of({1e-9, 2, 1e9})); }

TEST(RequirePositive, EndsABenchmarkThatMeasuredNothing) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const std::vector<double>& takes :
       {std::vector<double>{}, {0, 2}, {-1}, {1, infinity}, {std::numeric_limits<double>::quiet_NaN()}}) {
    EXPECT_EXIT(require_positive("push of 4 KiB", Spread::of(takes)), ::testing::ExitedWithCode(1),
                "bench: push of 4 KiB is .*which is no speed: nothing was measured");
  }
}

}  // namespace
}  // namespace varscope::bench
