#include "ps/update/update_kernels.h"

#include <algorithm>

#include "common/base/finite.h"
#include "common/base/vector_clones.h"

#define VARSCOPE_LOOP _Pragma("GCC ivdep") for (std::int64_t i = 0; i < n; ++i)

#define VARSCOPE_DEFINE_KERNELS(T)                                                               \
  VARSCOPE_VECTOR_CLONES void clamp(T* g, T limit, std::int64_t n) {                             \
    VARSCOPE_LOOP g[i] = g[i] < -limit ? -limit : (g[i] > limit ? limit : g[i]);                 \
  }                                                                                              \
  VARSCOPE_VECTOR_CLONES void non_negative(T* v, std::int64_t n) {                               \
    VARSCOPE_LOOP v[i] = v[i] < T(0) ? T(0) : v[i];                                              \
  }                                                                                              \
  VARSCOPE_VECTOR_CLONES bool average(T* v, const T* sample, T decay, T rest, std::int64_t n) {  \
    Bits<T> largest = 0;                                                                         \
    VARSCOPE_LOOP {                                                                              \
      v[i] = decay * v[i] + rest * sample[i];                                                    \
      largest = std::max(largest, magnitude_bits(v[i]));                                         \
    }                                                                                            \
    return is_finite_magnitude(largest);                                                         \
  }                                                                                              \
  VARSCOPE_VECTOR_CLONES void add_column_squares(double* sums, const T* v, std::int64_t columns, \
                                                 std::int64_t n) {                               \
    for (const T* end = v + n; v < end; v += columns) {                                          \
      _Pragma("GCC ivdep") for (std::int64_t j = 0; j < columns; ++j) {                          \
        const auto x = static_cast<double>(v[j]);                                                \
        sums[j] += x * x;                                                                        \
      }                                                                                          \
    }                                                                                            \
  }                                                                                              \
  VARSCOPE_VECTOR_CLONES void scale_columns(T* v, const double* scales, std::int64_t columns,    \
                                            std::int64_t n) {                                    \
    for (T* end = v + n; v < end; v += columns) {                                                \
      _Pragma("GCC ivdep") for (std::int64_t j = 0; j < columns; ++j) {                          \
        v[j] = static_cast<T>(static_cast<double>(v[j]) * scales[j]);                            \
      }                                                                                          \
    }                                                                                            \
  }

namespace varscope::kernels {
namespace {

template <class T>
using Bits = decltype(magnitude_bits(T()));

}  // namespace

VARSCOPE_DEFINE_KERNELS(float)
VARSCOPE_DEFINE_KERNELS(double)

}  // namespace varscope::kernels
