#include "ps/residual_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

CompressionReport of(double residual, double gradient, const std::string& scope = "hidden") {
  CompressionReport report;
  report.add(scope, residual * residual, gradient * gradient);
  return report;
}

TEST(ResidualWatch, TellsOnceWhereWhatIsKeptBackGrowsBeyondTenTimesTheFirst) {
  ResidualWatch watch;
  EXPECT_THAT(watch.add(Clock(10), of(3, 2)), IsEmpty());
  EXPECT_THAT(watch.add(Clock(20), of(30, 2)), IsEmpty()) << "ten times";
  EXPECT_THAT(
      watch.add(Clock(30), of(33, 2)),
      ElementsAre(
          "step 30: what compression keeps back of the gradients of \"hidden\" is 16.5 times as large as "
          "they are, 11 times what it was at step 10: it does not come to rest. Lower "
          "optimizer.learning_rate or cluster.drain_every_steps, raise cluster.settle_steps or the ratio of topk, or compress "
          "this scope with bf16"));
  EXPECT_THAT(watch.add(Clock(40), of(99, 2)), IsEmpty());
}

TEST(ResidualWatch, LooksAtEachScopeBeginningWithItsFirstLoss) {
  ResidualWatch watch;
  EXPECT_THAT(watch.add(Clock(1), {}), IsEmpty());
  EXPECT_THAT(watch.add(Clock(1), of(0, 2, "a")), IsEmpty());
  EXPECT_THAT(watch.add(Clock(2), of(5, 0, "a")), IsEmpty()) << "of no gradients";
  EXPECT_THAT(watch.add(Clock(3), of(1, 1, "a")), IsEmpty());
  EXPECT_THAT(watch.add(Clock(3), of(20, 1, "b")), IsEmpty());
  EXPECT_EQ(watch.add(Clock(4), of(20, 1, "a")).size(), 1U);
  EXPECT_THAT(watch.add(Clock(5), of(40, 1, "b")), IsEmpty());
}

TEST(CompressionReport, AddsUpWorkersScopeByScope) {
  CompressionReport all{.up = 1, .down = 2, .full_up = 10, .full_down = 20, .residuals = {}};
  all.add("a", 9, 1);
  CompressionReport other{.up = 4, .down = 8, .full_up = 10, .full_down = 20, .residuals = {}};
  other.add("b", 16, 4);
  other.add("a", 16, 0);
  all += other;
  EXPECT_EQ(all.up, 5);
  EXPECT_EQ(CompressionReport::share(all.down, all.full_down), 0.25);
  ASSERT_EQ(all.residuals.size(), 2U);
  EXPECT_EQ(all.residuals[0].ratio(), 5);
  EXPECT_EQ(all.residuals[1].ratio(), 2);
  EXPECT_EQ(CompressionReport::share(0, 0), 1) << "of nothing nothing is saved";
}

}  // namespace
}  // namespace varscope
