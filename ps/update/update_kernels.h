#pragma once

#include <cstdint>

#include "common/base/norm_kernels.h"

namespace varscope::kernels {

// Loops around the optimizer's, for float32 and float64. The same bits for every vector width.
//
// clamp, non_negative and average are element-wise; clamp and non_negative leave NaN as it is. average
// returns whether what it made is finite. The column kernels take n elements as rows of `columns`:
// add_column_squares adds in double, row by row; scale_columns multiplies element i by scales[i mod columns].
#define VARSCOPE_DECLARE_KERNELS(T)                                                        \
  void clamp(T* g, T limit, std::int64_t n);                                               \
  void non_negative(T* v, std::int64_t n);                                                 \
  bool average(T* v, const T* sample, T decay, T rest, std::int64_t n);                    \
  void add_column_squares(double* sums, const T* v, std::int64_t columns, std::int64_t n); \
  void scale_columns(T* v, const double* scales, std::int64_t columns, std::int64_t n);

VARSCOPE_DECLARE_KERNELS(float)
VARSCOPE_DECLARE_KERNELS(double)
#undef VARSCOPE_DECLARE_KERNELS

}  // namespace varscope::kernels
