#pragma once

#include <cstddef>

namespace varscope::testing {

// Tests that try many like cases (every byte of a file, every state of a disk) try each in a plain build, and
// one in so many under sanitizers, where a case takes ten times as long. It has no divisor in common with
// bits, blocks and pages.
#ifdef VARSCOPE_SANITIZED
inline constexpr std::size_t kCaseStride = 5;
#else
inline constexpr std::size_t kCaseStride = 1;
#endif

}  // namespace varscope::testing
