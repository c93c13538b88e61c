#include "common/base/backoff.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "common/base/clock.h"

namespace varscope {
namespace {

constexpr std::int64_t kUs = 1'000, kMs = 1'000'000, kSecond = 1'000'000'000;
constexpr std::int64_t kForEver = std::numeric_limits<std::int64_t>::max();

// A core and its clock: what a yield takes is the test's, a sleep lasts 65 us longer than it should, a poll
// takes one. Whoever has run for longer than his share without a sleep is also kept waiting for a slice.
struct Core {
  std::int64_t now = 7 * kSecond;
  std::int64_t yield_ns = 600, share_ns = kForEver, slice_ns = 0;
  std::int64_t slept_at = now;
  std::int64_t in_yields_ns = 0;
  int yields = 0;
  std::vector<std::int64_t> sleeps_us;
};

struct CorePauses {
  Core* core;
  std::int64_t now_ns() const { return core->now; }
  void yield() const {
    const bool has_share = core->now - core->slept_at <= core->share_ns;
    const std::int64_t cost = has_share ? core->yield_ns : core->slice_ns;
    ++core->yields;
    core->now += cost;
    core->in_yields_ns += cost;
    if (!has_share) core->slept_at = core->now;
  }
  void sleep_us(std::int64_t us) const {
    core->sleeps_us.push_back(us);
    core->now += (us + 65) * kUs;
    core->slept_at = core->now;
  }
};

class BackoffTest : public ::testing::Test {
 protected:
  using Tested = BasicBackoff<CorePauses>;

  void poll_and_pause() {
    core_.now += kUs;
    backoff_.pause();
  }
  void wait_for(std::int64_t ns) {
    for (const std::int64_t end = core_.now + ns; core_.now < end;) poll_and_pause();
  }
  // Many waits of 200 us, each answered in the end: none is long enough to sleep for its length.
  void short_waits_for(std::int64_t ns) {
    for (const std::int64_t end = core_.now + ns; core_.now < end;) {
      backoff_.reset();
      wait_for(200 * kUs);
    }
    backoff_.reset();
  }
  // One dear yield, then cheap ones again.
  void interrupt(std::int64_t ns) {
    const int before = core_.yields;
    core_.yield_ns = ns;
    while (core_.yields == before) poll_and_pause();
    core_.yield_ns = 600;
  }
  // How long the backoff keeps from yielding, from now on.
  std::int64_t refusal() {
    const std::int64_t started = core_.now;
    const int before = core_.yields;
    while (core_.yields == before) {
      backoff_.reset();
      for (int i = 0; i < 10 && core_.yields == before; ++i) poll_and_pause();
    }
    return core_.now - started;
  }

