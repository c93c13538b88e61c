#pragma once

#include <cstdint>

namespace varscope {

// Monotonic clock.
std::int64_t now_ns();

// How long an idle rank spins, yields and sleeps. Spinning answers a peer within a microsecond; yielding lets
// other ranks on a shared core work; sleeping frees the core. (docs/performance.md has the measurements.)
class Backoff {
 public:
  void reset() { polls_ = 0; }
  void pause();

 private:
  std::int64_t started_ns_ = 0;
  std::int64_t polls_ = 0;
  std::int64_t sleep_us_ = 0;
};

}  // namespace varscope
