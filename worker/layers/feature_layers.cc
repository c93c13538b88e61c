#include <optional>

#include "worker/layers/built_in.h"
#include "worker/layers/layer_variables.h"
#include "worker/layers/table_keys.h"
#include "worker/ops/feature_ops.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

// [n, a, b, ...] as [n, a*b*...]; costs nothing.
NodeId as_rows(const LayerContext& context, NodeId x) {
  if (context.type(x).shape.rank() == 2) return x;
  return ops::flatten(context.graph, x, context.op("flatten"));
}

struct CrossKeys {
  VariableKeys variables;
  std::int64_t rank = 0;
  bool bias = true;
  ConfigNode bias_initializer;
  void describe(Keys& keys) {
    variables.describe(keys);
    keys.key(
        "rank", rank,
        "of the weights: 0 for one matrix [width, width], else the product of <scope>/projection [width, "
        "rank] and <scope>/weights [rank, width]",
        {.min = 0, .max = 1 << 20});
    keys.key("bias", bias, "whether a bias is added before the product");
    keys.key("bias_initializer", bias_initializer, "first bias; without it zeros",
             {.type_name = "an initializer"});
  }
};

// x0 * (x W + b) + x, element by element (Wang et al., "DCN V2", WWW 2021).
LayerInfo build_cross(const LayerContext& context) {
  const auto keys = read_keys<CrossKeys>(context);
  if (context.inputs.size() > 2) context.require_inputs(2);
  const NodeId x0 = as_rows(context, context.input());
  const NodeId x = context.inputs.size() == 1 ? x0 : as_rows(context, context.inputs[1]);
  const Shape& shape = context.type(x0).shape;
  if (!(shape == context.type(x).shape)) {
    context.fail_key("inputs",
                     fmt::format("cross multiplies its first input {} with what it makes of the second "
                                 "one {}; both must have the same shape",
                                 shape.str(), context.type(x).shape.str()));
  }
  const std::int64_t width = shape[1];
  LayerVariables variables(context, keys.variables, "cross");
  NodeId in = x;
  if (keys.rank > 0) {
    const NodeId projection = variables.weights("projection", {width, keys.rank}, width);
    in = ops::matmul(context.graph, x, projection, context.op("projection"));
  }
  const std::int64_t fan_in = keys.rank > 0 ? keys.rank : width;
  const NodeId weights = variables.weights("weights", {fan_in, width}, fan_in);
  std::optional<NodeId> bias;
  if (keys.bias) {
    bias = variables.other("bias", {width}, Initializer::constant(0), &keys.bias_initializer,
                           "bias_initializer", fan_in);
  }
  Graph& g = context.graph;
  const NodeId linear = ops::dense(g, in, weights, bias, Activation::linear, context.op("linear"));
  const NodeId product = ops::multiply(g, x0, linear, context.op("product"));
  LayerInfo info;
  info.scope = variables.scope();
  info.output = ops::add(g, product, x, context.op("cross"));
  info.text = fmt::format("{}: cross of {}{}{}, {}", info.scope, width,
                          keys.rank > 0 ? fmt::format(", rank {}", keys.rank) : "",
                          keys.bias ? "" : ", no bias", variables.text());
  return info;
}

struct FactorizationKeys {
  VariableKeys variables;
  std::int64_t factors = 0;
  IdKeys ids;
  void describe(Keys& keys) {
    variables.describe(keys);
    keys.key("factors", factors,
             "numbers of each feature, for an input [width] or a bag: <scope>/factors [width or vocabulary, "
             "factors]; 0 where the inputs are embedded fields",
             {.min = 0, .max = 1 << 16});
    ids.describe(keys,
                 "of bags, which are inputs: [ids, offsets] or [ids, offsets, weights]: number of ids, 0 .. "
                 "vocabulary - 1");
  }
};

// Several inputs are fields, [n, k] or [n, f, k], one behind the other.
NodeId joined_fields(const LayerContext& context) {
  std::vector<NodeId> fields;
  for (const NodeId input : context.inputs) {
    const Shape& shape = context.type(input).shape;
    if (shape.rank() != 2 && shape.rank() != 3) {
      context.fail_key("inputs", fmt::format("factorization_machine takes embedded fields [?, units] or [?, "
                                             "fields, units], got shape {}",
                                             shape.str()));
    }
    const std::int64_t width = shape[shape.rank() - 1];
    const Shape& first = context.type(context.input()).shape;
    if (width != first[first.rank() - 1]) {
      context.fail_key("inputs", fmt::format("factorization_machine multiplies fields of the same width; got "
                                             "shapes {} and {}",
                                             first.str(), shape.str()));
    }
    fields.push_back(shape.rank() == 3 ? input
                                       : ops::reshape(context.graph, input, Shape{shape[0], 1, width},
                                                      context.op("field")));
  }
  return fields.size() == 1 ? fields[0] : ops::concat(context.graph, fields, 1, context.op("fields"));
}

LayerInfo build_field_pairs(const LayerContext& context) {
  for (const char* key : {"factors", "vocabulary", "table", "padding", "scope", "reuse", "trainable",
                          "initializer", "regularizer", "constraint", "partitioner", "compression"}) {
    if (context.node.find(key) == nullptr) continue;
    context.fail_key(key, "over embedded fields a factorization_machine has no variables; remove this key");
  }
  const NodeId fields = joined_fields(context);
  LayerInfo info;
  info.output = ops::factorization_machine(context.graph, fields, context.op("factorization_machine"));
  info.text = fmt::format("factorization_machine: pairs of {} fields of {}", context.type(fields).shape[1],
                          context.type(fields).shape[2]);
  return info;
}