  Core core_;
  Tested backoff_{CorePauses{&core_}};
};

TEST_F(BackoffTest, SpinsThenYieldsThenSleeps) {
  wait_for(Tested::kSpinNs);
  EXPECT_EQ(core_.yields, 0);
  wait_for(Tested::kYieldNs - 2 * Tested::kSpinNs);
  EXPECT_GT(core_.yields, 100);
  EXPECT_TRUE(core_.sleeps_us.empty());
  wait_for(3 * Tested::kSpinNs);
  const int yields = core_.yields;
  wait_for(10 * kMs);
  EXPECT_EQ(core_.yields, yields);
  EXPECT_GT(core_.sleeps_us.size(), 50U);
}

TEST_F(BackoffTest, SleepsInGrowingStepsUpToTheGreatest) {
  wait_for(5 * kMs);
  ASSERT_GT(core_.sleeps_us.size(), 12U);
  for (std::size_t i = 0; i < core_.sleeps_us.size(); ++i) {
    const auto grown = Tested::kMinSleepUs + static_cast<std::int64_t>(i) * Tested::kSleepStepUs;
    EXPECT_EQ(core_.sleeps_us[i], std::min(grown, Tested::kMaxSleepUs)) << i;
  }
}

TEST_F(BackoffTest, ALongWaitCostsNextToNothing) {
  wait_for(20 * kSecond);
  core_.sleeps_us.clear();
  wait_for(kSecond);
  EXPECT_LE(core_.sleeps_us.size(), 101U);
  EXPECT_EQ(core_.sleeps_us.back(), Tested::kMaxIdleSleepUs);
}

TEST_F(BackoffTest, WhatComesAfterALongWaitIsHardlyLater) {
  for (const std::int64_t waited : {20 * kMs, 200 * kMs, kSecond}) {
    backoff_.reset();
    core_.sleeps_us.clear();
    wait_for(waited);
    EXPECT_LE(core_.sleeps_us.back() * kUs, waited / 100) << waited;
  }
}

TEST_F(BackoffTest, SpinsAgainAfterAReset) {
  wait_for(5 * kMs);
  core_.sleeps_us.clear();
  const int yields = core_.yields;
  backoff_.reset();
  wait_for(Tested::kSpinNs);
  EXPECT_EQ(core_.yields, yields);
  EXPECT_TRUE(core_.sleeps_us.empty());
  wait_for(5 * kMs);
  ASSERT_FALSE(core_.sleeps_us.empty());
  EXPECT_EQ(core_.sleeps_us.front(), Tested::kMinSleepUs);
}

TEST_F(BackoffTest, SleepsAtOnceAfterADearYield) {
  interrupt(4 * kMs);
  const int yields = core_.yields;
  const std::int64_t dear_until = core_.now + Tested::kPatience * 4 * kMs;
  while (core_.now < dear_until - kMs) {
    core_.sleeps_us.clear();
    backoff_.reset();
    poll_and_pause();
    EXPECT_TRUE(core_.sleeps_us.empty());  // the first poll of a wait may find something
    poll_and_pause();
    EXPECT_EQ(core_.sleeps_us, std::vector{Tested::kMinSleepUs});
  }
  EXPECT_EQ(core_.yields, yields);
}

TEST_F(BackoffTest, YieldsAgainAfterAMomentWhenItWasASingleInterruption) {
  interrupt(4 * kMs);
  const std::int64_t refused = refusal();
  EXPECT_GE(refused, Tested::kPatience * 4 * kMs);
  EXPECT_LT(refused, Tested::kPatience * 4 * kMs + kMs);
  const int yields = core_.yields;
  short_waits_for(10 * kMs);
  EXPECT_GT(core_.yields, yields + 1000);
}

TEST_F(BackoffTest, AYieldNoLongerThanASleepIsNotDear) {
  interrupt(Tested::kDearYieldNs);
  backoff_.reset();
  EXPECT_LT(refusal(), 2 * Tested::kSpinNs);
  interrupt(Tested::kDearYieldNs + 1);
  backoff_.reset();
  EXPECT_GE(refusal(), Tested::kPatience * Tested::kDearYieldNs);
}

TEST_F(BackoffTest, RefusesForTwiceAsLongWhileYieldsStayDear) {
  interrupt(4 * kMs);
  core_.yield_ns = 4 * kMs;
  std::int64_t expected = Tested::kPatience * 4 * kMs;
  for (int i = 0; i < 10; ++i) {
    const std::int64_t refused = refusal() - core_.yield_ns;
    EXPECT_GE(refused, expected) << i;
    EXPECT_LT(refused, expected + kMs) << i;
    expected = std::min(2 * expected, Tested::kMaxRefusalNs);
  }
  EXPECT_EQ(expected, Tested::kMaxRefusalNs);
}

TEST_F(BackoffTest, LosesHardlyAnyTimeInYieldsBesideAProcessThatNeverSleeps) {
  core_.yield_ns = 4 * kMs;
  const std::int64_t started = core_.now;
  short_waits_for(60 * kSecond);
  EXPECT_GT(core_.yields, 50);
  EXPECT_LT(core_.in_yields_ns, (core_.now - started) / 100);
}

// So it is where the others are of another session, with a share of their own: a yield costs nothing until
// ours is used up.
TEST_F(BackoffTest, LosesHardlyAnyTimeWhereOnlyTheShareEndsInADearYield) {
  core_.share_ns = 4 * kMs;
  core_.slice_ns = 8 * kMs;
  const std::int64_t started = core_.now;
  short_waits_for(60 * kSecond);
  EXPECT_GT(core_.yields, 50);
  EXPECT_LT(core_.in_yields_ns, (core_.now - started) / 50);
}

TEST_F(BackoffTest, IsBackToYieldsASecondAfterTheOthersHaveGone) {
  core_.yield_ns = 4 * kMs;
  short_waits_for(60 * kSecond);
  core_.yield_ns = 600;
  EXPECT_LE(refusal(), Tested::kMaxRefusalNs + kMs);
  core_.sleeps_us.clear();
  short_waits_for(kSecond);
  EXPECT_TRUE(core_.sleeps_us.empty());
}

TEST_F(BackoffTest, ForgetsOldRefusalsWhenYieldsWereCheapForLonger) {
  core_.yield_ns = 4 * kMs;
  short_waits_for(60 * kSecond);
  core_.yield_ns = 600;
  short_waits_for(Tested::kMaxRefusalNs);  // the rest of the refusal
  short_waits_for(2 * Tested::kMaxRefusalNs);
  interrupt(4 * kMs);
  EXPECT_LT(refusal(), Tested::kPatience * 4 * kMs + kMs);
}

TEST(KernelPauses, SleepsAtLeastAsLongAsItIsTold) {
  const KernelPauses pauses;
  for (std::int64_t us : {5, 2000}) {
    const std::int64_t started = now_ns();
    pauses.sleep_us(us);
    EXPECT_GE(pauses.now_ns() - started, us * kUs);
  }
  pauses.yield();
}

}  // namespace
}  // namespace varscope
