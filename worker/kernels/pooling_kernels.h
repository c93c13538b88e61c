#pragma once

#include <cstdint>

#include "worker/kernels/window.h"

// Loops of the pooling operations, vectorised over channels. x is [n, h, w, c], y and `cell` [n, h', w', c];
// a cell of a window has the number (row * width + column) of its place in the whole window.
namespace varscope::kernels {

// y = the largest of each window, cell = where it is. REQUIRES padding that leaves no window empty.
void max_pool(float* y, std::int32_t* cell, const float* x, std::int64_t n, const Window2d& window);
void max_pool(double* y, std::int32_t* cell, const double* x, std::int64_t n, const Window2d& window);
// dx += dy, at the cells.
void max_pool_gradient(float* dx, const float* dy, const std::int32_t* cell, std::int64_t n,
                       const Window2d& window);
void max_pool_gradient(double* dx, const double* dy, const std::int32_t* cell, std::int64_t n,
                       const Window2d& window);

// y = the mean of the cells that exist.
void average_pool(float* y, const float* x, std::int64_t n, const Window2d& window);
void average_pool(double* y, const double* x, std::int64_t n, const Window2d& window);
// dx += dy / the number of those cells.
void average_pool_gradient(float* dx, const float* dy, std::int64_t n, const Window2d& window);
void average_pool_gradient(double* dx, const double* dy, std::int64_t n, const Window2d& window);

// True for windows of 2 x 2 with stride 2 that cover the images exactly: each cell is in one window, so that
// max_pool_scatter can write dx (dy at the cells, else 0) without reading it.
bool is_exact_2x2(const Window2d& window);
void max_pool_scatter(float* dx, const float* dy, const std::int32_t* cell, std::int64_t n,
                      const Window2d& window);
void max_pool_scatter(double* dx, const double* dy, const std::int32_t* cell, std::int64_t n,
                      const Window2d& window);

}  // namespace varscope::kernels
