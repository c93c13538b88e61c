#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "worker/kernels/blas.h"
#include "worker/ops/op_support.h"

// What the recurrent ops share; private to worker/ops. Inside, sequences are time-major: row t * n + r is
// step t of sequence r, so that one step is one block of rows and all steps are one matrix.
namespace varscope::recurrent {

using namespace op_support;

struct Extents {
  std::int64_t n, steps, inputs, units;
  std::int64_t rows() const { return n * steps; }
};
inline Extents extents_of(const Shape& x, const Shape& h) { return {x[0], x[1], x[2], h[h.rank() - 1]}; }

// Checks x [n, T, d] and h0 [n, units] (input `state`); T and units are known and at least 1.
inline Extents infer_sequence(const InferContext& context, std::size_t state) {
  context.require_floating(0);
  context.require_rank(0, 3);
  context.require_rank(state, 2);
  context.require_same_dtype(0, state);
  const Extents e = extents_of(context.shape(0), context.shape(state));
  if (e.steps < 1 || e.inputs < 0 || e.units < 1) {
    context.fail_shapes(0, state, "need known extents, and at least one step and one unit");
  }
  if (context.shape(state)[0] != e.n)
    context.fail_shapes(0, state, "do not fit: one state per row is needed");
  return e;
}

inline void infer_parameter(const InferContext& context, std::size_t input, const Shape& wanted) {
  context.require_same_dtype(0, input);
  if (context.shape(input) == wanted) return;
  context.fail_shapes(0, input, fmt::format("do not fit: {} is needed", wanted.str()));
}

// Rows of `width` elements, from batch-major x to the left of time-major panel p.
template <class T>
void to_time_major(const T* x, Panel<T> p, std::int64_t width, const Extents& e) {
  for (std::int64_t t = 0; t < e.steps; ++t) {
    for (std::int64_t r = 0; r < e.n; ++r) {
      kernels::copy(p.data + (t * e.n + r) * p.stride, x + (r * e.steps + t) * width, width);
    }
  }
}

// And back, into the gradient of x.
template <class T>
void contribute_time_major(const InputGradient& g, Panel<const T> p, std::int64_t width, const Extents& e) {
  T* dx = g.gradient->data<T>();
  for (std::int64_t r = 0; r < e.n; ++r) {
    for (std::int64_t t = 0; t < e.steps; ++t) {
      const T* from = p.data + (t * e.n + r) * p.stride;
      T* to = dx + (r * e.steps + t) * width;
      if (g.contribution == Contribution::first) {
        kernels::copy(to, from, width);
      } else {
        kernels::add(to, from, width);
      }
    }
  }
}

template <class T>
void copy_rows(Panel<T> to, Panel<const T> from, std::int64_t rows, std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r) {
    kernels::copy(to.data + r * to.stride, from.data + r * from.stride, cols);
  }
}

// Where the next value of input `state` goes; null where it carries none.
template <class T>
T* next_state(const ForwardContext& ctx, std::size_t state) {
  if (state >= ctx.next_states.size() || ctx.next_states[state]->empty()) return nullptr;
  return ctx.next_states[state]->data<T>();
}

// Lays out what all steps read: x, and h before the first of them, side by side in the rows of xh.
template <class T>
void begin_sequence(const ForwardContext& ctx, std::size_t state, Panel<T> xh, const Extents& e) {
  to_time_major(ctx.inputs[0]->data<T>(), xh, e.inputs, e);
  copy_rows<T>({xh.data + e.inputs, xh.stride}, {ctx.inputs[state]->data<T>(), e.units}, e.n, e.units);
}

// h of the last step becomes the next value of input `state`, if that carries one.
template <class T>
void keep_last_step(const ForwardContext& ctx, std::size_t state, const Extents& e) {
  const std::int64_t row = e.steps * e.units;  // from a sequence to the next, in the output
  T* next = next_state<T>(ctx, state);
  if (next == nullptr) return;
  copy_rows<T>({next, e.units}, {ctx.output.data<T>() + row - e.units, row}, e.n, e.units);
}

// bias gradient = sums of g [rows, cols] over its rows, in ascending order.
template <class T>
void contribute_column_sums(const InputGradient& bias, T* g, std::int64_t rows, std::int64_t cols) {
  if (!wanted(bias)) return;
  kernels::activation_gradient(Activation::linear, g, g, g, bias.gradient->data<T>(), sum_of(bias), rows,
                               cols);
}

// An op over all steps of x [n, T, d], input 0, that yields h of every step, [n, T, units]. Behind the
// parameters its inputs are the state before the first step, into which no gradient flows. Cell derives from
// it and has
//   kState     the input that is h before the first step,
//   kProducts  the columns of its weights, in units,
//   Workspace<T>(memory, extents) with elements_per_row(extents): what goes from forward to backward,
//   forward_steps, gate_gradients, parameter_gradients, each of (context, workspace, extents).
template <class Cell>
class RecurrentOp : public Op {
 public:
  bool differentiable(std::size_t input) const final { return input < Cell::kState; }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const final {
    const Extents e = extents_of(inputs[0]->shape, inputs[Cell::kState]->shape);
    return TensorType{inputs[0]->dtype, Shape{e.n, Cell::template Workspace<float>::elements_per_row(e)}};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const final {
    const Extents e = extents_of(with_batch(inputs[0]->shape, batch), inputs[Cell::kState]->shape);
    return 2 * e.rows() * (e.inputs + e.units) * Cell::kProducts * e.units;
  }
  void forward(const ForwardContext& ctx) const final {
    with_workspace(ctx, [&](const auto& w, const Extents& e) { cell().forward_steps(ctx, w, e); });
  }
  void backward(const BackwardContext& ctx) const final {
    with_workspace(ctx, [&](const auto& w, const Extents& e) {
      cell().gate_gradients(ctx, w, e);
      cell().parameter_gradients(ctx, w, e);
    });
  }

 private:
  friend Cell;  // nobody else may derive from it
  RecurrentOp() = default;
  const Cell& cell() const { return static_cast<const Cell&>(*this); }
  template <class Context, class Body>
  static void with_workspace(const Context& ctx, Body&& body) {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Extents e = extents_of(ctx.inputs[0]->shape(), ctx.output.shape());
      body(typename Cell::template Workspace<T>(ctx.workspace.template data<T>(), e), e);
    });
  }
};

}  // namespace varscope::recurrent
