#include "common/base/clock.h"

#include <time.h>

#include <algorithm>
#include <limits>

namespace varscope {

std::int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

std::int64_t ns_of(double seconds) {
  constexpr double kMost = 100 * 365.25 * 86400;
  if (!(seconds < kMost)) seconds = kMost;
  return static_cast<std::int64_t>(std::max(0.0, seconds) * 1e9);
}

double time_limit(double seconds) { return seconds > 0 ? seconds : std::numeric_limits<double>::infinity(); }

}  // namespace varscope
