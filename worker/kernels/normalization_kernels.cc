#include "worker/kernels/normalization_kernels.h"

#include <algorithm>
#include <cmath>

#include "common/base/vector_clones.h"
#include "worker/kernels/vector_math.h"

namespace varscope::kernels {
namespace {

template <class T>
VARSCOPE_INLINE void moments_loop(double* __restrict mean, double* __restrict variance, const T* __restrict x,
                                  std::int64_t rows, std::int64_t cols) {
  const double n = static_cast<double>(std::max<std::int64_t>(1, rows));
  std::fill_n(mean, cols, 0.0);
  std::fill_n(variance, cols, 0.0);
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* __restrict row = x + r * cols;
    for (std::int64_t c = 0; c < cols; ++c) mean[c] += static_cast<double>(row[c]);
  }
  for (std::int64_t c = 0; c < cols; ++c) mean[c] /= n;
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* __restrict row = x + r * cols;
    for (std::int64_t c = 0; c < cols; ++c) {
      const double d = static_cast<double>(row[c]) - mean[c];
      variance[c] += d * d;
    }
  }
  for (std::int64_t c = 0; c < cols; ++c) variance[c] /= n;
}

template <class T>
VARSCOPE_INLINE void normalize_loop(T* __restrict y, const T* __restrict x, const double* __restrict mean,
                                    const double* __restrict scale, const T* __restrict shift,
                                    std::int64_t rows, std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r, x += cols, y += cols) {
    for (std::int64_t c = 0; c < cols; ++c) {
      const double d = static_cast<double>(x[c]) - mean[c];
      y[c] = static_cast<T>(d * scale[c] + static_cast<double>(shift[c]));
    }
  }
}

template <class T>
VARSCOPE_INLINE void sums_loop(double* __restrict sum, double* __restrict product, const T* __restrict dy,
                               const T* __restrict x, const double* __restrict mean, std::int64_t rows,
                               std::int64_t cols) {
  std::fill_n(sum, cols, 0.0);
  std::fill_n(product, cols, 0.0);
  for (std::int64_t r = 0; r < rows; ++r, x += cols, dy += cols) {
    for (std::int64_t c = 0; c < cols; ++c) {
      const double g = static_cast<double>(dy[c]);
      sum[c] += g;
      product[c] += g * (static_cast<double>(x[c]) - mean[c]);
    }
  }
}

template <Sum S, class T>
VARSCOPE_INLINE void store(T& to, double value) {
  to = S == Sum::add ? static_cast<T>(static_cast<double>(to) + value) : static_cast<T>(value);
}

template <Sum S, class T>
VARSCOPE_INLINE void column_gradient_loop(T* __restrict dx, const T* __restrict dy, const T* __restrict x,
                                          const ColumnLine line, std::int64_t rows, std::int64_t cols) {
  const double* __restrict mean = line.mean;
  const double* __restrict scale = line.scale;
  const double* __restrict constant = line.constant;
  const double* __restrict slope = line.slope;
  for (std::int64_t r = 0; r < rows; ++r, x += cols, dy += cols, dx += cols) {
    for (std::int64_t c = 0; c < cols; ++c) {
      const double d = static_cast<double>(x[c]) - mean[c];
      store<S>(dx[c], static_cast<double>(dy[c]) * scale[c] - constant[c] - d * slope[c]);
    }
  }
}

// The sum of term(0) .. term(n - 1).
template <class Term>
VARSCOPE_INLINE double lane_sum(std::int64_t n, Term term) {
  constexpr std::int64_t kLanes = 16;
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t k = 0; k < kLanes; ++k) lanes[k] += term(i + k);
  }
  for (std::int64_t k = 0; i + k < n; ++k) lanes[k] += term(i + k);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::int64_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  }
  return lanes[0];
}

struct RowMoments {
  double mean, inverse;  // 1 / sqrt(variance + epsilon)
};
template <class T>
VARSCOPE_INLINE RowMoments row_moments(const T* __restrict x, double epsilon, std::int64_t cols) {
  const double n = static_cast<double>(cols);
  const auto value = [x](std::int64_t c) __attribute__((always_inline)) { return static_cast<double>(x[c]); };
  const double mean = lane_sum(cols, value) / n;
  const auto square = [ x, mean ](std::int64_t c) __attribute__((always_inline)) {
    const double d = static_cast<double>(x[c]) - mean;
    return d * d;
  };
  return {mean, 1 / std::sqrt(lane_sum(cols, square) / n + epsilon)};
}

template <class T>
VARSCOPE_INLINE void normalize_rows_loop(T* __restrict y, const T* __restrict x, const T* __restrict gamma,
                                         const T* __restrict beta, double epsilon, std::int64_t rows,
                                         std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const RowMoments m = row_moments(x, epsilon, cols);
    for (std::int64_t c = 0; c < cols; ++c) {
      const double normal = (static_cast<double>(x[c]) - m.mean) * m.inverse;
      y[c] = static_cast<T>(normal * static_cast<double>(gamma[c]) + static_cast<double>(beta[c]));
    }
  }
}

