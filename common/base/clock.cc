#include "common/base/clock.h"

#include <sched.h>
#include <time.h>

#include <algorithm>

namespace varscope {

std::int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

void Backoff::pause() {
  constexpr std::int64_t kSpinNs = 20'000, kYieldNs = 300'000, kMaxSleepUs = 50;
  if (polls_++ == 0) {
    started_ns_ = now_ns();
    sleep_us_ = 5;
    return;
  }
  const std::int64_t idle_ns = now_ns() - started_ns_;
  if (idle_ns < kSpinNs) return;
  if (idle_ns < kYieldNs) {
    sched_yield();
    return;
  }
  const timespec nap{0, sleep_us_ * 1000};
  nanosleep(&nap, nullptr);
  sleep_us_ = std::min(kMaxSleepUs, sleep_us_ + 5);
}

}  // namespace varscope
