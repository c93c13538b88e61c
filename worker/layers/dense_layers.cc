#include <optional>

#include "worker/layers/activation_names.h"
#include "worker/layers/built_in.h"
#include "worker/layers/layer_variables.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

struct DenseKeys {
  VariableKeys variables;
  std::int64_t units = 0;
  Activation activation = Activation::linear;
  bool bias = true;
  ConfigNode bias_initializer;
  bool transpose = false;
  bool each_step = false;
  void describe(Keys& keys) {
    variables.describe(keys);
    keys.key("units", units, "outputs of the layer; needed unless transpose",
             {.unit = "units", .min = 1, .max = 1 << 30});
    keys.choice("activation", activation, kActivationNames, "applied to the outputs");
    keys.key("bias", bias, "whether a bias is added to the outputs");
    keys.key("bias_initializer", bias_initializer, "first bias; without it zeros",
             {.type_name = "an initializer"});
    keys.key(
        "transpose", transpose,
        "with reuse: multiply with the other layer's weights turned round, as the decoder of an autoencoder "
        "does; the bias is <scope>/transposed_bias");
    keys.key(
        "each_step", each_step,
        "true: the same weights for each step of a sequence; false: inputs of higher rank are flattened");
  }
};

// [n, a, b, ...] as [n, a*b*...]; costs nothing.
NodeId as_rows(const LayerContext& context, bool each_step) {
  if (context.shape().rank() == 2 || each_step) return context.input();
  return ops::flatten(context.graph, context.input(), context.op("flatten"));
}

LayerInfo build_transposed(const LayerContext& context, const DenseKeys& keys, LayerVariables& variables) {
  const Variable* shared = context.store.find(variables.scope() + "/weights");
  if (shared == nullptr || !variables.shares()) {
    context.fail_key("transpose", fmt::format("needs reuse: the scope of a dense layer that comes "
                                              "before; \"{}\" has no weights",
                                              variables.scope()));
  }
  const NodeId x = as_rows(context, keys.each_step);
  const NodeId w = ops::variable(context.graph, *shared);
  const std::int64_t units = shared->shape()[0];
  if (keys.units > 0 && keys.units != units) {
    context.fail_key("units",
                     fmt::format("the weights of \"{}\" turned round yield {} outputs, not {}; remove it",
                                 variables.scope(), units, keys.units));
  }
  std::optional<NodeId> bias;
  if (keys.bias) {
    const VariableScope open = context.store.reenter(variables.scope(), {.reuse = Reuse::automatic});
    bias = variables.other("transposed_bias", {units}, Initializer::constant(0), &keys.bias_initializer,
                           "bias_initializer", shared->shape()[1]);
  }
  LayerInfo info;
  info.scope = variables.scope();
  info.output =
      ops::dense(context.graph, x, w, Transpose::yes, bias, keys.activation, context.op("dense_transposed"));
  info.text = fmt::format("{}: dense {} -> {}, {}, weights turned round", info.scope, shared->shape()[1],
                          units, to_string(keys.activation));
  return info;
}

LayerInfo build_dense(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<DenseKeys>(context);
  if (context.shape().rank() < 2)
    context.fail_key("type", "dense needs a batch of rows, got " + context.shape().str());
  LayerVariables variables(context, keys.variables, "dense");
  if (keys.transpose) return build_transposed(context, keys, variables);
  if (keys.units < 1)
    context.fail_key("units", "missing; dense needs this key (an integer: outputs of the layer)");
  const NodeId x = as_rows(context, keys.each_step);
  const Shape& in = context.type(x).shape;
  const std::int64_t fan_in = in[in.rank() - 1];
  const NodeId w = variables.weights("weights", {fan_in, keys.units}, fan_in);
  std::optional<NodeId> bias;
  if (keys.bias) {
    bias = variables.other("bias", {keys.units}, Initializer::constant(0), &keys.bias_initializer,
                           "bias_initializer", fan_in);
  }
  LayerInfo info;
  info.scope = variables.scope();
  info.output = ops::dense(context.graph, x, w, bias, keys.activation, context.op("dense"));
  info.text = fmt::format("{}: dense {} -> {}, {}{}, {}", info.scope, fan_in, keys.units,
                          to_string(keys.activation), keys.bias ? "" : ", no bias", variables.text());
  return info;
}

}  // namespace

void add_dense_layers(LayerRegistry& registry) {
  registry.add({"dense", "every output a weighted sum of all inputs; inputs of higher rank are flattened",
                build_dense, describe_keys<DenseKeys>});
}

}  // namespace varscope
