#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/base/tensor.h"

namespace varscope {

// How the values of one tensor differ between two checkpoints. An element differs when its bits do, so that
// -0 differs from 0 (by 0) and a NaN not from itself. A difference with a NaN counts as infinite.
struct TensorDifference {
  std::string name;  // "hidden/weights", "hidden/weights (slot momentum)"
  std::string dtype;
  std::string shape;
  std::int64_t n_elements = 0;
  std::int64_t n_different = 0;
  double max_abs = 0;       // |a - b|
  double max_relative = 0;  // |a - b| / max(|a|, |b|)
  std::uint64_t max_ulp = 0;
};

// Adds what is different in n elements of each side, which need not be aligned.
void compare_elements(DType dtype, const std::byte* a, const std::byte* b, std::size_t n,
                      TensorDifference& difference);

}  // namespace varscope
