#pragma once

#include <cstdint>
#include <utility>

#include "worker/graph/op.h"
#include "worker/ops/kernels.h"

// Helpers that the op implementations share; private to worker/ops.
namespace varscope::op_support {

// Calls body(float{}) or body(double{}). REQUIRES float32 or float64, which Op::infer has checked.
template <class Body>
void with_floating(DType dtype, Body&& body) {
  if (dtype == DType::float32) {
    body(float{});
  } else {
    body(double{});
  }
}

// A tensor as rows of its last axis; a scalar is one row of one.
struct Rows {
  std::int64_t rows, cols;
};
inline Rows rows_of(const Shape& shape) {
  if (shape.rank() == 0) return {1, 1};
  std::int64_t rows = 1;
  for (std::size_t axis = 0; axis + 1 < shape.rank(); ++axis) rows *= shape[axis];
  return {rows, shape[shape.rank() - 1]};
}

inline void require_rank_from(const InferContext& context, std::size_t input, std::size_t least) {
  const Shape& shape = context.shape(input);
  if (shape.rank() >= least) return;
  context.fail(fmt::format("needs rank {} or more for \"{}\", which has shape {}", least, context.name(input),
                           shape.str()));
}

inline bool wanted(const InputGradient& g) { return g.contribution != Contribution::none; }
inline kernels::Sum sum_of(const InputGradient& g) {
  return g.contribution == Contribution::first ? kernels::Sum::overwrite : kernels::Sum::add;
}
template <class T>
T beta_of(const InputGradient& g) {
  return g.contribution == Contribution::first ? T(0) : T(1);
}

// gradient = from, or gradient += from.
template <class T>
void contribute(const InputGradient& g, const T* from, std::int64_t n) {
  if (!wanted(g)) return;
  if (g.contribution == Contribution::first) {
    kernels::copy(g.gradient->data<T>(), from, n);
  } else {
    kernels::add(g.gradient->data<T>(), from, n);
  }
}

// gradient = a * b, or gradient += a * b.
template <class T>
void contribute_product(const InputGradient& g, const T* a, const T* b, std::int64_t n) {
  if (!wanted(g)) return;
  if (g.contribution == Contribution::first) {
    kernels::multiply(g.gradient->data<T>(), a, b, n);
  } else {
    kernels::multiply_add(g.gradient->data<T>(), a, b, n);
  }
}

}  // namespace varscope::op_support
