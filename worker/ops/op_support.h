#pragma once

#include <cstdint>
#include <utility>

#include "worker/graph/op.h"
#include "worker/kernels/kernels.h"

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

// gradient = from, or gradient += from, of sums that were accumulated in double.
template <class T>
void contribute_columns(const InputGradient& g, const double* from, std::int64_t n) {
  if (!wanted(g)) return;
  T* to = g.gradient->data<T>();
  const bool first = g.contribution == Contribution::first;
  for (std::int64_t i = 0; i < n; ++i) {
    to[i] = static_cast<T>(first ? from[i] : static_cast<double>(to[i]) + from[i]);
  }
}

// Checks that the last axis of x, input 0, is known and not empty, and that the inputs `begin` .. `end` - 1
// have an element for each of its entries and the dtype of x.
inline void require_channels(const InferContext& context, const Shape& x, std::size_t begin,
                             std::size_t end) {
  const std::int64_t channels = x[x.rank() - 1];
  if (channels < 1) {
    context.fail(fmt::format("needs a known last extent of at least 1 in \"{}\", which has shape {}",
                             context.name(0), x.str()));
  }
  for (std::size_t input = begin; input < end; ++input) {
    context.require_same_dtype(0, input);
    context.require_rank(input, 1);
    if (context.shape(input)[0] == channels) continue;
    context.fail_shapes(0, input, fmt::format("do not fit: {} elements are needed", channels));
  }
}

}  // namespace varscope::op_support
