#pragma once

#include <cstdint>

namespace varscope {

// Monotonic clock.
std::int64_t now_ns();

// Nanoseconds of this many seconds, less than nothing as nothing. More than a hundred years, infinity and NaN
// count as a hundred years, so that now_ns() plus a sum of two of them does not overflow.
std::int64_t ns_of(double seconds);

// A limit in seconds as configs have it, where 0 means none: infinity then.
double time_limit(double seconds);

}  // namespace varscope
