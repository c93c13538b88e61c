#include "worker/kernels/feature_kernels.h"

#include <algorithm>

#include "common/base/vector_clones.h"
#include "worker/kernels/vector_math.h"

namespace varscope::kernels {
namespace {

// Columns whose sums stay in registers or in the first cache.
constexpr std::int64_t kTile = 64;

template <class T, class Id>
VARSCOPE_INLINE void gather_loop(T* __restrict y, const T* __restrict table, const Id* __restrict ids,
                                 const T* __restrict weights, std::int64_t n, std::int64_t width,
                                 double divisor) {
  for (std::int64_t begin = 0; begin < width; begin += kTile) {
    const std::int64_t m = std::min(kTile, width - begin);
    double sums[kTile] = {};
    for (std::int64_t i = 0; i < n; ++i) {
      const double weight = weights == nullptr ? 1.0 : static_cast<double>(weights[i]);
      if (weight == 0) continue;
      const T* row = table + static_cast<std::int64_t>(ids[i]) * width + begin;
      for (std::int64_t c = 0; c < m; ++c) sums[c] += weight * static_cast<double>(row[c]);
    }
    for (std::int64_t c = 0; c < m; ++c) y[begin + c] = static_cast<T>(sums[c] / divisor);
  }
}

template <class T, class Id>
VARSCOPE_INLINE void scatter_loop(T* __restrict table, const T* __restrict dy, const Id* __restrict ids,
                                  const T* __restrict weights, std::int64_t n, std::int64_t width,
                                  double divisor) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double weight = weights == nullptr ? 1.0 : static_cast<double>(weights[i]);
    if (weight == 0) continue;
    const T factor = static_cast<T>(weight / divisor);
    T* row = table + static_cast<std::int64_t>(ids[i]) * width;
    for (std::int64_t c = 0; c < width; ++c) row[c] += factor * dy[c];
  }
}

template <class T>
VARSCOPE_INLINE void add_columns(double* sums, const T* x, std::int64_t rows, std::int64_t cols,
                                 std::int64_t m) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t c = 0; c < m; ++c) sums[c] += static_cast<double>(x[i * cols + c]);
  }
}

template <class T>
VARSCOPE_INLINE void means_loop(T* __restrict y, const T* __restrict x, std::int64_t rows,
                                std::int64_t cols) {
  for (std::int64_t begin = 0; begin < cols; begin += kTile) {
    const std::int64_t m = std::min(kTile, cols - begin);
    double sums[kTile] = {};
    add_columns(sums, x + begin, rows, cols, m);
    for (std::int64_t c = 0; c < m; ++c) y[begin + c] = static_cast<T>(sums[c] / static_cast<double>(rows));
  }
}

template <class T>
VARSCOPE_INLINE void means_gradient_loop(T* __restrict dx, const T* __restrict dy, std::int64_t rows,
                                         std::int64_t cols) {
  const T divisor = static_cast<T>(rows);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t c = 0; c < cols; ++c) dx[i * cols + c] += dy[c] / divisor;
  }
}

template <class T>
VARSCOPE_INLINE double pairs_loop(const T* __restrict x, std::int64_t rows, std::int64_t cols) {
  double twice = 0;
  for (std::int64_t begin = 0; begin < cols; begin += kTile) {
    const std::int64_t m = std::min(kTile, cols - begin);
    double sums[kTile] = {}, squares[kTile] = {};
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* row = x + i * cols + begin;
      for (std::int64_t c = 0; c < m; ++c) {
        const double v = static_cast<double>(row[c]);
        sums[c] += v;
        squares[c] += v * v;
      }
    }
    for (std::int64_t c = 0; c < m; ++c) twice += sums[c] * sums[c] - squares[c];
  }
  return twice / 2;
}

template <class T>
VARSCOPE_INLINE void pairs_gradient_loop(T* __restrict dx, T dy, const T* __restrict x, std::int64_t rows,
                                         std::int64_t cols) {
  for (std::int64_t begin = 0; begin < cols; begin += kTile) {
    const std::int64_t m = std::min(kTile, cols - begin);
    double sums[kTile] = {};
    add_columns(sums, x + begin, rows, cols, m);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t at = i * cols + begin;
      for (std::int64_t c = 0; c < m; ++c)
        dx[at + c] += dy * static_cast<T>(sums[c] - static_cast<double>(x[at + c]));
    }
  }
}

