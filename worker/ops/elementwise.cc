#include <cmath>
#include <memory>
#include <vector>

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

// All operands of the first one's shape and dtype.
class Add final : public Op {
 public:
  explicit Add(const char* type) : type_(type) {}
  const char* type() const override { return type_; }
  TensorType infer(const InferContext& context) const override {
    if (context.n_inputs() < 1) context.fail("takes at least one input");
    context.require_floating(0);
    for (std::size_t i = 1; i < context.n_inputs(); ++i) {
      context.require_same_dtype(0, i);
      if (!(context.shape(0) == context.shape(i))) context.fail_shapes(0, i, "differ; all must be the same");
    }
    return context.type(0);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::int64_t n = ctx.output.n_elements();
      T* y = ctx.output.data<T>();
      if (ctx.inputs.size() == 1) return kernels::copy(y, ctx.inputs[0]->data<T>(), n);
      kernels::add(y, ctx.inputs[0]->data<T>(), ctx.inputs[1]->data<T>(), n);
      for (const TensorView* input : ctx.inputs.subspan(2)) kernels::add(y, input->data<T>(), n);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* dy = ctx.output_gradient.data<T>();
      for (const InputGradient& g : ctx.input_gradients) contribute(g, dy, ctx.output.n_elements());
    });
  }

 private:
  const char* type_;
};

class Subtract final : public Op {
 public:
  const char* type() const override { return "subtract"; }
  TensorType infer(const InferContext& context) const override { return infer_pair(context); }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* a = ctx.inputs[0]->data<T>();
      const T* b = ctx.inputs[1]->data<T>();
      T* y = ctx.output.data<T>();
      for (std::int64_t i = 0; i < ctx.output.n_elements(); ++i) y[i] = a[i] - b[i];
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::int64_t n = ctx.output.n_elements();
      T* dy = ctx.output_gradient.data<T>();
      contribute(ctx.input_gradients[0], dy, n);
      if (!wanted(ctx.input_gradients[1])) return;
      kernels::multiply_constant(dy, dy, T(-1), n);
      contribute(ctx.input_gradients[1], dy, n);
    });
  }
};

// y = f(x) element by element. Rule gives value(x) and derivative(x, y).
template <class Rule>
class Unary final : public Op {
 public:
  explicit Unary(Rule rule = {}) : rule_(rule) {}
  const char* type() const override { return Rule::kName; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    return context.type(0);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* x = ctx.inputs[0]->data<T>();
      T* y = ctx.output.data<T>();
      for (std::int64_t i = 0; i < ctx.output.n_elements(); ++i) y[i] = rule_.value(x[i]);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    if (!wanted(ctx.input_gradients[0])) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* x = ctx.inputs[0]->data<T>();
      const T* y = ctx.output.data<T>();
      T* dy = ctx.output_gradient.data<T>();
      const std::int64_t n = ctx.output.n_elements();
      for (std::int64_t i = 0; i < n; ++i) dy[i] *= rule_.derivative(x[i], y[i]);
      contribute(ctx.input_gradients[0], dy, n);
    });
  }

 private:
  Rule rule_;
};

struct AbsoluteRule {
  static constexpr const char* kName = "absolute";
  template <class T>
  static T value(T x) {
    return std::abs(x);
  }
  template <class T>
  static T derivative(T x, T) {
    return static_cast<T>((x > T(0) ? 1 : 0) - (x < T(0) ? 1 : 0));
  }
};

struct SquareRule {
  static constexpr const char* kName = "square";
  template <class T>
  static T value(T x) {
    return x * x;
  }
  template <class T>
  static T derivative(T x, T) {
    return T(2) * x;
  }
};

struct SqrtRule {
  static constexpr const char* kName = "sqrt";
  template <class T>
  static T value(T x) {
    return std::sqrt(x);
  }
  template <class T>
  static T derivative(T, T y) {
    return T(0.5) / y;
  }
};

struct ExponentialRule {
  static constexpr const char* kName = "exponential";
  template <class T>
  static T value(T x) {
    return std::exp(x);
  }
  template <class T>
  static T derivative(T, T y) {
    return y;
  }
};

struct NegativeRule {
  static constexpr const char* kName = "negative";
  template <class T>
  static T value(T x) {
    return -x;
  }
  template <class T>
  static T derivative(T, T) {
    return T(-1);
  }
};

struct ScaleRule {
  static constexpr const char* kName = "scale";
  double factor = 1;
  template <class T>
  T value(T x) const {
    return static_cast<T>(factor) * x;
  }
  template <class T>
  T derivative(T, T) const {
    return static_cast<T>(factor);
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
  return graph.add(std::make_unique<Add>("add"), {a, b}, options);
}

NodeId multiply(Graph& graph, NodeId a, NodeId b, const NodeOptions& options) {
  return graph.add(std::make_unique<Multiply>(), {a, b}, options);
}

NodeId subtract(Graph& graph, NodeId a, NodeId b, const NodeOptions& options) {
  return graph.add(std::make_unique<Subtract>(), {a, b}, options);
}

NodeId add_n(Graph& graph, const std::vector<NodeId>& inputs, const NodeOptions& options) {
  return graph.add(std::make_unique<Add>("add_n"), inputs, options);
}

NodeId absolute(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<Unary<AbsoluteRule>>(), {x}, options);
}

NodeId square(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<Unary<SquareRule>>(), {x}, options);
}

NodeId negative(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<Unary<NegativeRule>>(), {x}, options);
}

NodeId sqrt(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<Unary<SqrtRule>>(), {x}, options);
}

NodeId exponential(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<Unary<ExponentialRule>>(), {x}, options);
}

NodeId scale(Graph& graph, NodeId x, double factor, const NodeOptions& options) {
  return graph.add(std::make_unique<Unary<ScaleRule>>(ScaleRule{factor}), {x}, options);
}

NodeId cast(Graph& graph, NodeId x, DType dtype, const NodeOptions& options) {
  return graph.add(std::make_unique<Cast>(dtype), {x}, options);
}

}  // namespace ops
}  // namespace varscope
