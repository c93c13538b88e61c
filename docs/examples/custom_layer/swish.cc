#include "swish.h"

#include <varscope/graph.h>

#include <cmath>
#include <memory>

using namespace varscope;

namespace {

// The operation. It has no state and allocates nothing: all memory belongs to the executor, so one graph can
// run in several executors at once.
class Swish final : public Op {
 public:
  const char* type() const override { return "swish"; }

  // Checks the inputs and says what comes out. `context` words the errors: node, shapes, YAML line.
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    context.require_floating(0);
    context.require_same_dtype(0, 1);
    if (context.shape(1) != Shape{1}) context.fail_shapes(0, 1, "do not fit: beta is a single number, [1]");
    return context.type(0);
  }

  void forward(const ForwardContext& c) const override {
    if (c.output.dtype() == DType::float32) return forward_as<float>(c);
    forward_as<double>(c);
  }
  // Writes (Contribution::first) or adds (later) the gradients that are wanted, inputs in ascending order.
  void backward(const BackwardContext& c) const override {
    if (c.output.dtype() == DType::float32) return backward_as<float>(c);
    backward_as<double>(c);
  }

 private:
  template <class T>
  static T sigmoid(T x) {
    return T(1) / (T(1) + std::exp(-x));
  }
  template <class T>
  static void forward_as(const ForwardContext& c) {
    const auto x = c.inputs[0]->as<T>();
    const T beta = c.inputs[1]->as<T>()[0];
    const auto y = c.output.as<T>();
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = x[i] * sigmoid(beta * x[i]);
  }
  template <class T>
  static void backward_as(const BackwardContext& c) {
    const auto x = c.inputs[0]->as<T>();
    const T beta = c.inputs[1]->as<T>()[0];
    const auto dy = c.output_gradient.as<T>();
    double dbeta = 0;  // a fixed order of summation keeps the bits
    const InputGradient& gx = c.input_gradients[0];
    for (std::size_t i = 0; i < dy.size(); ++i) {
      const T s = sigmoid(beta * x[i]);
      dbeta += static_cast<double>(dy[i] * x[i] * x[i] * s * (T(1) - s));
      if (gx.contribution == Contribution::none) continue;
      T& to = gx.gradient->as<T>()[i];
      const T dx = dy[i] * (s + beta * x[i] * s * (T(1) - s));
      to = gx.contribution == Contribution::first ? dx : to + dx;
    }
    const InputGradient& gb = c.input_gradients[1];
    if (gb.contribution == Contribution::none) return;
    T& to = gb.gradient->as<T>()[0];
    to = gb.contribution == Contribution::first ? static_cast<T>(dbeta) : to + static_cast<T>(dbeta);
  }
};

// The keys that YAML may give it, beside those of every layer. One description serves reading, checking and
// `config --explain`.
struct SwishKeys {
  VariableKeys variables;
  double beta = 1;
  void describe(Keys& keys) {
    variables.describe(keys);
    keys.key("beta", beta, "first value of beta", {.min = 0});
  }
};

// Adds the layer to a graph. LayerVariables opens the layer's scope, so that `scope`, `reuse` and
// `trainable` work as for every other layer.
LayerInfo build_swish(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<SwishKeys>(context);
  LayerVariables variables(context, keys.variables, "swish");
  const NodeId beta = variables.other("beta", {1}, Initializer::constant(keys.beta));
  LayerInfo info;
  info.scope = variables.scope();
  info.output = context.graph.add(std::make_unique<Swish>(), {context.input(), beta}, context.op("swish"));
  info.text = fmt::format("{}: swish {}", info.scope, context.shape().str());
  return info;
}

}  // namespace

LayerType swish_layer() {
  return {"swish", "x * sigmoid(beta x) with a trained beta", build_swish, describe_keys<SwishKeys>};
}
