#include "ps/update/optimizer_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/finite.h"
#include "common/base/vector_clones.h"

// The macro writes each loop once for both types: a template cannot have vector clones. The pragmas promise
// that the spans do not overlap.
#define VARSCOPE_LOOP _Pragma("GCC ivdep") for (std::int64_t i = 0; i < n; ++i)

#define VARSCOPE_DEFINE_KERNELS(T)                                                                         \
  VARSCOPE_VECTOR_CLONES void add_scaled(T* into, const T* from, T scale, std::int64_t n) {                \
    VARSCOPE_LOOP into[i] += scale * from[i];                                                              \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool sgd(T* v, const T* g, T lr, std::int64_t n) {                                \
    Bits<T> largest = 0;                                                                                   \
    VARSCOPE_LOOP {                                                                                        \
      v[i] -= lr * g[i];                                                                                   \
      largest = std::max(largest, magnitude_bits(v[i]));                                                   \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool momentum(T* v, const T* g, T* m, T lr, T mu, std::int64_t n) {               \
    Bits<T> largest = 0;                                                                                   \
    VARSCOPE_LOOP {                                                                                        \
      const T next = mu * m[i] + g[i];                                                                     \
      m[i] = next;                                                                                         \
      v[i] -= lr * next;                                                                                   \
      largest = std::max(largest, magnitude_bits(v[i]));                                                   \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool nesterov(T* v, const T* g, T* m, T lr, T mu, std::int64_t n) {               \
    Bits<T> largest = 0;                                                                                   \
    VARSCOPE_LOOP {                                                                                        \
      const T next = mu * m[i] + g[i];                                                                     \
      m[i] = next;                                                                                         \
      v[i] -= lr * (g[i] + mu * next);                                                                     \
      largest = std::max(largest, magnitude_bits(v[i]));                                                   \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool adagrad(T* v, const T* g, T* a, T lr, T eps, std::int64_t n) {               \
    Bits<T> largest = 0;                                                                                   \
    VARSCOPE_LOOP {                                                                                        \
      const T next = a[i] + g[i] * g[i];                                                                   \
      a[i] = next;                                                                                         \
      v[i] -= lr * g[i] / (std::sqrt(next) + eps);                                                         \
      largest = std::max(largest, std::max(magnitude_bits(v[i]), magnitude_bits(next)));                   \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool rowwise_adagrad(T* v, const T* g, T* row, T lr, T eps, std::int64_t n) {     \
    const double mean = n == 0 ? 0 : row_squares(g, n) / static_cast<double>(n);                           \
    const T next = static_cast<T>(static_cast<double>(*row) + mean);                                       \
    const T root = std::sqrt(next) + eps;                                                                  \
    *row = next;                                                                                           \
    Bits<T> largest = magnitude_bits(next);                                                                \
    VARSCOPE_LOOP {                                                                                        \
      v[i] -= lr * g[i] / root;                                                                            \
      largest = std::max(largest, magnitude_bits(v[i]));                                                   \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool ftrl(T* v, const T* g, T* z, T* sum, Ftrl<T> rule, std::int64_t n) {         \
    constexpr T kSmallest = std::numeric_limits<T>::min();                                                 \
    Bits<T> largest = 0;                                                                                   \
    VARSCOPE_LOOP {                                                                                        \
      const T square = rule.share * (g[i] * g[i]);                                                         \
      const T next = sum[i] + square;                                                                      \
      const T root = std::sqrt(next);                                                                      \
      const T roots = root + std::sqrt(sum[i]);                                                            \
      const T sigma = square / (roots > kSmallest ? roots : kSmallest) * rule.inverse_rate;                \
      const T linear = z[i] + (rule.weight * g[i] - sigma * v[i]);                                         \
      const T divisor = (rule.beta + root) * rule.inverse_rate + rule.l2;                                  \
      const T outside = ((linear < 0 ? -rule.l1 : rule.l1) - linear) / divisor;                            \
      const T moved = std::abs(linear) <= rule.l1 ? T(0) : outside;                                        \
      z[i] = linear;                                                                                       \
      sum[i] = next;                                                                                       \
      v[i] = g[i] == 0 ? v[i] : moved;                                                                     \
      largest = std::max(largest, std::max(magnitude_bits(v[i]), magnitude_bits(next)));                   \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool rmsprop(T* v, const T* g, T* a, T lr, Decay<T> rho, T eps, std::int64_t n) { \
    Bits<T> largest = 0;                                                                                   \
    VARSCOPE_LOOP {                                                                                        \
      const T next = rho.decay * a[i] + rho.rest * (g[i] * g[i]);                                          \
      a[i] = next;                                                                                         \
      v[i] -= lr * g[i] / (std::sqrt(next) + eps);                                                         \
      largest = std::max(largest, std::max(magnitude_bits(v[i]), magnitude_bits(next)));                   \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES bool adam(T* v, const T* g, T* m, T* a, T lr_t, Decay<T> beta1, Decay<T> beta2,   \
                                   T correction2, T eps, std::int64_t n) {                                 \
    Bits<T> largest = 0;                                                                                   \
    VARSCOPE_LOOP {                                                                                        \
      const T first = beta1.decay * m[i] + beta1.rest * g[i];                                              \
      const T second = beta2.decay * a[i] + beta2.rest * (g[i] * g[i]);                                    \
      m[i] = first;                                                                                        \
      a[i] = second;                                                                                       \
      v[i] -= lr_t * first / (std::sqrt(second * correction2) + eps);                                      \
      largest = std::max(largest, std::max(magnitude_bits(v[i]), magnitude_bits(second)));                 \
    }                                                                                                      \
    return is_finite_magnitude(largest);                                                                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void decay(T* v, T factor, std::int64_t n) { VARSCOPE_LOOP v[i] -= factor * v[i]; }

namespace varscope::kernels {
namespace {

template <class T>
using Bits = decltype(magnitude_bits(T()));

// Element i goes to lane i mod 8; then the upper half of the lanes is added to the lower one, three times.
// Inlined into each clone, and so as wide as that.
template <class T>
[[gnu::always_inline]] inline double row_squares(const T* g, std::int64_t n) {
  constexpr std::int64_t kLanes = 8;
  double lanes[kLanes] = {};
  std::int64_t begin = 0;
  for (; begin + kLanes <= n; begin += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const auto x = static_cast<double>(g[begin + j]);
      lanes[j] += x * x;
    }
  }
  for (std::int64_t j = 0; begin + j < n; ++j) {
    const auto x = static_cast<double>(g[begin + j]);
    lanes[j] += x * x;
  }
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  }
  return lanes[0];
}

}  // namespace

VARSCOPE_DEFINE_KERNELS(float)
VARSCOPE_DEFINE_KERNELS(double)

}  // namespace varscope::kernels
