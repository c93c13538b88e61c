#include "worker/kernels/kernels.h"

#include <algorithm>
#include <cmath>

#include "common/base/vector_clones.h"
#include "worker/kernels/vector_math.h"

namespace varscope {

const char* to_string(Activation activation) {
  switch (activation) {
    case Activation::linear:
      return "linear";
    case Activation::relu:
      return "relu";
    case Activation::leaky_relu:
      return "leaky_relu";
    case Activation::sigmoid:
      return "sigmoid";
    case Activation::tanh:
      return "tanh";
    case Activation::gelu:
      return "gelu";
    case Activation::softplus:
      return "softplus";
    case Activation::elu:
      return "elu";
    case Activation::selu:
      return "selu";
    case Activation::swish:
      return "swish";
  }
  return "unknown";
}

namespace kernels {
namespace {

// The loops, inlined into each clone of the functions below.

template <Activation F, class T>
VARSCOPE_INLINE void bias_activate_loop(T* __restrict y, const T* __restrict bias, T* __restrict z,
                                        std::int64_t rows, std::int64_t cols) {
  if (bias == nullptr) {
    if (needs_preactivation(F) && z != nullptr) std::copy_n(y, rows * cols, z);
    for (std::int64_t i = 0; i < rows * cols; ++i) y[i] = vector_math::activate<F>(y[i]);
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    T* __restrict row = y + r * cols;
    if (needs_preactivation(F) && z != nullptr) {
      T* __restrict saved = z + r * cols;
      for (std::int64_t c = 0; c < cols; ++c) saved[c] = row[c] + bias[c];
      for (std::int64_t c = 0; c < cols; ++c) row[c] = vector_math::activate<F>(saved[c]);
    } else {
      for (std::int64_t c = 0; c < cols; ++c) row[c] = vector_math::activate<F>(row[c] + bias[c]);
    }
  }
}

template <Activation F, class T>
VARSCOPE_INLINE void gradient_loop(T* __restrict g, const T* __restrict y, const T* __restrict z,
                                   T* __restrict sums, std::int64_t rows, std::int64_t cols) {
  const auto z_at = [z](std::int64_t i) __attribute__((always_inline)) {
    if constexpr (needs_preactivation(F)) return z[i];
    return T(0);
  };
  if (sums == nullptr) {
    for (std::int64_t i = 0; i < rows * cols; ++i) g[i] *= vector_math::derivative<F>(y[i], z_at(i));
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t begin = r * cols;
    for (std::int64_t c = 0; c < cols; ++c) {
      const T product = g[begin + c] * vector_math::derivative<F>(y[begin + c], z_at(begin + c));
      g[begin + c] = product;
      sums[c] += product;
    }
  }
}

// Linear: g stays as it is, only the sums are wanted.
template <class T>
VARSCOPE_INLINE void column_sums_loop(const T* __restrict g, T* __restrict sums, std::int64_t rows,
                                      std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) sums[c] += g[r * cols + c];
  }
}

template <class T>
VARSCOPE_INLINE void bias_activate_any(Activation f, T* y, const T* bias, T* z, std::int64_t rows,
                                       std::int64_t cols) {
  switch (f) {
    case Activation::linear:
      if (bias != nullptr) bias_activate_loop<Activation::linear>(y, bias, z, rows, cols);
      return;
    case Activation::relu:
      return bias_activate_loop<Activation::relu>(y, bias, z, rows, cols);
    case Activation::leaky_relu:
      return bias_activate_loop<Activation::leaky_relu>(y, bias, z, rows, cols);
    case Activation::sigmoid:
      return bias_activate_loop<Activation::sigmoid>(y, bias, z, rows, cols);
    case Activation::tanh:
      return bias_activate_loop<Activation::tanh>(y, bias, z, rows, cols);
    case Activation::gelu:
      return bias_activate_loop<Activation::gelu>(y, bias, z, rows, cols);
    case Activation::softplus:
      return bias_activate_loop<Activation::softplus>(y, bias, z, rows, cols);
    case Activation::elu:
      return bias_activate_loop<Activation::elu>(y, bias, z, rows, cols);
    case Activation::selu:
      return bias_activate_loop<Activation::selu>(y, bias, z, rows, cols);
    case Activation::swish:
      return bias_activate_loop<Activation::swish>(y, bias, z, rows, cols);
  }
}

template <class T>
VARSCOPE_INLINE void gradient_any(Activation f, T* g, const T* y, const T* z, T* sums, Sum sum,
                                  std::int64_t rows, std::int64_t cols) {
  if (sums != nullptr && sum == Sum::overwrite) std::fill_n(sums, cols, T(0));
  switch (f) {
    case Activation::linear:
      if (sums != nullptr) column_sums_loop(g, sums, rows, cols);
      return;
    case Activation::relu:
      return gradient_loop<Activation::relu>(g, y, z, sums, rows, cols);
    case Activation::leaky_relu:
      return gradient_loop<Activation::leaky_relu>(g, y, z, sums, rows, cols);
    case Activation::sigmoid:
      return gradient_loop<Activation::sigmoid>(g, y, z, sums, rows, cols);
    case Activation::tanh:
      return gradient_loop<Activation::tanh>(g, y, z, sums, rows, cols);
    case Activation::gelu:
      return gradient_loop<Activation::gelu>(g, y, z, sums, rows, cols);
    case Activation::softplus:
      return gradient_loop<Activation::softplus>(g, y, z, sums, rows, cols);
    case Activation::elu:
      return gradient_loop<Activation::elu>(g, y, z, sums, rows, cols);
    case Activation::selu:
      return gradient_loop<Activation::selu>(g, y, z, sums, rows, cols);
    case Activation::swish:
      return gradient_loop<Activation::swish>(g, y, z, sums, rows, cols);
  }
}

// Rows at least this long are summed in kLanes interleaved parts, which are then added in order: one chain of
// additions would wait for each of them.
constexpr std::int64_t kLongRow = 64, kLanes = 16;

template <class T>
VARSCOPE_INLINE double row_sum(const T* __restrict row, std::int64_t cols) {
  double sum = 0;
  std::int64_t c = 0;
  if (cols >= kLongRow) {
    double lanes[kLanes] = {};
    for (; c + kLanes <= cols; c += kLanes) {
      for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] += static_cast<double>(row[c + l]);
    }
    for (const double lane : lanes) sum += lane;
  }
  for (; c < cols; ++c) sum += static_cast<double>(row[c]);
  return sum;
}

