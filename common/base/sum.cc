#include "common/base/sum.h"

#include <cstdint>

#include "common/base/error.h"
#include "common/base/vector_clones.h"

namespace varscope {
namespace {

// Not templates: those cannot have vector clones. The pragma promises that the spans do not overlap.
VARSCOPE_VECTOR_CLONES void add_float32(float* into, const float* from, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) into[i] += from[i];
}

VARSCOPE_VECTOR_CLONES void add_float64(double* into, const double* from, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) into[i] += from[i];
}

}  // namespace

void add_into(DType dtype, std::byte* into, const std::byte* from, std::size_t n_bytes) {
  const auto n = static_cast<std::int64_t>(n_bytes / size_of(dtype));
  if (dtype == DType::float32) {
    add_float32(reinterpret_cast<float*>(into), reinterpret_cast<const float*>(from), n);
  } else if (dtype == DType::float64) {
    add_float64(reinterpret_cast<double*>(into), reinterpret_cast<const double*>(from), n);
  } else {
    fail(ErrorKind::argument, "gradients of dtype {} cannot be summed", to_string(dtype));
  }
}

}  // namespace varscope
