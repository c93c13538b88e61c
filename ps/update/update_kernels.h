#pragma once

#include <cstdint>

#include "common/base/error.h"
#include "common/base/tensor.h"

namespace varscope {

// Calls f(float()) or f(double()) by `dtype`. Throws Error(argument) for another one.
template <class F>
void with_real(DType dtype, F&& f) {
  if (dtype == DType::float32) return f(float());
  if (dtype == DType::float64) return f(double());
  fail(ErrorKind::argument, "servers cannot update a variable of dtype {}", to_string(dtype));
}

}  // namespace varscope

namespace varscope::kernels {

// Loops around the optimizer's, for float32 and float64. The same bits for every vector width.
//
// clamp, non_negative, average and scale are element-wise; clamp and non_negative leave NaN as it is.
// average returns whether what it made is finite. sum_of_squares adds in double: element i goes to lane i
// mod 8, then lanes are added in order, so that the order is a function of n only. The column kernels take
// n elements as rows of `columns`: add_column_squares adds in double, row by row; scale_columns multiplies
// element i by scales[i mod columns].
#define VARSCOPE_DECLARE_KERNELS(T)                                                        \
  void clamp(T* g, T limit, std::int64_t n);                                               \
  void non_negative(T* v, std::int64_t n);                                                 \
  bool average(T* v, const T* sample, T decay, T rest, std::int64_t n);                    \
  void scale(T* v, T factor, std::int64_t n);                                              \
  double sum_of_squares(const T* v, std::int64_t n);                                       \
  void add_column_squares(double* sums, const T* v, std::int64_t columns, std::int64_t n); \
  void scale_columns(T* v, const double* scales, std::int64_t columns, std::int64_t n);

VARSCOPE_DECLARE_KERNELS(float)
VARSCOPE_DECLARE_KERNELS(double)
#undef VARSCOPE_DECLARE_KERNELS

}  // namespace varscope::kernels
