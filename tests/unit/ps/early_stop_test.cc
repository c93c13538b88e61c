#include "ps/early_stop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "ps/coordinator.h"

namespace varscope {
namespace {

StopConfig rule(std::int64_t patience, double min_delta = 0) {
  return {.metric = "loss", .patience = patience, .min_delta = min_delta};
}

// The step at which it is over, of evaluations after steps 10, 20, ...; 0: never.
std::int64_t over_at(EarlyStop stop, const std::vector<double>& values) {
  std::int64_t step = 0;
  for (const double v : values) {
    stop.add(step += 10, v);
    if (stop.is_over()) return step;
  }
  return 0;
}

TEST(EarlyStop, IsOverAfterSoManyEvaluationsThatAreNoBetter) {
  const EarlyStop two(rule(2), MetricOrder::smaller, {});
  EXPECT_EQ(over_at(two, {5, 4, 3, 2, 1}), 0);
  EXPECT_EQ(over_at(two, {5, 4, 4, 4, 1}), 40) << "equal is no better";
  EXPECT_EQ(over_at(two, {5, 6, 4, 6, 3, 6}), 0) << "in a row";
  EXPECT_EQ(over_at(two, {1, 2, 3}), 30);
  EXPECT_EQ(over_at(EarlyStop(rule(1), MetricOrder::larger, {}), {.5, .6, .55}), 30);
}

TEST(EarlyStop, CountsSmallGainsOnlyWhereTheyAddUp) {
  const EarlyStop stop(rule(2, 0.5), MetricOrder::smaller, {});
  EXPECT_EQ(over_at(stop, {5, 4.75, 4.5}), 30) << "0.5 is not more than 0.5";
  EXPECT_EQ(over_at(stop, {5, 4.75, 4.25, 4, 3.5}), 0) << "against the last better one";
  EarlyStop best(rule(9, 0.5), MetricOrder::smaller, {});
  for (int i = 1; i <= 3; ++i) best.add(10 * i, 5 - 0.1 * i);
  EXPECT_EQ(best.state().best_step, 30) << "the best is the best, by however little";
  EXPECT_EQ(best.state().n_since, 2);
}

TEST(EarlyStop, NaNIsNeverBetter) {
  EXPECT_EQ(over_at(EarlyStop(rule(2), MetricOrder::smaller, {}), {5, std::nan(""), std::nan("")}), 30);
  EXPECT_EQ(over_at(EarlyStop(rule(2), MetricOrder::smaller, {}), {std::nan(""), std::nan("")}), 20);
}

TEST(EarlyStop, GoesOnFromItsState) {
  const std::vector<double> values{5, 3, 4, 2, 6, 7, 8, 9};
  EarlyStop whole(rule(3), MetricOrder::smaller, {}), parts = whole;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto step = static_cast<std::int64_t>(10 * (i + 1));
    CoordinatorState saved;
    saved.run = i % 2 == 0 ? "" : "text\n";
    saved.stop = parts.state();
    const CoordinatorState read = from_manifest_text(to_manifest_text(saved));
    ASSERT_TRUE(read.stop);
    EXPECT_EQ(read.run, saved.run);
    parts = EarlyStop(rule(3), MetricOrder::smaller, read.stop);
    whole.add(step, values[i]);
    parts.add(step, values[i]);
    parts.add(step, values[i]);  // evaluated again by a run that goes on
    EXPECT_EQ(parts.is_over(), whole.is_over());
    EXPECT_EQ(parts.state().best_step, whole.state().best_step);
  }
  EXPECT_TRUE(whole.is_over());
  const EarlyStop other({.metric = "auc", .patience = 3}, MetricOrder::larger, whole.state());
  EXPECT_FALSE(other.state().has_best) << "by another metric it begins anew";
}

TEST(EarlyStop, AStateWithoutItIsAsItWas) {
  CoordinatorState state;
  state.run = "1 2\n";
  EXPECT_EQ(to_manifest_text(state).find("#early-stop"), std::string::npos);
  EXPECT_FALSE(from_manifest_text(to_manifest_text(state)).stop);
}

}  // namespace
}  // namespace varscope
