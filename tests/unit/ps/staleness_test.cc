// What a server counts of pushes and reads that come one by one, in SSP and ASP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/base/clock.h"
#include "ps/update/schedule.h"
#include "tests/support/jobs/one_by_one.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::OneByOne;

// Until the clock shows another time.
void pass_time() {
  for (const std::int64_t start = now_ns(); now_ns() == start;) {
  }
}

constexpr StepRule kSsp1{.consistency = Consistency::ssp, .staleness = 1, .dealing = Dealing::in_place};
constexpr StepRule kAsp{.consistency = Consistency::asp, .staleness = 0, .dealing = Dealing::in_place};

TEST(Staleness, LeadsAreCountedAtTheReadAndNoneIsBeyondTheBound) {
  OneByOne job(kSsp1, 2);
  job.push(0, 1);
  EXPECT_EQ(job.answers(0).size(), 1U);
  job.push(0, 2);
  EXPECT_TRUE(job.answers(0).empty()) << "step 3 needs step 1 of all";
  pass_time();
  job.push(1, 1);
  const auto fast = job.answers(0), slow = job.answers(1);
  ASSERT_EQ(fast.size(), 1U);
  ASSERT_EQ(slow.size(), 1U);
  const StalenessReport r = job.report();
  EXPECT_FALSE(r.leads.in_powers);
  EXPECT_THAT(r.leads.cells, ElementsAre(1, 2))
      << "worker 1 reads step 1 whole; worker 0 twice one step less";
  EXPECT_EQ(r.leads.sum, 2);
  EXPECT_EQ(r.leads.most, 1);
  EXPECT_EQ(r.n_answers, 3);
  EXPECT_EQ(r.bytes_down, 3 * 8 * 4 * 4);
  EXPECT_EQ(r.bytes_up, 0);
  EXPECT_GT(r.gate_ns, 0);
  EXPECT_EQ(r.gate_ns, static_cast<std::int64_t>(fast[0].gated_ns))
      << "the worker is told what the server counts";
  EXPECT_EQ(slow[0].gated_ns, 0U);
}

TEST(Staleness, DelaysArePushesBetweenAReadAndItsPush) {
  OneByOne job(kAsp, 3);
  for (std::int64_t step = 1; step <= 5; ++step) job.push(0, step);
  EXPECT_THAT(job.report().delays.cells, ElementsAre(5));
  job.push(1, 1);
  EXPECT_THAT(job.report().delays.cells, ElementsAre(5, 0, 0, 1)) << "5 is among 4-7";
  EXPECT_EQ(job.report().delays.most, 5);
  job.push(2, 1);
  job.push(1, 2);
  EXPECT_THAT(job.report().delays.cells, ElementsAre(5, 1, 0, 2)) << "6, and 1 for that of worker 2";
  EXPECT_EQ(job.report().delays.sum, 12);
}

// Lead 1, 2, ... 6 while worker 1 has pushed nothing, then 0.
TEST(Staleness, LeadsWithoutABoundAreInPowersOfTwo) {
  OneByOne job(kAsp, 2);
  for (std::int64_t step = 1; step <= 6; ++step) job.push(0, step);
  job.push(1, 1);
  const Tally leads = job.report().leads;
  EXPECT_TRUE(leads.in_powers);
  EXPECT_THAT(leads.cells, ElementsAre(1, 1, 2, 3));
  EXPECT_EQ(leads.name(0), "0");
  EXPECT_EQ(leads.name(1), "1");
  EXPECT_EQ(leads.name(2), "2-3");
  EXPECT_EQ(leads.name(3), "4-7");
  EXPECT_EQ(leads.most, 6);
  EXPECT_EQ(leads.mean(), 3);
  EXPECT_EQ(job.report().gate_ns, 0);
}

TEST(Staleness, TimeInWhichACutHoldsPushesIsCountedOnce) {
  OneByOne job(kAsp, 2);
  job.push(0, 1);
  job.push(0, 2, 1);
  pass_time();
  EXPECT_EQ(job.report().n_holds, 1);
  EXPECT_EQ(job.report().held_ns, 0) << "it is not over";
  job.push(1, 1);
  job.push(1, 2, 1);
  EXPECT_EQ(job.report().delays.count(), 2) << "pushes of step 2 are held";
  job.steps().go_on_after(Clock(1));
  const StalenessReport r = job.report();
  EXPECT_EQ(r.n_holds, 1);
  EXPECT_GT(r.held_ns, 0);
  EXPECT_EQ(r.delays.count(), 4);
  const auto fast = job.answers(0);
  ASSERT_EQ(fast.size(), 2U);
  EXPECT_EQ(fast[0].gated_ns, 0U);
  EXPECT_GT(fast[1].gated_ns, 0U) << "its push was held for what worker 1 had to push";
  EXPECT_GE(r.gate_ns, static_cast<std::int64_t>(fast[1].gated_ns));
  job.steps().go_on_after(Clock(2));
  EXPECT_EQ(job.report().held_ns, r.held_ns);
}

// What others make an answer wait for is no service of this server's: holds, the gate, a worker that takes
// nothing.
TEST(Staleness, OnlyItsOwnTimeIsAServersService) {
  constexpr std::int64_t kOthers_ns = 2'000'000;
  const auto wait = [] {
    for (const std::int64_t start = now_ns(); now_ns() - start < kOthers_ns;) {
    }
  };
  StalenessWatch watch(kSsp1);
  StalenessWatch::Timer timer;
  const std::int64_t start = now_ns();
  StalenessWatch::announced(timer, kOthers_ns);
  StalenessWatch::gated(timer);
  wait();
  StalenessWatch::passed(timer);
  StalenessWatch::untaken(timer);
  wait();
  StalenessWatch::taken(timer);
  wait();
  const std::int64_t gated = watch.answered(timer, 8);
  const std::int64_t all = now_ns() - start;
  EXPECT_GE(gated, 2 * kOthers_ns) << "held, and at the gate";
  EXPECT_EQ(watch.report().gate_ns, gated);
  EXPECT_GE(watch.report().service_ns, kOthers_ns);
  EXPECT_LE(watch.report().service_ns, all - 2 * kOthers_ns);
}

