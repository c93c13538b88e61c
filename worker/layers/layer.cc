#include "worker/layers/layer.h"

#include <array>
#include <vector>

#include "common/config/suggest.h"
#include "worker/layers/initializer_config.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

constexpr Choice<Activation> kActivationNames[] = {
    {Activation::linear, "linear"},    {Activation::relu, "relu"}, {Activation::leaky_relu, "leaky_relu"},
    {Activation::sigmoid, "sigmoid"},  {Activation::tanh, "tanh"}, {Activation::gelu, "gelu"},
    {Activation::softplus, "softplus"}};

struct DenseKeys {
  std::string scope;
  std::int64_t units = 0;
  Activation activation = Activation::linear;
  bool bias = true;
  ConfigNode initializer;
  ConfigNode bias_initializer;
  bool trainable = true;
  std::string reuse = "no";
  void describe(Keys& keys) {
    keys.key("scope", scope,
             "scope of its variables <scope>/weights and <scope>/bias; empty means dense_<number>");
    keys.required_key("units", units, "outputs of the layer", {.unit = "units", .min = 1, .max = 1 << 30});
    keys.choice("activation", activation, kActivationNames, "applied to the outputs");
    keys.key("bias", bias, "whether a bias is added to the outputs");
    keys.key(
        "initializer", initializer,
        "first weights: a name or a map with a type; without it model.initializer, or else glorot_uniform",
        {.type_name = "an initializer"});
    keys.key("bias_initializer", bias_initializer, "first bias; without it zeros",
             {.type_name = "an initializer"});
    keys.key("trainable", trainable, "false: the variables keep their first values");
    keys.key("reuse", reuse,
             "no: new variables. auto: those of the scope if there are any. A scope: share that layer's "
             "variables");
  }
};

struct ActivationKeys {
  Activation kind = Activation::relu;
  void describe(Keys& keys) { keys.required_choice("kind", kind, kActivationNames, "the function"); }
};

struct FlattenKeys {
  void describe(Keys&) {}
};

template <class K>
void describe_keys(Keys& keys) {
  K defaults;
  defaults.describe(keys);
}

template <class K>
K read_keys(const LayerContext& context) {
  return bind_keys<K>(context.node, context.file, context.path, {"type"});
}

const Shape& shape_of(const LayerContext& context, NodeId id) { return context.graph.node(id).type.shape; }

// [n, a, b, ...] as [n, a*b*...]; costs nothing.
NodeId as_rows(const LayerContext& context, const std::string& scope) {
  if (shape_of(context, context.input).rank() == 2) return context.input;
  return ops::flatten(context.graph, context.input, {scope + "/flatten", context.made_at()});
}

Initializer initializer_of(const LayerContext& context, const char* key, const ConfigNode& node,
                           const Shape& shape, std::int64_t fan_in) {
  const std::string path = join_keys(context.path, key);
  return read_initializer(node, context.file, path).make(shape, fan_in);
}

Initializer weights_initializer(const LayerContext& context, const DenseKeys& keys, const Shape& shape) {
  if (!keys.initializer.is_null())
    return initializer_of(context, "initializer", keys.initializer, shape, shape[0]);
  if (!context.default_initializer.is_null()) {
    return read_initializer(context.default_initializer, context.file, context.default_initializer_path)
        .make(shape, shape[0]);
  }
  return Initializer::glorot_uniform(shape);
}

// REQUIRES the scope to be closed before the next layer is built.
VariableScope open_scope(const LayerContext& context, const DenseKeys& keys) {
  const bool shares = keys.reuse != "no" && keys.reuse != "auto";
  ScopeOptions options;
  if (keys.reuse != "no") options.reuse = shares ? Reuse::yes : Reuse::automatic;
  if (!shares) options.trainable = keys.trainable;
  VariableScope scope = context.store.scope(shares ? keys.reuse : keys.scope, options);
  const Variable* taken = context.store.find(scope.name() + "/weights");
  if (keys.reuse == "no" && taken != nullptr) {
    context.fail_key("scope",
                     fmt::format("scope \"{}\" is another layer's, made at {}; choose another name, or share "
                                 "its variables with reuse: {}",
                                 keys.scope, taken->made_at(), keys.scope));
  }
  return scope;
}

const Variable& make_variable(const LayerContext& context, const char* name, const Shape& shape,
                              const Initializer& first) {
  VariableOptions options;
  options.initializer = first;
  options.dtype = context.dtype;
  options.made_at = context.made_at();
  return context.store.get_variable(name, shape, options);
}

