#include <memory>

#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

class ActivationOp final : public Op {
 public:
  explicit ActivationOp(Activation f) : f_(f) {}
  const char* type() const override { return to_string(f_); }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    return context.type(0);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::int64_t n = ctx.output.n_elements();
      T* y = ctx.output.data<T>();
      kernels::copy(y, ctx.inputs[0]->data<T>(), n);
      kernels::bias_activate(f_, y, static_cast<const T*>(nullptr), static_cast<T*>(nullptr), 1, n);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::int64_t n = ctx.output.n_elements();
      T* dy = ctx.output_gradient.data<T>();
      kernels::activation_gradient(f_, dy, ctx.output.data<T>(), ctx.inputs[0]->data<T>(),
                                   static_cast<T*>(nullptr), kernels::Sum::overwrite, 1, n);
      contribute(ctx.input_gradients[0], dy, n);
    });
  }

 private:
  Activation f_;
};

// Two operands of one shape and floating dtype.
TensorType infer_pair(const InferContext& context) {
  context.require_inputs(2);
  context.require_floating(0);
  context.require_same_dtype(0, 1);
  if (!(context.shape(0) == context.shape(1))) context.fail_shapes(0, 1, "differ; both must be the same");
  return context.type(0);
}

class Add final : public Op {
 public:
  const char* type() const override { return "add"; }
  TensorType infer(const InferContext& context) const override { return infer_pair(context); }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      kernels::add(ctx.output.data<T>(), ctx.inputs[0]->data<T>(), ctx.inputs[1]->data<T>(),
                   ctx.output.n_elements());
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* dy = ctx.output_gradient.data<T>();
      for (const InputGradient& g : ctx.input_gradients) contribute(g, dy, ctx.output.n_elements());
    });
  }
};

class Multiply final : public Op {
 public:
  const char* type() const override { return "multiply"; }
  TensorType infer(const InferContext& context) const override { return infer_pair(context); }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      kernels::multiply(ctx.output.data<T>(), ctx.inputs[0]->data<T>(), ctx.inputs[1]->data<T>(),
                        ctx.output.n_elements());
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* dy = ctx.output_gradient.data<T>();
      const std::int64_t n = ctx.output.n_elements();
      contribute_product(ctx.input_gradients[0], dy, ctx.inputs[1]->data<T>(), n);
      contribute_product(ctx.input_gradients[1], dy, ctx.inputs[0]->data<T>(), n);
    });
  }
};

class Cast final : public Op {
 public:
  explicit Cast(DType to) : to_(to) {}
  const char* type() const override { return "cast"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    if (to_ != DType::float32 && to_ != DType::float64) {
      context.fail(fmt::format("casts to float32 or float64, not {}", to_string(to_)));
    }
    return {to_, context.shape(0)};
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto from) {
      with_floating(to_, [&](auto to) {
        using From = decltype(from);
        using To = decltype(to);
        const From* x = ctx.inputs[0]->data<From>();
        To* y = ctx.output.data<To>();
        for (std::int64_t i = 0; i < ctx.output.n_elements(); ++i) y[i] = static_cast<To>(x[i]);
      });
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.inputs[0]->dtype(), [&](auto from) {
      with_floating(to_, [&](auto to) {
        using From = decltype(from);
        using To = decltype(to);
        const To* dy = ctx.output_gradient.data<To>();
        From* dx = g.gradient->data<From>();
        const bool first = g.contribution == Contribution::first;
        for (std::int64_t i = 0; i < ctx.output.n_elements(); ++i) {
          dx[i] = static_cast<From>(dy[i]) + (first ? From(0) : dx[i]);
        }
      });
    });
  }

 private:
  DType to_;
};

}  // namespace

namespace ops {

NodeId activation(Graph& graph, Activation f, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<ActivationOp>(f), {x}, options);
}

NodeId add(Graph& graph, NodeId a, NodeId b, const NodeOptions& options) {
  return graph.add(std::make_unique<Add>(), {a, b}, options);
}

NodeId multiply(Graph& graph, NodeId a, NodeId b, const NodeOptions& options) {
  return graph.add(std::make_unique<Multiply>(), {a, b}, options);
}

NodeId cast(Graph& graph, NodeId x, DType dtype, const NodeOptions& options) {
  return graph.add(std::make_unique<Cast>(dtype), {x}, options);
}

}  // namespace ops
}  // namespace varscope
