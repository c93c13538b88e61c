#pragma once

#include <cstdint>

namespace varscope {

// Time that this thread has spent inside BLAS; counts only while `on`, since reading a clock costs as much as
// a small product. Executor::profile() uses it.
struct BlasClock {
  bool on = false;
  std::int64_t ns = 0;
};
inline thread_local BlasClock blas_clock;

}  // namespace varscope
