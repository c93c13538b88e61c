#pragma once

#include <algorithm>
#include <cstdint>

namespace varscope {

// What a Backoff asks of the kernel. Tests bring a clock of their own instead.
class KernelPauses {
 public:
  std::int64_t now_ns() const;
  void yield() const;
  void sleep_us(std::int64_t us) const;
};

// How long an idle thread spins, yields and sleeps between its polls. Spinning and yielding answer a peer
// within a microsecond, and a yield lets other ranks on a shared core work. But where another process wants
// the core for good, a yield costs a time slice of several milliseconds, while one who sleeps is woken when
// its time is over, because it has used less than its share. So yields are timed. After one that took
// longer than a sleep would have, the thread sleeps at once instead, neither yielding nor spinning its
// share away: for kPatience times what that yield took, and for twice as long as the last time when yields
// were cheap in between for less than that. A single interruption changes little; beside a process that
// never sleeps one yield in kMaxRefusalNs is lost. (docs/decisions/0015-yields-are-timed.md says why,
// docs/performance.md how fast.) One thread.
template <class Pauses>
class BasicBackoff {
 public:
  static constexpr std::int64_t kSpinNs = 5'000;     // of a wait, before the first yield
  static constexpr std::int64_t kYieldNs = 300'000;  // of a wait, before the first sleep
  static constexpr std::int64_t kMinSleepUs = 5, kSleepStepUs = 5, kMaxSleepUs = 50;
  // Of a long wait each sleep may be this part of it, up to a limit: a rank that waits for data costs
  // nothing, and what comes in the end comes hardly later than it would.
  static constexpr std::int64_t kIdlePart = 200, kMaxIdleSleepUs = 10'000;
  static constexpr std::int64_t kDearYieldNs = 50'000;  // Linux lets the shortest sleep last about so long
  static constexpr std::int64_t kPatience = 4;
  static constexpr std::int64_t kMaxRefusalNs = 1'000'000'000;

  explicit BasicBackoff(Pauses pauses = {}) : pauses_(pauses) {}

  // Something was done: the next pause() begins another wait.
  void reset() { waiting_ = false; }

  // One idle moment: call after a poll that brought nothing. The first of a wait returns at once.
  void pause() {
    const std::int64_t now = pauses_.now_ns();
    if (!waiting_) {
      waiting_ = true;
      started_ns_ = now;
      sleep_us_ = kMinSleepUs;
      return;
    }
    const std::int64_t waited = now - started_ns_;
    if (now < refused_until_ns_ || waited >= kYieldNs) return sleep(waited);
    if (waited >= kSpinNs) yield(now);
  }

 private:
  void yield(std::int64_t now) {
    pauses_.yield();
    const std::int64_t back = pauses_.now_ns(), cost = back - now;
    if (cost > kDearYieldNs) refuse_yields(back, now - refused_until_ns_, cost);
  }
  void refuse_yields(std::int64_t now, std::int64_t were_cheap_for, std::int64_t cost) {
    const std::int64_t again = were_cheap_for < refusal_ns_ ? 2 * refusal_ns_ : 0;
    refusal_ns_ = std::min(std::max(again, kPatience * cost), kMaxRefusalNs);
    refused_until_ns_ = now + refusal_ns_;
  }
  void sleep(std::int64_t waited) {
    const std::int64_t idle_us = std::min(kMaxIdleSleepUs, waited / kIdlePart / 1000);
    pauses_.sleep_us(std::max(sleep_us_, idle_us));
    sleep_us_ = std::min(kMaxSleepUs, sleep_us_ + kSleepStepUs);
  }

  Pauses pauses_;
  bool waiting_ = false;
  std::int64_t started_ns_ = 0;  // of the wait
  std::int64_t sleep_us_ = 0;
  std::int64_t refused_until_ns_ = 0;
  std::int64_t refusal_ns_ = 0;  // how long the last one was
};

using Backoff = BasicBackoff<KernelPauses>;

}  // namespace varscope