template <class T>
VARSCOPE_INLINE T row_max(const T* __restrict row, std::int64_t cols) {
  T largest = row[0];
  std::int64_t c = 0;
  if (cols >= kLongRow) {
    T lanes[kLanes];
    for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] = largest;
    for (; c + kLanes <= cols; c += kLanes) {
      for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] = row[c + l] > lanes[l] ? row[c + l] : lanes[l];
    }
    for (const T lane : lanes) largest = lane > largest ? lane : largest;
  }
  for (; c < cols; ++c) largest = row[c] > largest ? row[c] : largest;
  return largest;
}

template <class T>
VARSCOPE_INLINE void softmax_block(T* __restrict p, const T* __restrict x, double* __restrict log_sums,
                                   std::int64_t rows, std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * cols;
    const T largest = row_max(row, cols);
    for (std::int64_t c = 0; c < cols; ++c) p[r * cols + c] = row[c] - largest;
    if (log_sums != nullptr) log_sums[r] = static_cast<double>(largest);
  }
  // One flat loop, since rows are often shorter than a vector.
  for (std::int64_t i = 0; i < rows * cols; ++i) p[i] = vector_math::exp(p[i]);
  for (std::int64_t r = 0; r < rows; ++r) {
    T* row = p + r * cols;
    const double sum = row_sum(row, cols);
    const T scale = static_cast<T>(1.0 / sum);
    for (std::int64_t c = 0; c < cols; ++c) row[c] *= scale;
    if (log_sums != nullptr) log_sums[r] += std::log(sum);
  }
}

// In blocks of rows that stay in the first cache.
template <class T>
VARSCOPE_INLINE void softmax_loop(T* p, const T* x, double* log_sums, std::int64_t rows, std::int64_t cols) {
  const std::int64_t block = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, cols));
  for (std::int64_t r = 0; r < rows; r += block) {
    softmax_block(p + r * cols, x + r * cols, log_sums == nullptr ? nullptr : log_sums + r,
                  std::min(block, rows - r), cols);
  }
}

}  // namespace

#define VARSCOPE_KERNELS(T)                                                                             \
  VARSCOPE_VECTOR_CLONES void bias_activate(Activation f, T* y, const T* bias, T* z, std::int64_t rows, \
                                            std::int64_t cols) {                                        \
    bias_activate_any(f, y, bias, z, rows, cols);                                                       \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void activation_gradient(Activation f, T* g, const T* y, const T* z,           \
                                                  T* column_sums, Sum sum, std::int64_t rows,           \
                                                  std::int64_t cols) {                                  \
    gradient_any(f, g, y, z, column_sums, sum, rows, cols);                                             \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void add(T* __restrict to, const T* __restrict from, std::int64_t n) {         \
    for (std::int64_t i = 0; i < n; ++i) to[i] += from[i];                                              \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void add(T* __restrict to, const T* a, const T* b, std::int64_t n) {           \
    for (std::int64_t i = 0; i < n; ++i) to[i] = a[i] + b[i];                                           \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void multiply(T* __restrict to, const T* a, const T* b, std::int64_t n) {      \
    for (std::int64_t i = 0; i < n; ++i) to[i] = a[i] * b[i];                                           \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void multiply_add(T* __restrict to, const T* a, const T* b, std::int64_t n) {  \
    for (std::int64_t i = 0; i < n; ++i) to[i] += a[i] * b[i];                                          \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void add_constant(T* to, T value, std::int64_t n) {                            \
    for (std::int64_t i = 0; i < n; ++i) to[i] += value;                                                \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void multiply_constant(T* to, const T* from, T value, std::int64_t n) {        \
    for (std::int64_t i = 0; i < n; ++i) to[i] = from[i] * value;                                       \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void log_term(double* __restrict to, const T* __restrict x, std::int64_t n) {  \
    for (std::int64_t i = 0; i < n; ++i) {                                                              \
      const double v = x[i] > 0 ? -static_cast<double>(x[i]) : static_cast<double>(x[i]);               \
      const double e = vector_math::exp(v);                                                             \
      to[i] = vector_math::log1p_of_unit(v < -700 ? 0.0 : e);                                           \
    }                                                                                                   \
  }                                                                                                     \
  VARSCOPE_VECTOR_CLONES void softmax(T* p, const T* x, double* log_sums, std::int64_t rows,            \
                                      std::int64_t cols) {                                              \
    softmax_loop(p, x, log_sums, rows, cols);                                                           \
  }                                                                                                     \
  void copy(T* to, const T* from, std::int64_t n) { std::copy_n(from, n, to); }                         \
  void fill(T* to, T value, std::int64_t n) { std::fill_n(to, n, value); }

VARSCOPE_KERNELS(float)
VARSCOPE_KERNELS(double)
#undef VARSCOPE_KERNELS

}  // namespace kernels
}  // namespace varscope
