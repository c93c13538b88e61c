#include "common/base/norm_kernels.h"

#include "common/base/vector_clones.h"

// Not templates: those cannot have vector clones.
#define VARSCOPE_DEFINE_KERNELS(T)                                            \
  VARSCOPE_VECTOR_CLONES double sum_of_squares(const T* v, std::int64_t n) {  \
    constexpr std::int64_t kLanes = 8;                                        \
    double lanes[kLanes] = {};                                                \
    std::int64_t begin = 0;                                                   \
    for (; begin + kLanes <= n; begin += kLanes) {                            \
      for (std::int64_t j = 0; j < kLanes; ++j) {                             \
        const auto x = static_cast<double>(v[begin + j]);                     \
        lanes[j] += x * x;                                                    \
      }                                                                       \
    }                                                                         \
    for (std::int64_t j = 0; begin + j < n; ++j) {                            \
      const auto x = static_cast<double>(v[begin + j]);                       \
      lanes[j] += x * x;                                                      \
    }                                                                         \
    double sum = 0;                                                           \
    for (const double lane : lanes) sum += lane;                              \
    return sum;                                                               \
  }                                                                           \
  VARSCOPE_VECTOR_CLONES void scale(T* v, T factor, std::int64_t n) {         \
    _Pragma("GCC ivdep") for (std::int64_t i = 0; i < n; ++i) v[i] *= factor; \
  }

namespace varscope::kernels {

VARSCOPE_DEFINE_KERNELS(float)
VARSCOPE_DEFINE_KERNELS(double)

}  // namespace varscope::kernels
