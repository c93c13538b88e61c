#include "ps/update/schedule.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>
#include <vector>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

using Table = std::vector<std::pair<std::int64_t, double>>;  // step, rate

void expect_rates(double learning_rate, const ScheduleConfig& config, const Table& table) {
  const Schedule schedule(learning_rate, config);
  for (const auto& [step, rate] : table)
    EXPECT_NEAR(schedule.rate(Clock(step)), rate, 1e-12) << "step " << step;
}

// The numbers below were worked out by hand.

TEST(Schedule, Constant) { expect_rates(0.1, {}, {{1, 0.1}, {2, 0.1}, {1'000'000, 0.1}}); }

TEST(Schedule, StepChangesAfterEverySoManySteps) {
  expect_rates(0.8, {.type = ScheduleType::step, .every_steps = 3, .factor = 0.5},
               {{1, 0.8}, {3, 0.8}, {4, 0.4}, {6, 0.4}, {7, 0.2}, {10, 0.1}, {13, 0.05}});
}

TEST(Schedule, PiecewiseTakesTheLastBoundaryPassed) {
  expect_rates(2, {.type = ScheduleType::piecewise, .boundaries = {2, 5}, .factors = {0.5, 0.125}},
               {{1, 2}, {2, 2}, {3, 1}, {5, 1}, {6, 0.25}, {100, 0.25}});
  expect_rates(2, {.type = ScheduleType::piecewise}, {{1, 2}, {9, 2}});
}

TEST(Schedule, ExponentialIsSmoothOrAStaircase) {
  ScheduleConfig c{.type = ScheduleType::exponential, .decay_steps = 2, .rate = 0.25};
  expect_rates(1, c, {{1, 1}, {2, 0.5}, {3, 0.25}, {4, 0.125}, {5, 0.0625}});
  c.staircase = true;
  expect_rates(1, c, {{1, 1}, {2, 1}, {3, 0.25}, {4, 0.25}, {5, 0.0625}});
}

TEST(Schedule, PolynomialEndsAtItsEnd) {
  ScheduleConfig c{.type = ScheduleType::polynomial, .decay_steps = 4, .end_learning_rate = 0.2, .power = 1};
  expect_rates(1, c, {{1, 1}, {2, 0.8}, {3, 0.6}, {4, 0.4}, {5, 0.2}, {6, 0.2}, {99, 0.2}});
  c.power = 2;  // 0.2 + 0.8 (3/4)^2, ...
  expect_rates(1, c, {{1, 1}, {2, 0.65}, {3, 0.4}, {4, 0.25}, {5, 0.2}, {6, 0.2}});
}

TEST(Schedule, CosineFallsToAlpha) {
  ScheduleConfig c{.type = ScheduleType::cosine, .decay_steps = 6, .alpha = 0};
  const double r3 = 0.8660254037844386;  // cos(pi/6)
  expect_rates(2, c, {{1, 2}, {2, 1 + r3}, {3, 1.5}, {4, 1}, {5, 0.5}, {6, 1 - r3}, {7, 0}, {50, 0}});
  c.alpha = 0.5;
  expect_rates(2, c, {{1, 2}, {3, 1.75}, {4, 1.5}, {7, 1}, {8, 1}});
}

TEST(Schedule, WarmUpRisesToTheRateAndTheScheduleCountsFromItsEnd) {
  expect_rates(0.8, {.warmup_steps = 4}, {{1, 0.2}, {2, 0.4}, {3, 0.6}, {4, 0.8}, {5, 0.8}, {9, 0.8}});
  expect_rates(0.8, {.type = ScheduleType::step, .every_steps = 2, .factor = 0.5, .warmup_steps = 2},
               {{1, 0.4}, {2, 0.8}, {3, 0.8}, {4, 0.8}, {5, 0.4}, {7, 0.2}});
  expect_rates(1, {.type = ScheduleType::exponential, .decay_steps = 2, .rate = 0.25, .warmup_steps = 1},
               {{1, 1}, {2, 1}, {3, 0.5}, {4, 0.25}});
  expect_rates(
      1, {.type = ScheduleType::polynomial, .decay_steps = 4, .end_learning_rate = 0, .warmup_steps = 2},
      {{1, 0.5}, {2, 1}, {3, 1}, {4, 0.75}, {7, 0}});
  expect_rates(2, {.type = ScheduleType::cosine, .decay_steps = 2, .warmup_steps = 2},
               {{1, 1}, {2, 2}, {3, 2}, {4, 1}, {5, 0}});
  expect_rates(2, {.type = ScheduleType::piecewise, .boundaries = {1}, .factors = {3}, .warmup_steps = 2},
               {{1, 1}, {2, 2}, {3, 2}, {4, 6}});
}

TEST(Schedule, RefusesNumbersOutOfRange) {
  const auto error = [](const ScheduleConfig& c) { return thrown([&] { Schedule(1, c); }); };
  EXPECT_EQ(error({.warmup_steps = -1}), "argument: optimizer.schedule: warmup_steps must be 0 or more");
  EXPECT_EQ(error({.type = ScheduleType::step}),
            "argument: optimizer.schedule: every_steps must be 1 or more");
  for (ScheduleType type : {ScheduleType::exponential, ScheduleType::polynomial, ScheduleType::cosine}) {
    EXPECT_EQ(error({.type = type}), "argument: optimizer.schedule: decay_steps must be 1 or more");
    EXPECT_EQ(error({.type = type, .decay_steps = 1}), "no error");
  }
  EXPECT_EQ(error({.type = ScheduleType::piecewise, .boundaries = {3, 3}, .factors = {1, 1}}),
            "argument: optimizer.schedule: boundaries must rise");
  EXPECT_EQ(error({.type = ScheduleType::piecewise, .boundaries = {3}, .factors = {}}),
            "argument: optimizer.schedule: factors must be as many as boundaries");
  EXPECT_EQ(error({.type = ScheduleType::cosine, .decay_steps = 1, .alpha = 2}),
            "argument: optimizer.schedule: alpha must be in [0, 1]");
}

}  // namespace
}  // namespace varscope
