#pragma once

#include <cstddef>

#include "common/base/tensor.h"

namespace varscope {

// into[i] += from[i] for n_bytes / size_of(dtype) elements; the spans do not overlap. The one addition of
// gradients, on workers and servers, so that a sum has the same bits wherever it is done. Throws
// Error(argument) for a dtype other than float32 and float64. Safe from any thread.
void add_into(DType dtype, std::byte* into, const std::byte* from, std::size_t n_bytes);

}  // namespace varscope
