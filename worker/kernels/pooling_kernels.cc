#include "worker/kernels/pooling_kernels.h"

#include "common/base/vector_clones.h"
#include "worker/kernels/vector_math.h"

namespace varscope::kernels {
namespace {

// The maximum so far and its cell, with the next cell's value v. Not-a-number is taken, and kept.
template <class T>
VARSCOPE_INLINE void take(T& best, std::int32_t& where, T v, std::int32_t number) {
  const bool better = !(v <= best) & (best == best);
  best = better ? v : best;
  where = better ? number : where;
}

// 2 x 2 with stride 2, and no window beyond the border.
bool is_whole_2x2(const Window2d& w) {
  const auto whole = [](const WindowAxis& a) {
    return a.window == 2 && a.stride == 2 && a.before == 0 && 2 * a.output <= a.input;
  };
  return whole(w.y) && whole(w.x);
}

// The common case: four cells at once. Without branches, which would keep it from vectorising: a sum with
// not-a-number is not a number.
template <class T>
VARSCOPE_INLINE void max_pool_2x2(T* __restrict y, std::int32_t* __restrict cell, const T* __restrict x,
                                  std::int64_t n, const Window2d w) {
  const std::int64_t c = w.channels, row = w.x.input * c;
  OutputPixel p(w, 0);
  for (std::int64_t o = 0; o < n * w.outputs(); ++o, p.next(w), y += c, cell += c) {
    const T* __restrict a = x + p.cell(w, 0, 0);
    const T* __restrict low = a + row;
    for (std::int64_t k = 0; k < c; ++k) {
      const T v0 = a[k], v1 = a[c + k], v2 = low[k], v3 = low[c + k];
      const T top = v1 > v0 ? v1 : v0, bottom = v3 > v2 ? v3 : v2;
      const std::int32_t top_cell = v1 > v0 ? 1 : 0, bottom_cell = v3 > v2 ? 3 : 2;
      const T largest = bottom > top ? bottom : top;
      const T sum = (v0 + v1) + (v2 + v3);
      y[k] = ((v0 != v0) | (v1 != v1) | (v2 != v2) | (v3 != v3)) ? sum : largest;
      cell[k] = bottom > top ? bottom_cell : top_cell;
    }
  }
}

template <class T>
VARSCOPE_INLINE void max_pool_any(T* __restrict y, std::int32_t* __restrict cell, const T* __restrict x,
                                  std::int64_t n, const Window2d w) {
  const std::int64_t c = w.channels;
  OutputPixel p(w, 0);
  for (std::int64_t o = 0; o < n * w.outputs(); ++o, p.next(w), y += c, cell += c) {
    const std::int64_t i0 = w.y.first(p.y), i1 = w.y.last(p.y), j0 = w.x.first(p.x), j1 = w.x.last(p.x);
    const T* __restrict start = x + p.cell(w, i0, j0);
    for (std::int64_t k = 0; k < c; ++k) {
      y[k] = start[k];
      cell[k] = static_cast<std::int32_t>(i0 * w.x.window + j0);
    }
    for (std::int64_t i = i0; i < i1; ++i) {
      for (std::int64_t j = i == i0 ? j0 + 1 : j0; j < j1; ++j) {
        const T* __restrict from = x + p.cell(w, i, j);
        const auto number = static_cast<std::int32_t>(i * w.x.window + j);
        for (std::int64_t k = 0; k < c; ++k) {
          T best = y[k];
          std::int32_t where = cell[k];
          take(best, where, from[k], number);
          y[k] = best;
          cell[k] = where;
        }
      }
    }
  }
}

template <class T>
VARSCOPE_INLINE void max_gradient_loop(T* __restrict dx, const T* __restrict dy,
                                       const std::int32_t* __restrict cell, std::int64_t n,
                                       const Window2d w) {
  const std::int64_t c = w.channels;
  OutputPixel p(w, 0);
  for (std::int64_t o = 0; o < n * w.outputs(); ++o, p.next(w), dy += c, cell += c) {
    for (std::int64_t i = w.y.first(p.y); i < w.y.last(p.y); ++i) {
      for (std::int64_t j = w.x.first(p.x); j < w.x.last(p.x); ++j) {
        T* __restrict to = dx + p.cell(w, i, j);
        const auto number = static_cast<std::int32_t>(i * w.x.window + j);
        for (std::int64_t k = 0; k < c; ++k) to[k] += cell[k] == number ? dy[k] : T(0);
      }
    }
  }
}

template <class T>
VARSCOPE_INLINE void max_scatter_loop(T* __restrict dx, const T* __restrict dy,
                                      const std::int32_t* __restrict cell, std::int64_t n, const Window2d w) {
  const std::int64_t c = w.channels, row = w.x.input * c;
  OutputPixel p(w, 0);
  for (std::int64_t o = 0; o < n * w.outputs(); ++o, p.next(w), dy += c, cell += c) {
    // Two pointers, since the loop vectorises only when the rows are known not to overlap.
    T* __restrict top = dx + p.cell(w, 0, 0);
    T* __restrict low = top + row;
    for (std::int64_t k = 0; k < c; ++k) {
      top[k] = cell[k] == 0 ? dy[k] : T(0);
      low[k] = cell[k] == 2 ? dy[k] : T(0);
    }
    for (std::int64_t k = 0; k < c; ++k) {
      top[c + k] = cell[k] == 1 ? dy[k] : T(0);
      low[c + k] = cell[k] == 3 ? dy[k] : T(0);
    }
  }
}

// The number of cells of a window that exist.
VARSCOPE_INLINE std::int64_t n_cells(const Window2d& w, const OutputPixel& p) {
  return (w.y.last(p.y) - w.y.first(p.y)) * (w.x.last(p.x) - w.x.first(p.x));
}

template <class T>
VARSCOPE_INLINE void average_loop(T* __restrict y, const T* __restrict x, std::int64_t n, const Window2d w) {
  const std::int64_t c = w.channels;
  OutputPixel p(w, 0);
  for (std::int64_t o = 0; o < n * w.outputs(); ++o, p.next(w), y += c) {
    for (std::int64_t k = 0; k < c; ++k) y[k] = T(0);
    for (std::int64_t i = w.y.first(p.y); i < w.y.last(p.y); ++i) {
      for (std::int64_t j = w.x.first(p.x); j < w.x.last(p.x); ++j) {
        const T* __restrict from = x + p.cell(w, i, j);
        for (std::int64_t k = 0; k < c; ++k) y[k] += from[k];
      }
    }
    const T divisor = static_cast<T>(n_cells(w, p));
    for (std::int64_t k = 0; k < c; ++k) y[k] /= divisor;
  }
}

template <class T>
VARSCOPE_INLINE void average_gradient_loop(T* __restrict dx, const T* __restrict dy, std::int64_t n,
                                           const Window2d w) {
  const std::int64_t c = w.channels;
  OutputPixel p(w, 0);
  for (std::int64_t o = 0; o < n * w.outputs(); ++o, p.next(w), dy += c) {
    const T divisor = static_cast<T>(n_cells(w, p));
    for (std::int64_t i = w.y.first(p.y); i < w.y.last(p.y); ++i) {
      for (std::int64_t j = w.x.first(p.x); j < w.x.last(p.x); ++j) {
        T* __restrict to = dx + p.cell(w, i, j);
        for (std::int64_t k = 0; k < c; ++k) to[k] += dy[k] / divisor;
      }
    }
  }
}

}  // namespace

bool is_exact_2x2(const Window2d& w) {
  return is_whole_2x2(w) && 2 * w.y.output == w.y.input && 2 * w.x.output == w.x.input;
}

#define VARSCOPE_POOLING_KERNELS(T)                                                                          \
  VARSCOPE_VECTOR_CLONES void max_pool(T* y, std::int32_t* cell, const T* x, std::int64_t n,                 \
                                       const Window2d& window) {                                             \
    if (is_whole_2x2(window)) {                                                                              \
      max_pool_2x2(y, cell, x, n, window);                                                                   \
    } else {                                                                                                 \
      max_pool_any(y, cell, x, n, window);                                                                   \
    }                                                                                                        \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void max_pool_gradient(T* dx, const T* dy, const std::int32_t* cell,                \
                                                std::int64_t n, const Window2d& window) {                    \
    max_gradient_loop(dx, dy, cell, n, window);                                                              \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void max_pool_scatter(T* dx, const T* dy, const std::int32_t* cell, std::int64_t n, \
                                               const Window2d& window) {                                     \
    max_scatter_loop(dx, dy, cell, n, window);                                                               \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void average_pool(T* y, const T* x, std::int64_t n, const Window2d& window) {       \
    average_loop(y, x, n, window);                                                                           \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void average_pool_gradient(T* dx, const T* dy, std::int64_t n,                      \
                                                    const Window2d& window) {                                \
    average_gradient_loop(dx, dy, n, window);                                                                \
  }

VARSCOPE_POOLING_KERNELS(float)
VARSCOPE_POOLING_KERNELS(double)
#undef VARSCOPE_POOLING_KERNELS

}  // namespace varscope::kernels
