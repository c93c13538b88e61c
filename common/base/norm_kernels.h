#pragma once

#include <cstdint>

#include "common/base/error.h"
#include "common/base/tensor.h"

namespace varscope {

// Calls f(float()) or f(double()) by `dtype`. Throws Error(argument) for another one, which no variable on
// servers has.
template <class F>
void with_real(DType dtype, F&& f) {
  if (dtype == DType::float32) return f(float());
  if (dtype == DType::float64) return f(double());
  fail(ErrorKind::argument, "servers cannot update a variable of dtype {}", to_string(dtype));
}

namespace kernels {

// What gradients are clipped by norm with, on servers and on workers: the same bits wherever it is done, and
// for every vector width. Safe from any thread.

// In double: element i goes to lane i mod 8, then lanes are added in order, so that the order is a function
// of n only.
double sum_of_squares(const float* v, std::int64_t n);
double sum_of_squares(const double* v, std::int64_t n);
// v[i] *= factor.
void scale(float* v, float factor, std::int64_t n);
void scale(double* v, double factor, std::int64_t n);

}  // namespace kernels
}  // namespace varscope
