#include <algorithm>
#include <memory>
#include <vector>

#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

// The elements before, along and behind an axis.
struct Split {
  std::int64_t outer, extent, inner;
};
Split split_at(const Shape& shape, std::size_t axis) {
  Split s{1, shape[axis], 1};
  for (std::size_t a = 0; a < axis; ++a) s.outer *= shape[a];
  for (std::size_t a = axis + 1; a < shape.rank(); ++a) s.inner *= shape[a];
  return s;
}

class Concat final : public Op {
 public:
  explicit Concat(std::size_t axis) : axis_(axis) {}
  const char* type() const override { return "concat"; }
  TensorType infer(const InferContext& context) const override {
    if (context.n_inputs() < 1) context.fail("takes at least one input");
    context.require_floating(0);
    const Shape& first = context.shape(0);
    if (axis_ >= first.rank()) {
      context.fail(fmt::format("along axis {}; \"{}\" has shape {}", axis_, context.name(0), first.str()));
    }
    std::int64_t extent = 0;
    for (std::size_t i = 0; i < context.n_inputs(); ++i) {
      context.require_same_dtype(0, i);
      const Shape& shape = context.shape(i);
      if (shape.rank() != first.rank() || !(shape.with_dim(axis_, first[axis_]) == first)) {
        context.fail_shapes(0, i, fmt::format("differ on an axis other than {}", axis_));
      }
      if (shape[axis_] == Shape::kUnknown) {
        context.fail(fmt::format("along axis {} of \"{}\", which has shape {}: that extent must be known",
                                 axis_, context.name(i), shape.str()));
      }
      extent += shape[axis_];
    }
    return {context.dtype(0), first.with_dim(axis_, extent)};
  }
  std::int64_t flops(std::span<const TensorType* const>, std::int64_t) const override { return 0; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Split whole = split_at(ctx.output.shape(), axis_);
      T* to = ctx.output.data<T>();
      for (const TensorView* input : ctx.inputs) {
        const Split part = split_at(input->shape(), axis_);
        const std::int64_t run = part.extent * part.inner;
        for (std::int64_t o = 0; o < part.outer; ++o) {
          kernels::copy(to + o * whole.extent * whole.inner, input->data<T>() + o * run, run);
        }
        to += run;
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Split whole = split_at(ctx.output.shape(), axis_);
      const T* from = ctx.output_gradient.data<T>();
      for (std::size_t i = 0; i < ctx.inputs.size(); ++i) {
        const Split part = split_at(ctx.inputs[i]->shape(), axis_);
        const std::int64_t run = part.extent * part.inner;
        const InputGradient& g = ctx.input_gradients[i];
        for (std::int64_t o = 0; wanted(g) && o < part.outer; ++o) {
          const T* piece = from + o * whole.extent * whole.inner;
          T* to = g.gradient->data<T>() + o * run;
          g.contribution == Contribution::first ? kernels::copy(to, piece, run)
                                                : kernels::add(to, piece, run);
        }
        from += run;
      }
    });
  }

 private:
  std::size_t axis_;
};

class Take final : public Op {
 public:
  explicit Take(std::int64_t index) : index_(index) {}
  const char* type() const override { return "take"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    require_rank_from(context, 0, 2);
    const Shape& x = context.shape(0);
    if (index_ < 0 || index_ >= x[1]) {
      context.fail(fmt::format("index {} is not in axis 1 of \"{}\", which has shape {}", index_,
                               context.name(0), x.str()));
    }
    std::vector<std::int64_t> dims(x.dims().begin(), x.dims().end());
    dims.erase(dims.begin() + 1);
    return {context.dtype(0), Shape(std::move(dims))};
  }
  std::int64_t flops(std::span<const TensorType* const>, std::int64_t) const override { return 0; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Split s = split_at(ctx.inputs[0]->shape(), 1);
      const T* x = ctx.inputs[0]->data<T>() + index_ * s.inner;
      for (std::int64_t row = 0; row < s.outer; ++row) {
        kernels::copy(ctx.output.data<T>() + row * s.inner, x + row * s.extent * s.inner, s.inner);
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Split s = split_at(ctx.inputs[0]->shape(), 1);
      T* dx = g.gradient->data<T>();
      if (g.contribution == Contribution::first) kernels::fill(dx, zero, s.outer * s.extent * s.inner);
      dx += index_ * s.inner;
      for (std::int64_t row = 0; row < s.outer; ++row) {
        kernels::add(dx + row * s.extent * s.inner, ctx.output_gradient.data<T>() + row * s.inner, s.inner);
      }
    });
  }

 private:
  std::int64_t index_;
};

