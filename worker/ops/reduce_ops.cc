#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

TensorType infer_reduced(const InferContext& context, ops::ReduceOver over) {
  context.require_inputs(1);
  context.require_floating(0);
  if (over == ops::ReduceOver::all) return {context.dtype(0), Shape{}};
  const auto dims = context.shape(0).dims();
  if (dims.empty()) context.fail(fmt::format("\"{}\" is a scalar; it has no last axis", context.name(0)));
  return {context.dtype(0), Shape(std::vector<std::int64_t>(dims.begin(), dims.end() - 1))};
}

// Each row becomes one element.
Rows reduced_rows(const TensorView& x, ops::ReduceOver over) {
  return over == ops::ReduceOver::all ? Rows{1, x.n_elements()} : rows_of(x.shape());
}

class Reduce final : public Op {
 public:
  enum class Kind : std::uint8_t { sum, mean };
  Reduce(Kind kind, ops::ReduceOver over) : kind_(kind), over_(over) {}
  const char* type() const override { return kind_ == Kind::sum ? "reduce_sum" : "reduce_mean"; }
  TensorType infer(const InferContext& context) const override { return infer_reduced(context, over_); }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = reduced_rows(*ctx.inputs[0], over_);
      const T* x = ctx.inputs[0]->data<T>();
      T* y = ctx.output.data<T>();
      for (std::int64_t row = 0; row < r.rows; ++row) {
        double sum = 0;
        for (std::int64_t c = 0; c < r.cols; ++c) sum += static_cast<double>(x[row * r.cols + c]);
        y[row] = static_cast<T>(sum / divisor(r));
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = reduced_rows(*ctx.inputs[0], over_);
      const T* dy = ctx.output_gradient.data<T>();
      T* dx = g.gradient->data<T>();
      for (std::int64_t row = 0; row < r.rows; ++row) {
        const T value = static_cast<T>(static_cast<double>(dy[row]) / divisor(r));
        if (g.contribution == Contribution::first) {
          kernels::fill(dx + row * r.cols, value, r.cols);
        } else {
          kernels::add_constant(dx + row * r.cols, value, r.cols);
        }
      }
    });
  }

 private:
  // The mean of nothing is 0, as the sum is.
  double divisor(const Rows& r) const {
    return kind_ == Kind::sum ? 1.0 : static_cast<double>(std::max<std::int64_t>(1, r.cols));
  }
  Kind kind_;
  ops::ReduceOver over_;
};

class Extreme final : public Op {
 public:
  enum class Kind : std::uint8_t { max, min };
  Extreme(Kind kind, ops::ReduceOver over) : kind_(kind), over_(over) {}
  const char* type() const override { return kind_ == Kind::max ? "reduce_max" : "reduce_min"; }
  TensorType infer(const InferContext& context) const override { return infer_reduced(context, over_); }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = reduced_rows(*ctx.inputs[0], over_);
      const T* x = ctx.inputs[0]->data<T>();
      const T of_nothing = std::numeric_limits<T>::infinity() * (kind_ == Kind::max ? T(-1) : T(1));
      for (std::int64_t row = 0; row < r.rows; ++row, x += r.cols) {
        ctx.output.data<T>()[row] = r.cols == 0 ? of_nothing : x[first_extreme(x, r.cols)];
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = reduced_rows(*ctx.inputs[0], over_);
      const T* x = ctx.inputs[0]->data<T>();
      T* dx = g.gradient->data<T>();
      if (g.contribution == Contribution::first) kernels::fill(dx, zero, r.rows * r.cols);
      if (r.cols == 0) return;
      for (std::int64_t row = 0; row < r.rows; ++row) {
        const std::int64_t begin = row * r.cols;
        dx[begin + first_extreme(x + begin, r.cols)] += ctx.output_gradient.data<T>()[row];
      }
    });
  }

 private:
  template <class T>
  std::int64_t first_extreme(const T* x, std::int64_t n) const {
    return (kind_ == Kind::max ? std::max_element(x, x + n) : std::min_element(x, x + n)) - x;
  }
  Kind kind_;
  ops::ReduceOver over_;
};

}  // namespace

namespace ops {

NodeId reduce_sum(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce>(Reduce::Kind::sum, over), {x}, options);
}

NodeId reduce_mean(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce>(Reduce::Kind::mean, over), {x}, options);
}

NodeId reduce_max(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Extreme>(Extreme::Kind::max, over), {x}, options);
}

NodeId reduce_min(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Extreme>(Extreme::Kind::min, over), {x}, options);
}

}  // namespace ops
}  // namespace varscope
