#include <memory>

#include "worker/kernels/feature_kernels.h"
#include "worker/kernels/pooling_kernels.h"
#include "worker/ops/image_ops.h"
#include "worker/ops/op_support.h"
#include "worker/ops/window_support.h"

namespace varscope {
namespace {

using namespace op_support;

class Pool2d : public Op {
 public:
  explicit Pool2d(const ops::Pool2dOptions& options) : options_(options) {}
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    check_window(context, size(), options_.padding);
    const Window2d w = window(context.shape(0));
    if (w.y.window > INT32_MAX / w.x.window) {
      context.fail(
          fmt::format("has a window of {} x {}; it may have at most 2^31 - 1 cells", w.y.window, w.x.window));
    }
    return {context.dtype(0), Shape{context.shape(0)[0], w.y.output, w.x.output, w.channels}};
  }
  // One comparison or addition per cell.
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    const Shape x = with_batch(inputs[0]->shape, batch);
    const Window2d w = window(x);
    return x[0] * w.outputs() * w.cells();
  }

 protected:
  WindowSize size() const {
    return {options_.window_h, options_.window_w, options_.stride_h, options_.stride_w};
  }
  Window2d window(const Shape& x) const { return make_window(x, size(), options_.padding); }

 private:
  ops::Pool2dOptions options_;
};

class MaxPool2d final : public Pool2d {
 public:
  using Pool2d::Pool2d;
  const char* type() const override { return "max_pool2d"; }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    const Shape& x = inputs[0]->shape;
    const Window2d w = window(x);
    return TensorType{DType::int32, Shape{x[0], w.y.output, w.x.output, w.channels}};
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const TensorView& x = *ctx.inputs[0];
      kernels::max_pool(ctx.output.data<T>(), ctx.workspace.data<std::int32_t>(), x.data<T>(), x.shape()[0],
                        window(x.shape()));
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Window2d w = window(ctx.inputs[0]->shape());
      const std::int64_t n = ctx.output.shape()[0];
      const auto* cell = ctx.workspace.data<std::int32_t>();
      T* dx = g.gradient->data<T>();
      const T* dy = ctx.output_gradient.data<T>();
      const bool first = g.contribution == Contribution::first;
      if (first && kernels::is_exact_2x2(w)) return kernels::max_pool_scatter(dx, dy, cell, n, w);
      if (first) kernels::fill(dx, zero, g.gradient->n_elements());
      kernels::max_pool_gradient(dx, dy, cell, n, w);
    });
  }
};

class AveragePool2d final : public Pool2d {
 public:
  using Pool2d::Pool2d;
  const char* type() const override { return "average_pool2d"; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const TensorView& x = *ctx.inputs[0];
      kernels::average_pool(ctx.output.data<T>(), x.data<T>(), x.shape()[0], window(x.shape()));
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      T* dx = g.gradient->data<T>();
      if (g.contribution == Contribution::first) kernels::fill(dx, zero, g.gradient->n_elements());
      kernels::average_pool_gradient(dx, ctx.output_gradient.data<T>(), ctx.output.shape()[0],
                                     window(ctx.inputs[0]->shape()));
    });
  }
};

class GlobalAveragePool2d final : public Op {
 public:
  const char* type() const override { return "global_average_pool2d"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    check_window(context, {1, 1, 1, 1}, Padding::valid);
    return {context.dtype(0), Shape{context.shape(0)[0], context.shape(0)[3]}};
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Shape& shape = ctx.inputs[0]->shape();
      const std::int64_t pixels = shape[1] * shape[2], c = shape[3];
      const T* x = ctx.inputs[0]->data<T>();
      for (std::int64_t i = 0; i < shape[0]; ++i)
        kernels::column_means(ctx.output.data<T>() + i * c, x + i * pixels * c, pixels, c);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Shape& shape = ctx.inputs[0]->shape();
      const std::int64_t pixels = shape[1] * shape[2], c = shape[3];
      T* dx = g.gradient->data<T>();
      if (g.contribution == Contribution::first) kernels::fill(dx, zero, g.gradient->n_elements());
      const T* dy = ctx.output_gradient.data<T>();
      for (std::int64_t i = 0; i < shape[0]; ++i)
        kernels::column_means_gradient(dx + i * pixels * c, dy + i * c, pixels, c);
    });
  }
};

}  // namespace

namespace ops {

NodeId max_pool2d(Graph& graph, NodeId x, const Pool2dOptions& pool, const NodeOptions& options) {
  return graph.add(std::make_unique<MaxPool2d>(pool), {x}, options);
}

NodeId average_pool2d(Graph& graph, NodeId x, const Pool2dOptions& pool, const NodeOptions& options) {
  return graph.add(std::make_unique<AveragePool2d>(pool), {x}, options);
}

NodeId global_average_pool2d(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<GlobalAveragePool2d>(), {x}, options);
}

}  // namespace ops
}  // namespace varscope
