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

TEST(FlushRule, WhatIsKeptBackGoesUpInEqualParts) {
  const FlushRule rule{.has_residuals = true, .every = 20, .last = Clock(90), .settle = 4};
  double left = 1;
  for (int step = 1; step <= 20; ++step) {
    const double part = rule.part_sent(Clock(step));
    EXPECT_DOUBLE_EQ(part * left, step > 16 ? 0.25 : 0) << step;
    left -= part * left;
  }
  EXPECT_EQ(left, 0);
  EXPECT_EQ(rule.part_sent(Clock(21)), 0);
}

TEST(FlushRule, AtMostHalfOfTheStepsBetweenFlushesAreInFull) {
  const FlushRule rule{.has_residuals = true,
                       .every = 100,
                       .checkpoint_every = 93,
                       .evaluation_every = 98,
                       .last = Clock(105),
                       .settle = 40};
  const auto n_full = [&](int from, int to) {
    int n = 0;
    for (int step = from; step <= to; ++step) n += rule.part_sent(Clock(step)) > 0 ? 1 : 0;
    return n;
  };
  EXPECT_EQ(n_full(1, 93), 40);
  EXPECT_EQ(n_full(94, 98), 2);
  EXPECT_EQ(n_full(99, 100), 1);
  EXPECT_EQ(n_full(101, 105), 2);
  EXPECT_EQ(n_full(106, 186), 40) << "a run that went beyond its end";
  const FlushRule each{.has_residuals = true, .every = 1, .last = Clock(9), .settle = 10};
  EXPECT_EQ(each.part_sent(Clock(3)), 1);
}

TEST(FlushRule, AllOfItGoesUpAtOnceWhereNothingSettles) {
  const FlushRule rule{.has_residuals = true, .every = 20, .last = Clock(90)};
  for (int step = 1; step < 20; ++step) EXPECT_EQ(rule.part_sent(Clock(step)), 0) << step;
  EXPECT_EQ(rule.part_sent(Clock(20)), 1);
  const FlushRule no_end{.has_residuals = true, .settle = 5};
  EXPECT_EQ(no_end.part_sent(Clock(1000)), 0);
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