template <class T, class Id>
VARSCOPE_INLINE double gather_pairs_loop(const T* __restrict table, const Id* __restrict ids,
                                         const T* __restrict weights, std::int64_t n, std::int64_t width) {
  double twice = 0;
  for (std::int64_t begin = 0; begin < width; begin += kTile) {
    const std::int64_t m = std::min(kTile, width - begin);
    double sums[kTile] = {}, squares[kTile] = {};
    for (std::int64_t i = 0; i < n; ++i) {
      const double weight = weights == nullptr ? 1.0 : static_cast<double>(weights[i]);
      if (weight == 0) continue;
      const T* row = table + static_cast<std::int64_t>(ids[i]) * width + begin;
      for (std::int64_t c = 0; c < m; ++c) {
        const double v = weight * static_cast<double>(row[c]);
        sums[c] += v;
        squares[c] += v * v;
      }
    }
    for (std::int64_t c = 0; c < m; ++c) twice += sums[c] * sums[c] - squares[c];
  }
  return twice / 2;
}

template <class T, class Id>
VARSCOPE_INLINE void gather_pairs_gradient_loop(T* __restrict gradient, T dy, const T* __restrict table,
                                                const Id* __restrict ids, const T* __restrict weights,
                                                std::int64_t n, std::int64_t width) {
  for (std::int64_t begin = 0; begin < width; begin += kTile) {
    const std::int64_t m = std::min(kTile, width - begin);
    double sums[kTile] = {};
    for (std::int64_t i = 0; i < n; ++i) {
      const double weight = weights == nullptr ? 1.0 : static_cast<double>(weights[i]);
      if (weight == 0) continue;
      const T* row = table + static_cast<std::int64_t>(ids[i]) * width + begin;
      for (std::int64_t c = 0; c < m; ++c) sums[c] += weight * static_cast<double>(row[c]);
    }
    for (std::int64_t i = 0; i < n; ++i) {
      const double weight = weights == nullptr ? 1.0 : static_cast<double>(weights[i]);
      if (weight == 0) continue;
      const std::int64_t at = static_cast<std::int64_t>(ids[i]) * width + begin;
      const T factor = dy * static_cast<T>(weight);
      for (std::int64_t c = 0; c < m; ++c)
        gradient[at + c] += factor * static_cast<T>(sums[c] - weight * static_cast<double>(table[at + c]));
    }
  }
}

}  // namespace

#define VARSCOPE_BAG_KERNELS(T, Id)                                                                         \
  VARSCOPE_VECTOR_CLONES void gather_sum(T* y, const T* table, const Id* ids, const T* weights,             \
                                         std::int64_t n, std::int64_t width, double divisor) {              \
    gather_loop(y, table, ids, weights, n, width, divisor);                                                 \
  }                                                                                                         \
  VARSCOPE_VECTOR_CLONES void scatter_add(T* table, const T* dy, const Id* ids, const T* weights,           \
                                          std::int64_t n, std::int64_t width, double divisor) {             \
    scatter_loop(table, dy, ids, weights, n, width, divisor);                                               \
  }                                                                                                         \
  VARSCOPE_VECTOR_CLONES double gather_pairs(const T* table, const Id* ids, const T* weights,               \
                                             std::int64_t n, std::int64_t width) {                          \
    return gather_pairs_loop(table, ids, weights, n, width);                                                \
  }                                                                                                         \
  VARSCOPE_VECTOR_CLONES void gather_pairs_gradient(T* gradient, T dy, const T* table, const Id* ids,       \
                                                    const T* weights, std::int64_t n, std::int64_t width) { \
    gather_pairs_gradient_loop(gradient, dy, table, ids, weights, n, width);                                \
  }

#define VARSCOPE_FEATURE_KERNELS(T)                                                                  \
  VARSCOPE_BAG_KERNELS(T, std::int32_t)                                                              \
  VARSCOPE_BAG_KERNELS(T, std::int64_t)                                                              \
  VARSCOPE_VECTOR_CLONES void column_means(T* y, const T* x, std::int64_t rows, std::int64_t cols) { \
    means_loop(y, x, rows, cols);                                                                    \
  }                                                                                                  \
  VARSCOPE_VECTOR_CLONES void column_means_gradient(T* dx, const T* dy, std::int64_t rows,           \
                                                    std::int64_t cols) {                             \
    means_gradient_loop(dx, dy, rows, cols);                                                         \
  }                                                                                                  \
  VARSCOPE_VECTOR_CLONES double pair_products(const T* x, std::int64_t rows, std::int64_t cols) {    \
    return pairs_loop(x, rows, cols);                                                                \
  }                                                                                                  \
  VARSCOPE_VECTOR_CLONES void pair_products_gradient(T* dx, T dy, const T* x, std::int64_t rows,     \
                                                     std::int64_t cols) {                            \
    pairs_gradient_loop(dx, dy, x, rows, cols);                                                      \
  }

VARSCOPE_FEATURE_KERNELS(float)
VARSCOPE_FEATURE_KERNELS(double)
#undef VARSCOPE_FEATURE_KERNELS
#undef VARSCOPE_BAG_KERNELS

}  // namespace varscope::kernels