LayerInfo build_dense(const LayerContext& context) {
  auto keys = read_keys<DenseKeys>(context);
  if (keys.scope.empty()) keys.scope = fmt::format("dense_{}", context.number);
  if (shape_of(context, context.input).rank() < 1)
    context.fail_key("type", "dense needs a batch of rows, got a scalar");
  const VariableScope scope = open_scope(context, keys);
  const NodeId x = as_rows(context, scope.name());
  const std::int64_t fan_in = shape_of(context, x)[1];
  const Shape shape{fan_in, keys.units};
  const Initializer first_weights = weights_initializer(context, keys, shape);
  const Variable& weights = make_variable(context, "weights", shape, first_weights);
  LayerInfo info;
  info.scope = weights.scope();
  info.n_parameters = weights.shape().n_elements();
  std::optional<NodeId> bias_node;
  if (keys.bias) {
    const Shape bias_shape{keys.units};
    const Initializer first_bias =
        keys.bias_initializer.is_null()
            ? Initializer::constant(0)
            : initializer_of(context, "bias_initializer", keys.bias_initializer, bias_shape, fan_in);
    const Variable& bias = make_variable(context, "bias", bias_shape, first_bias);
    info.n_parameters += bias.shape().n_elements();
    bias_node = context.graph.variable(bias);
  }
  info.output = ops::dense(context.graph, x, context.graph.variable(weights), bias_node, keys.activation,
                           {scope.name() + "/dense", context.made_at()});
  info.flops_per_sample = context.graph.flops(info.output, 1);
  info.text = fmt::format("{}: dense {} -> {}, {}{}; {} parameters{}{}", info.scope, fan_in, keys.units,
                          to_string(keys.activation), keys.bias ? "" : ", no bias", info.n_parameters,
                          keys.reuse == "no" ? fmt::format(", {}", first_weights.str()) : ", shared",
                          keys.trainable ? "" : ", not trainable");
  return info;
}

LayerInfo build_activation(const LayerContext& context) {
  const auto keys = read_keys<ActivationKeys>(context);
  LayerInfo info;
  info.output = ops::activation(context.graph, keys.kind, context.input, {"", context.made_at()});
  info.flops_per_sample = context.graph.flops(info.output, 1);
  info.text = fmt::format("activation: {}, {}", to_string(keys.kind), shape_of(context, info.output).str());
  return info;
}

LayerInfo build_flatten(const LayerContext& context) {
  read_keys<FlattenKeys>(context);
  LayerInfo info;
  info.output = ops::flatten(context.graph, context.input, {"", context.made_at()});
  info.text = fmt::format("flatten: {} -> {}", shape_of(context, context.input).str(),
                          shape_of(context, info.output).str());
  return info;
}

constexpr std::array<LayerType, 3> kLayerTypes = {{
    {"dense", "every output a weighted sum of all inputs; inputs of higher rank are flattened", build_dense,
     describe_keys<DenseKeys>},
    {"activation", "a function of each element", build_activation, describe_keys<ActivationKeys>},
    {"flatten", "all axes but the batch become one", build_flatten, describe_keys<FlattenKeys>},
}};

}  // namespace

std::string LayerContext::made_at() const {
  std::string text = position_of(node.mark, file);
  while (text.ends_with(' ') || text.ends_with(':')) text.pop_back();
  return text;
}

void LayerContext::fail_key(std::string_view key, const std::string& text) const {
  const ConfigNode* value = node.find(key);
  fail_at(value != nullptr ? *value : node, file, join_keys(path, key), text);
}

std::span<const LayerType> layer_types() { return kLayerTypes; }

const LayerType& find_layer_type(const ConfigNode& layer, std::string_view file, std::string_view path) {
  const ConfigNode* type = layer.find("type");
  const std::string type_path = join_keys(path, "type");
  if (type == nullptr) fail_at(layer, file, type_path, "missing; every layer has a type");
  std::vector<std::string> names;
  for (const LayerType& t : kLayerTypes) {
    if (type->is_scalar() && type->scalar == t.name) return t;
    names.emplace_back(t.name);
  }
  const std::string near = type->is_scalar() ? nearest(type->scalar, names) : "";
  fail_at(*type, file, type_path,
          fmt::format("unknown layer type {}{}; known are {}", type->describe(),
                      near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near), comma_list(names)));
}

std::string explain_layers() {
  std::string text;
  for (const LayerType& t : kLayerTypes) {
    text += fmt::format("type: {}\n  {}\n{}", t.name, t.summary,
                        explain_node(fmt::format("model.layers[type={}]", t.name), t.describe));
  }
  return text + "an initializer: a name, a number, or a map\n" +
         explain_keys<InitializerConfig>("initializer");
}

}  // namespace varscope