void require_factors(const LayerContext& context, const FactorizationKeys& keys, const std::string& of) {
  if (keys.factors > 0) return;
  context.fail_key("factors",
                   fmt::format("missing; over {} the layer needs this key (an integer: numbers of each "
                               "feature)",
                               of));
}

// The rows of a table are asked for by bags, or by ids [?, n].
LayerInfo build_table_pairs(const LayerContext& context, const FactorizationKeys& keys) {
  const bool ragged = context.shape().has(Shape::kRagged);
  if (!ragged && (context.inputs.size() != 1 || context.shape().rank() != 2)) {
    context.fail_key("inputs",
                     fmt::format("a factorization_machine of a table takes a bag, [ids, offsets] or [ids, "
                                 "offsets, weights], or ids [?, n]; got {} of shape {}",
                                 context.inputs.size() == 1 ? "an input" : "several inputs, the first",
                                 context.shape().str()));
  }
  LayerVariables variables(context, keys.variables, "factorization_machine");
  const TableLookup& lookup =
      look_up_rows(context, variables, keys.ids, "factors", keys.factors, {.in_bags = true});
  LayerInfo info;
  info.scope = variables.scope();
  info.output =
      ops::factorization_machine_bag(context.graph, context.graph.variable(*lookup.table), lookup.positions,
                                     *lookup.offsets, lookup.weights, context.op("factorization_machine"));
  info.text = fmt::format("{}: factorization_machine of bags, {} factors of {}, {}", info.scope, keys.factors,
                          table_text(keys.ids), variables.text());
  return info;
}

// An id of a bag is a feature, its weight the feature's value.
LayerInfo build_bag_pairs(const LayerContext& context, const FactorizationKeys& keys) {
  const std::vector<NodeId>& in = context.inputs;
  const bool ragged = context.shape().has(Shape::kRagged);
  if (ragged && in.size() != 2 && in.size() != 3) {
    context.fail_key(
        "inputs", fmt::format("a bag is [ids, offsets] or [ids, offsets, weights]; got {} input{}", in.size(),
                              in.size() == 1 ? "" : "s"));
  }
  require_factors(context, keys, "bags");
  if (keys.ids.table) return build_table_pairs(context, keys);
  if (keys.ids.vocabulary < 1) {
    context.fail_key("vocabulary",
                     "missing; over bags the layer needs this key (an integer: number of ids), or table");
  }
  LayerVariables variables(context, keys.variables, "factorization_machine");
  const NodeId factors =
      variables.weights("factors", {keys.ids.vocabulary, keys.factors}, keys.ids.vocabulary);
  const std::optional<NodeId> weights = in.size() == 3 ? std::optional(in[2]) : std::nullopt;
  LayerInfo info;
  info.scope = variables.scope();
  info.output = ops::factorization_machine_bag(context.graph, factors, in[0], in[1], weights,
                                               context.op("factorization_machine"));
  info.text = fmt::format("{}: factorization_machine of bags of {} ids, {} factors, {}", info.scope,
                          keys.ids.vocabulary, keys.factors, variables.text());
  return info;
}

LayerInfo build_factorization_machine(const LayerContext& context) {
  const auto keys = read_keys<FactorizationKeys>(context);
  const Shape& shape = context.shape();
  keys.ids.check(context);
  if (keys.ids.table || shape.has(Shape::kRagged)) return build_bag_pairs(context, keys);
  if (context.inputs.size() > 1 || shape.rank() == 3) return build_field_pairs(context);
  if (shape.rank() != 2) {
    context.fail_key("type",
                     fmt::format("factorization_machine takes features [?, width] or embedded fields [?, "
                                 "fields, units], got shape {}",
                                 shape.str()));
  }
  if (keys.ids.vocabulary > 0) {
    context.fail_key("vocabulary",
                     fmt::format("is for bags: inputs: [ids, offsets] or [ids, offsets, weights]. The "
                                 "input here has shape {}",
                                 shape.str()));
  }
  require_factors(context, keys, "features of shape " + shape.str());
  LayerVariables variables(context, keys.variables, "factorization_machine");
  const NodeId factors = variables.weights("factors", {shape[1], keys.factors}, shape[1]);
  LayerInfo info;
  info.scope = variables.scope();
  info.output = ops::factorization_machine(context.graph, context.input(), factors,
                                           context.op("factorization_machine"));
  info.text = fmt::format("{}: factorization_machine of {} features, {} factors, {}", info.scope, shape[1],
                          keys.factors, variables.text());
  return info;
}

}  // namespace

void add_feature_layers(LayerRegistry& registry) {
  registry.add(
      {"cross",
       "products of features: x0 * (x W + b) + x, for inputs: [x0, x], or x0 = x for one input (deep & "
       "cross network v2); inputs of higher rank are flattened",
       build_cross, describe_keys<CrossKeys>});
  registry.add(
      {"factorization_machine",
       "second-order term, [1]: the sum over pairs i < j of <v_i, v_j> x_i x_j for features [width], or "
       "of <x_i, x_j> for embedded fields [fields, units] or several inputs [units]; bags of ids are "
       "features whose values are the weights",
       build_factorization_machine, describe_keys<FactorizationKeys>});
}

}  // namespace varscope