OptimizerConfig sgd_of(double rate) {
  OptimizerConfig config;
  config.type = OptimizerType::sgd;
  config.learning_rate = rate;
  return config;
}

// Worker 0 pushes five steps, then worker 1 its first, whose values are five pushes old; then both in turn.
TEST(PushRates, AreDividedByTheShareOfStepsThatAPushIsLate) {
  OptimizerConfig config = sgd_of(1);
  double at = 0;
  config.staleness_discount = StalenessDiscount::inverse;
  OneByOne job(kAsp, 2, config);
  const auto push = [&](int worker, std::int64_t step, double share, double delay) {
    job.push_gradient(worker, step, 1, share);
    at -= share / std::max(1.0, delay * share);
    EXPECT_DOUBLE_EQ(job.value(), at) << "worker " << worker << ", step " << step;
  };
  for (std::int64_t step = 1; step <= 5; ++step) push(0, step, 0.5, 0);
  push(1, 1, 0.5, 5);
  push(1, 2, 0.5, 0);
  push(0, 6, 0.5, 2);
  push(1, 3, 0.25, 1);
  push(0, 7, 0.75, 1);
  push(0, 8, 0.5, 0);
  push(0, 9, 0.5, 0);
  push(0, 10, 0.5, 0);
  push(1, 4, 0.25, 4);
}

TEST(PushRates, AreNotWhereNothingIsDiscounted) {
  OneByOne job(kAsp, 2, sgd_of(1));
  for (std::int64_t step = 1; step <= 5; ++step) job.push_gradient(0, step, 1, 0.5);
  job.push_gradient(1, 1, 1, 0.5);
  EXPECT_DOUBLE_EQ(job.value(), -3);
}

// Whoever pushes: the rate is that of as many samples in BSP.
TEST(PushRates, FollowTheLeavesThatHaveBeenAppliedWhateverTheirSteps) {
  OptimizerConfig config = sgd_of(1);
  config.schedule.type = ScheduleType::exponential;
  config.schedule.rate = 0.5;
  config.schedule.decay_steps = 1;
  const Schedule schedule(config);
  OneByOne job(kAsp, 3, config);
  double at = 0;
  int n_pushes = 0;
  const auto push = [&](int worker, std::int64_t step) {
    job.push_gradient(worker, step, 1, 1.0 / 3);
    at -= schedule.rate(Clock(1 + n_pushes++ / 3)) / 3;
    EXPECT_NEAR(job.value(), at, 1e-15) << "worker " << worker << ", step " << step;
  };
  for (std::int64_t step = 1; step <= 4; ++step) push(0, step);
  push(2, 1);
  for (std::int64_t step = 1; step <= 3; ++step) push(1, step);
  push(2, 2);
}

// Of pushes without samples, too: their step is over all the same.
TEST(PushRates, CountLeavesWithoutSamples) {
  OptimizerConfig config = sgd_of(1);
  config.schedule.type = ScheduleType::exponential;
  config.schedule.rate = 0.5;
  config.schedule.decay_steps = 1;
  OneByOne job(kAsp, 2, config);
  job.push_gradient(0, 1, 1, 1);
  job.push(1, 1);
  job.push_gradient(1, 2, 1, 0.5);
  EXPECT_DOUBLE_EQ(job.value(), -1.25);
}

// Of a gradient that stays the same the corrected moments are the gradient: each push goes its share of the
// rate. Without the correction, or with one by whole steps, it would go further or less far.
TEST(PushRates, OfAdamAreCorrectedByWhatHasBeenAppliedOfAllWorkers) {
  OptimizerConfig config;
  config.type = OptimizerType::adam;
  config.learning_rate = 0.03;
  config.epsilon = 0;
  OneByOne job(kAsp, 4, config);
  double at = 0;
  const auto push = [&](int worker, std::int64_t step) {
    job.push_gradient(worker, step, 0.5, 0.25);
    at -= 0.03 / 4;
    EXPECT_NEAR(job.value(), at, 1e-12) << "worker " << worker << ", step " << step;
  };
  for (std::int64_t step = 1; step <= 6; ++step) push(0, step);
  for (std::int64_t step = 1; step <= 3; ++step) {
    for (const int worker : {3, 1}) push(worker, step);
  }
  push(2, 1);
}

TEST(Tally, WhatHasComeSinceIsTheDifferenceAndSumsAddUp) {
  Tally before;
  for (const int n : {0, 9, 2}) before.add(n);
  Tally now = before;
  for (const int n : {1, 3, 5}) now.add(n);
  const Tally since = now.since(before);
  EXPECT_THAT(since.cells, ElementsAre(0, 1, 1, 1));
  EXPECT_EQ(since.sum, 9);
  EXPECT_EQ(since.most, 7) << "9 came before: at most what its cell holds";
  Tally sum = before;
  sum += since;
  EXPECT_EQ(sum.cells, now.cells);
  EXPECT_EQ(sum.sum, now.sum);
  EXPECT_EQ(now.since(now).count(), 0);
  EXPECT_EQ(now.since({}).most, 9);
  EXPECT_TRUE(now.is_sound());
  now.cells[1] = -1;
  EXPECT_FALSE(now.is_sound());
  before.cells.resize(100);
  EXPECT_FALSE(before.is_sound());
}

}  // namespace
}  // namespace varscope
