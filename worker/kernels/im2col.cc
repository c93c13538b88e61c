#include "worker/kernels/im2col.h"

#include <algorithm>
#include <cstring>

#include "common/base/vector_clones.h"
#include "worker/kernels/vector_math.h"

namespace varscope::kernels {
namespace {

// Copies n elements. With `ahead`, whole vectors: up to kColumnSlack - 1 elements beyond are read and
// overwritten.
template <class T>
VARSCOPE_INLINE void copy_run(T* to, const T* from, std::int64_t n, bool ahead) {
  if (!ahead) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
    return;
  }
  for (std::int64_t i = 0; i < n; i += kColumnSlack) {
    std::memcpy(to + i, from + i, kColumnSlack * sizeof(T));
  }
}

// Rows are written in ascending order: what a copy writes too much, the next one overwrites.
template <class T>
VARSCOPE_INLINE void im2col_loop(T* __restrict columns, const T* __restrict images, std::int64_t n_images,
                                 const Window2d w, PixelRange pixels) {
  const std::int64_t run = w.x.window * w.channels;  // one row of the window
  const T* const end = images + n_images * w.image_size();
  OutputPixel p(w, pixels.begin);
  for (std::int64_t number = pixels.begin; number < pixels.end; ++number, p.next(w)) {
    const T* const image = images + p.image * w.image_size();
    const std::int64_t x0 = w.x.begin(p.x), first = w.x.first(p.x), last = w.x.last(p.x);
    for (std::int64_t k = 0; k < w.y.window; ++k, columns += run) {
      const std::int64_t y = w.y.begin(p.y) + k;
      if (y < 0 || y >= w.y.input) {
        std::fill_n(columns, run, T(0));
        continue;
      }
      const T* const from = image + (y * w.x.input + x0 + first) * w.channels;
      const std::int64_t n = (last - first) * w.channels;
      std::fill_n(columns, first * w.channels, T(0));
      copy_run(columns + first * w.channels, from, n, end - from >= n + kColumnSlack);
      std::fill_n(columns + last * w.channels, (w.x.window - last) * w.channels, T(0));
    }
  }
}

template <class T>
VARSCOPE_INLINE void col2im_loop(T* __restrict images, const T* __restrict columns, const Window2d w,
                                 PixelRange pixels) {
  const std::int64_t run = w.x.window * w.channels;
  OutputPixel p(w, pixels.begin);
  for (std::int64_t number = pixels.begin; number < pixels.end; ++number, p.next(w)) {
    T* const image = images + p.image * w.image_size();
    const std::int64_t x0 = w.x.begin(p.x), first = w.x.first(p.x), last = w.x.last(p.x);
    for (std::int64_t k = 0; k < w.y.window; ++k, columns += run) {
      const std::int64_t y = w.y.begin(p.y) + k;
      if (y < 0 || y >= w.y.input) continue;
      T* __restrict to = image + (y * w.x.input + x0 + first) * w.channels;
      const T* __restrict from = columns + first * w.channels;
      const std::int64_t n = (last - first) * w.channels;
      for (std::int64_t i = 0; i < n; ++i) to[i] += from[i];
    }
  }
}

}  // namespace

std::int64_t column_block_rows(const Window2d& window, DType dtype) {
  const std::int64_t row_bytes = window.cells() * static_cast<std::int64_t>(size_of(dtype));
  return std::max<std::int64_t>(64, kColumnBytes / row_bytes / 64 * 64);
}

#define VARSCOPE_COLUMN_KERNELS(T)                                                        \
  VARSCOPE_VECTOR_CLONES void im2col(T* columns, const T* images, std::int64_t n_images,  \
                                     const Window2d& window, PixelRange pixels) {         \
    im2col_loop(columns, images, n_images, window, pixels);                               \
  }                                                                                       \
  VARSCOPE_VECTOR_CLONES void col2im(T* images, const T* columns, const Window2d& window, \
                                     PixelRange pixels) {                                 \
    col2im_loop(images, columns, window, pixels);                                         \
  }

VARSCOPE_COLUMN_KERNELS(float)
VARSCOPE_COLUMN_KERNELS(double)
#undef VARSCOPE_COLUMN_KERNELS

}  // namespace varscope::kernels