// Rows of the last axis, each with its partner. Where one input has extent 1 before the last axis, its row is
// the partner of all `group` rows that the other one has there.
class Dot final : public Op {
 public:
  const char* type() const override { return "dot"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    context.require_floating(0);
    context.require_same_dtype(0, 1);
    require_rank_from(context, 0, 1);
    const Shape &a = context.shape(0), &b = context.shape(1);
    const std::size_t rank = a.rank();
    const bool repeats = rank >= 3 && b.rank() == rank && (a[rank - 2] == 1 || b[rank - 2] == 1);
    if (!(repeats ? a.with_dim(rank - 2, 1) == b.with_dim(rank - 2, 1) : a == b)) {
      context.fail_shapes(0, 1,
                          rank < 3 ? "differ; both must be the same"
                                   : "differ; both must be the same, or one has a single row where the other "
                                     "one has several, as [?, 1, k] and [?, rows, k]");
    }
    if (a[rank - 1] == Shape::kUnknown) context.fail_shapes(0, 1, "have a last axis of unknown extent");
    return {context.dtype(0), (repeats && a[rank - 2] == 1 ? b : a).with_dim(rank - 1, 1)};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return 2 * std::max(with_batch(inputs[0]->shape, batch).n_elements(),
                        with_batch(inputs[1]->shape, batch).n_elements());
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Partners p(ctx.inputs);
      for (std::int64_t row = 0; row < p.rows; ++row) {
        const T* a = ctx.inputs[0]->data<T>() + p.row(0, row) * p.cols;
        const T* b = ctx.inputs[1]->data<T>() + p.row(1, row) * p.cols;
        double sum = 0;
        for (std::int64_t c = 0; c < p.cols; ++c)
          sum += static_cast<double>(a[c]) * static_cast<double>(b[c]);
        ctx.output.data<T>()[row] = static_cast<T>(sum);
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Partners p(ctx.inputs);
      const T* dy = ctx.output_gradient.data<T>();
      for (const std::size_t i : {0U, 1U}) {
        const InputGradient& g = ctx.input_gradients[i];
        if (!wanted(g)) continue;
        for (std::int64_t row = 0; row < p.rows; ++row) {
          const T* other = ctx.inputs[1 - i]->data<T>() + p.row(1 - i, row) * p.cols;
          T* to = g.gradient->data<T>() + p.row(i, row) * p.cols;
          const bool first = g.contribution == Contribution::first && row % p.group[i] == 0;
          for (std::int64_t c = 0; c < p.cols; ++c) {
            const T d = dy[row] * other[c];
            to[c] = first ? d : to[c] + d;
          }
        }
      }
    });
  }

 private:
  struct Partners {
    std::int64_t rows, cols;
    std::int64_t group[2] = {1, 1};  // rows of the output for one of this input
    explicit Partners(std::span<const TensorView* const> in) {
      const Rows a = rows_of(in[0]->shape()), b = rows_of(in[1]->shape());
      rows = std::max(a.rows, b.rows);
      cols = a.cols;
      if (a.rows > 0) group[0] = rows / a.rows;
      if (b.rows > 0) group[1] = rows / b.rows;
    }
    std::int64_t row(std::size_t input, std::int64_t of_output) const { return of_output / group[input]; }
  };
};

}  // namespace

namespace ops {

NodeId concat(Graph& graph, const std::vector<NodeId>& inputs, std::size_t axis, const NodeOptions& options) {
  return graph.add(std::make_unique<Concat>(axis), inputs, options);
}

NodeId take(Graph& graph, NodeId x, std::int64_t index, const NodeOptions& options) {
  return graph.add(std::make_unique<Take>(index), {x}, options);
}

NodeId dot(Graph& graph, NodeId a, NodeId b, const NodeOptions& options) {
  return graph.add(std::make_unique<Dot>(), {a, b}, options);
}

}  // namespace ops
}  // namespace varscope
