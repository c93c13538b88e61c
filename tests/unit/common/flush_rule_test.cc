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

}  // namespace
}  // namespace varscope
