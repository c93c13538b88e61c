#include "common/config/flush_rule.h"

#include <gtest/gtest.h>

namespace varscope {
namespace {

TEST(FlushRule, WithoutResidualsEveryStepMayBeCut) {
  const FlushRule rule;
  EXPECT_TRUE(rule.may_cut(Clock(7)));
  EXPECT_EQ(rule.next_cut(Clock(7)), Clock(7));
}

TEST(FlushRule, ResidualsAreFlushedAtMultiplesEvaluationsAndTheEnd) {
  const FlushRule rule{.has_residuals = true,
                       .every = 100,
                       .checkpoint_every = 30,
                       .evaluation_every = 45,
                       .last = Clock(211)};
  for (const int step : {30, 45, 60, 90, 100, 135, 200, 211}) {
    EXPECT_TRUE(rule.is_flush(Clock(step))) << step;
    EXPECT_TRUE(rule.may_cut(Clock(step))) << step;
    EXPECT_EQ(rule.next_cut(Clock(step)), Clock(step));
  }
  for (const int step : {1, 29, 31, 44, 99, 101, 212}) EXPECT_FALSE(rule.may_cut(Clock(step))) << step;
  EXPECT_EQ(rule.next_cut(Clock(1)), Clock(30));
  EXPECT_EQ(rule.next_cut(Clock(31)), Clock(45));
  EXPECT_EQ(rule.next_cut(Clock(91)), Clock(100));
  EXPECT_EQ(rule.next_cut(Clock(211)), Clock(211));
  EXPECT_EQ(rule.next_cut(Clock(212)), Clock(225)) << "a run that went beyond its end";
}

TEST(FlushRule, TheEndIsTheOnlyCutWhereNothingElseIsPlanned) {
  const FlushRule rule{.has_residuals = true, .last = Clock(9)};
  EXPECT_EQ(rule.next_cut(Clock(1)), Clock(9));
}

TEST(FlushRule, WithADelayOnlyStepsWithoutOlderValuesMayBeCut) {
  const FlushRule rule{.every = 10, .last = Clock(25), .delay = 1};
  EXPECT_TRUE(rule.is_needed());
  EXPECT_FALSE(rule.may_cut(Clock(9)));
  EXPECT_TRUE(rule.may_cut(Clock(10)));
  EXPECT_EQ(rule.next_cut(Clock(21)), Clock(25));
}

TEST(FlushRule, WithoutADelayAStepReadsTheValuesAfterTheOneBefore) {
  const FlushRule rule{.every = 7, .checkpoint_every = 5, .evaluation_every = 11, .last = Clock(40)};
  for (std::int64_t step = 4; step <= 40; ++step)
    EXPECT_EQ(rule.read_by(Clock(step), Clock(3)), Clock(step - 1));
}

// By what is meant: the newest of the values that are old enough and those that everybody has waited for.
TEST(FlushRule, WithADelayAStepReadsOlderValuesButNoneFromBeforeAFlush) {
  for (const std::int64_t delay : {1, 2}) {
    for (const std::int64_t checkpoint_every : {0, 1, 2, 5}) {
      for (const std::int64_t first : {0, 3, 10}) {
        const FlushRule rule{.every = 7,
                             .checkpoint_every = checkpoint_every,
                             .evaluation_every = 11,
                             .last = Clock(40),
                             .delay = delay};
        for (std::int64_t step = first + 1; step <= 40; ++step) {
          std::int64_t expected = first;
          for (std::int64_t v = first + 1; v < step; ++v)
            if (v <= step - 1 - delay || rule.is_flush(Clock(v))) expected = v;
          EXPECT_EQ(rule.read_by(Clock(step), Clock(first)), Clock(expected))
              << "step " << step << " from " << first << ", delay " << delay;
        }
        for (std::int64_t v = first; v < 40; ++v) {
          std::optional<Clock> last_reader;
          for (std::int64_t step = first + 1; step <= 40; ++step)
            if (rule.read_by(Clock(step), Clock(first)) == Clock(v)) last_reader = Clock(step);
          EXPECT_EQ(rule.last_reader(Clock(v), Clock(first)), last_reader)
              << "values after step " << v << " from " << first << ", delay " << delay;
        }
      }
    }
  }
  const FlushRule rule{.every = 100, .last = Clock(40), .delay = 2};
  EXPECT_EQ(rule.read_by(Clock(42), Clock(10)), Clock(40)) << "a run that went beyond its end";
}

}  // namespace
}  // namespace varscope
