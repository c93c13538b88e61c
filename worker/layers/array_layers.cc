#include "worker/layers/activation_names.h"
#include "worker/layers/built_in.h"
#include "worker/ops/feature_ops.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

struct NoKeys {
  void describe(Keys&) {}
};

struct ActivationKeys {
  Activation kind = Activation::relu;
  void describe(Keys& keys) { keys.required_choice("kind", kind, kActivationNames, "the function"); }
};

struct ReshapeKeys {
  std::vector<std::int64_t> shape;
  void describe(Keys& keys) {
    keys.required_key("shape", shape, "of one sample, without the batch: [28, 28, 1]",
                      {.min = 1, .max = 1 << 30});
  }
};

struct TakeKeys {
  std::int64_t index = 0;
  void describe(Keys& keys) {
    keys.required_key("index", index, "which entry of the samples' first axis", {.min = 0, .max = 1 << 30});
  }
};

struct ConcatKeys {
  std::int64_t axis = 1;
  void describe(Keys& keys) {
    keys.key("axis", axis, "axis to join along; 0 is the batch", {.min = 1, .max = 31});
  }
};

struct OneHotKeys {
  std::int64_t depth = 0;
  void describe(Keys& keys) {
    keys.required_key("depth", depth, "number of ids: 0 .. depth - 1", {.min = 1, .max = 1 << 24});
  }
};

struct CastKeys {
  std::string dtype = "float32";
  void describe(Keys& keys) { keys.choice("dtype", dtype, {"float32", "float64"}, "of the output"); }
};

LayerInfo finish(const LayerContext& context, const char* name, NodeId output,
                 const std::string& detail = "") {
  LayerInfo info{output};
  info.text =
      fmt::format("{}: {}{}", name, context.type(output).shape.str(), detail.empty() ? "" : ", " + detail);
  return info;
}

LayerInfo build_activation(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<ActivationKeys>(context);
  const NodeId y = ops::activation(context.graph, keys.kind, context.input(), context.op("activation"));
  return finish(context, "activation", y, to_string(keys.kind));
}

LayerInfo build_flatten(const LayerContext& context) {
  context.require_inputs(1);
  read_keys<NoKeys>(context);
  return finish(context, "flatten", ops::flatten(context.graph, context.input(), context.op("flatten")));
}

LayerInfo build_softmax(const LayerContext& context) {
  context.require_inputs(1);
  read_keys<NoKeys>(context);
  return finish(context, "softmax", ops::softmax(context.graph, context.input(), context.op("softmax")));
}

LayerInfo build_reshape(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<ReshapeKeys>(context);
  std::vector<std::int64_t> dims{Shape::kUnknown};
  dims.insert(dims.end(), keys.shape.begin(), keys.shape.end());
  return finish(context, "reshape",
                ops::reshape(context.graph, context.input(), Shape(std::move(dims)), context.op("reshape")));
}

LayerInfo build_take(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<TakeKeys>(context);
  return finish(context, "take", ops::take(context.graph, context.input(), keys.index, context.op("take")),
                fmt::format("index {}", keys.index));
}

LayerInfo build_concat(const LayerContext& context) {
  const auto keys = read_keys<ConcatKeys>(context);
  return finish(
      context, "concat",
      ops::concat(context.graph, context.inputs, static_cast<int>(keys.axis), context.op("concat")));
}

LayerInfo build_cast(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<CastKeys>(context);
  return finish(context, "cast",
                ops::cast(context.graph, context.input(), dtype_from_string(keys.dtype), context.op("cast")),
                keys.dtype);
}

LayerInfo build_one_hot(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<OneHotKeys>(context);
  return finish(
      context, "one_hot",
      ops::one_hot(context.graph, context.input(), keys.depth, context.dtype(), context.op("one_hot")));
}

// A layer of two inputs without keys.
using Binary = NodeId (*)(Graph&, NodeId, NodeId, const NodeOptions&);
LayerType binary(const char* name, const char* summary, Binary op) {
  const auto build = [name, op](const LayerContext& context) {
    context.require_inputs(2);
    read_keys<NoKeys>(context);
    return finish(context, name, op(context.graph, context.inputs[0], context.inputs[1], context.op(name)));
  };
  return {name, summary, build, describe_keys<NoKeys>};
}

NodeId absolute_difference(Graph& graph, NodeId a, NodeId b, const NodeOptions& options) {
  return ops::absolute(graph, ops::subtract(graph, a, b, options), options);
}

}  // namespace

void add_array_layers(LayerRegistry& registry) {
  registry.add({"activation", "a function of each element", build_activation, describe_keys<ActivationKeys>});
  registry.add({"flatten", "all axes but the batch become one", build_flatten, describe_keys<NoKeys>});
  registry.add({"reshape", "the same elements of a sample under another shape", build_reshape,
                describe_keys<ReshapeKeys>});
  registry.add({"take", "one entry of the samples' first axis, such as one of a pair", build_take,
                describe_keys<TakeKeys>});
  registry.add({"concat", "all inputs joined along an axis", build_concat, describe_keys<ConcatKeys>});
  registry.add({"softmax", "probabilities over the last axis", build_softmax, describe_keys<NoKeys>});
  registry.add({"one_hot", "a row of zeros with a one for each id: [ids] to [ids, depth]", build_one_hot,
                describe_keys<OneHotKeys>});
  registry.add({"cast", "the same values in another dtype", build_cast, describe_keys<CastKeys>});
  registry.add(binary("add", "sum of two inputs, element by element", ops::add));
  registry.add(binary("subtract", "difference of two inputs, element by element", ops::subtract));
  registry.add(binary("multiply", "product of two inputs, element by element", ops::multiply));
  registry.add(
      binary("absolute_difference", "|a - b| of two inputs, element by element", absolute_difference));
  registry.add(
      binary("dot",
             "inner product of two inputs [n, k], row by row: [n, 1]; of [n, 1, k] and [n, m, k] the "
             "one row's with each of the m: [n, m, 1]",
             ops::dot));
}

}  // namespace varscope