// With g = dy * gamma and z the normalised row: dx = (g - mean(g) - z * mean(g z)) / sqrt(variance +
// epsilon).
template <Sum S, class T>
VARSCOPE_INLINE void row_gradient_loop(T* __restrict dx, double* __restrict gamma_sums,
                                       double* __restrict beta_sums, const T* __restrict dy,
                                       const T* __restrict x, const T* __restrict gamma, double epsilon,
                                       std::int64_t rows, std::int64_t cols) {
  std::fill_n(gamma_sums, cols, 0.0);
  std::fill_n(beta_sums, cols, 0.0);
  for (std::int64_t r = 0; r < rows; ++r, x += cols, dy += cols) {
    const RowMoments m = row_moments(x, epsilon, cols);
    const auto normal = [ x, m ](std::int64_t c) __attribute__((always_inline)) {
      return (static_cast<double>(x[c]) - m.mean) * m.inverse;
    };
    for (std::int64_t c = 0; c < cols; ++c) {
      gamma_sums[c] += static_cast<double>(dy[c]) * normal(c);
      beta_sums[c] += static_cast<double>(dy[c]);
    }
    if (dx == nullptr) continue;
    const auto g = [ dy, gamma ](std::int64_t c) __attribute__((always_inline)) {
      return static_cast<double>(dy[c]) * static_cast<double>(gamma[c]);
    };
    const auto product = [ g, normal ](std::int64_t c) __attribute__((always_inline)) {
      return g(c) * normal(c);
    };
    const double mean = lane_sum(cols, g) / static_cast<double>(cols);
    const double slope = lane_sum(cols, product) / static_cast<double>(cols);
    T* __restrict to = dx + r * cols;
    for (std::int64_t c = 0; c < cols; ++c) store<S>(to[c], m.inverse * (g(c) - mean - normal(c) * slope));
  }
}

template <class T>
VARSCOPE_INLINE void dropout_loop(T* __restrict y, std::uint8_t* __restrict kept, const T* __restrict x,
                                  const std::uint32_t* __restrict words, std::uint32_t threshold, T scale,
                                  std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) kept[i] = words[i] >= threshold ? 1 : 0;
  for (std::int64_t i = 0; i < n; ++i) y[i] = words[i] >= threshold ? x[i] * scale : T(0);
}

template <Sum S, class T>
VARSCOPE_INLINE void dropout_gradient_loop(T* __restrict dx, const T* __restrict dy,
                                           const std::uint8_t* __restrict kept, T scale, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = kept[i] != 0 ? dy[i] * scale : T(0);
    dx[i] = S == Sum::add ? dx[i] + g : g;
  }
}

}  // namespace

#define VARSCOPE_NORMALIZATION_KERNELS(T)                                                                  \
  VARSCOPE_VECTOR_CLONES void column_moments(ColumnMoments m, const T* x, std::int64_t rows,               \
                                             std::int64_t cols) {                                          \
    moments_loop(m.mean, m.variance, x, rows, cols);                                                       \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void normalize_columns(T* y, const T* x, const double* mean, const double* scale, \
                                                const T* shift, std::int64_t rows, std::int64_t cols) {    \
    normalize_loop(y, x, mean, scale, shift, rows, cols);                                                  \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void column_sums(ColumnSums s, const T* dy, const T* x, const double* mean,       \
                                          std::int64_t rows, std::int64_t cols) {                          \
    sums_loop(s.sum, s.product, dy, x, mean, rows, cols);                                                  \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void column_gradient(Sum sum, T* dx, const T* dy, const T* x,                     \
                                              const ColumnLine& line, std::int64_t rows,                   \
                                              std::int64_t cols) {                                         \
    sum == Sum::add ? column_gradient_loop<Sum::add>(dx, dy, x, line, rows, cols)                          \
                    : column_gradient_loop<Sum::overwrite>(dx, dy, x, line, rows, cols);                   \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void normalize_rows(T* y, const T* x, const T* gamma, const T* beta,              \
                                             double epsilon, std::int64_t rows, std::int64_t cols) {       \
    normalize_rows_loop(y, x, gamma, beta, epsilon, rows, cols);                                           \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void row_gradient(Sum sum, T* dx, RowGradients s, const T* dy, const T* x,        \
                                           const T* gamma, double epsilon, std::int64_t rows,              \
                                           std::int64_t cols) {                                            \
    sum == Sum::add                                                                                        \
        ? row_gradient_loop<Sum::add>(dx, s.gamma, s.beta, dy, x, gamma, epsilon, rows, cols)              \
        : row_gradient_loop<Sum::overwrite>(dx, s.gamma, s.beta, dy, x, gamma, epsilon, rows, cols);       \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void dropout(T* y, std::uint8_t* kept, const T* x, const std::uint32_t* words,    \
                                      std::uint32_t threshold, T scale, std::int64_t n) {                  \
    dropout_loop(y, kept, x, words, threshold, scale, n);                                                  \
  }                                                                                                        \
  VARSCOPE_VECTOR_CLONES void dropout_gradient(Sum sum, T* dx, const T* dy, const std::uint8_t* kept,      \
                                               T scale, std::int64_t n) {                                  \
    sum == Sum::add ? dropout_gradient_loop<Sum::add>(dx, dy, kept, scale, n)                              \
                    : dropout_gradient_loop<Sum::overwrite>(dx, dy, kept, scale, n);                       \
  }

VARSCOPE_NORMALIZATION_KERNELS(float)
VARSCOPE_NORMALIZATION_KERNELS(double)
#undef VARSCOPE_NORMALIZATION_KERNELS

}  // namespace varscope::kernels
