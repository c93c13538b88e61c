#pragma once

#include <cstdint>

#include "common/base/tensor.h"
#include "worker/kernels/window.h"

namespace varscope::kernels {

// Output pixels are numbered over all images, row-major. The column matrix has a row for each, of
// Window2d::cells() elements in the order of a filter [kh, kw, c]; cells outside the image are zero.
struct PixelRange {
  std::int64_t begin, end;
};

// Rows of the column matrix that conv2d makes and multiplies at a time: as many as fill kColumnBytes, in
// multiples of 64, and no less than 64. A convolution of m filters is GEMMs of (rows x cells) * (cells x m).
inline constexpr std::int64_t kColumnBytes = 256 * 1024;
std::int64_t column_block_rows(const Window2d& window, DType dtype);

// Elements beyond the last row that im2col may overwrite, so that it can copy whole vectors.
inline constexpr std::int64_t kColumnSlack = 16;

// columns = rows `pixels` of the column matrix of `images`, of which there are n_images. `columns` has room
// for kColumnSlack elements more.
void im2col(float* columns, const float* images, std::int64_t n_images, const Window2d& window,
            PixelRange pixels);
void im2col(double* columns, const double* images, std::int64_t n_images, const Window2d& window,
            PixelRange pixels);

// images += what im2col would have read for each column, the rows in ascending order.
void col2im(float* images, const float* columns, const Window2d& window, PixelRange pixels);
void col2im(double* images, const double* columns, const Window2d& window, PixelRange pixels);

}  // namespace varscope::kernels
