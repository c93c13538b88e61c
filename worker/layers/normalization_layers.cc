#include "common/base/hash.h"
#include "worker/layers/built_in.h"
#include "worker/layers/layer_variables.h"
#include "worker/ops/normalization.h"

namespace varscope {
namespace {

struct DropoutKeys {
  double rate = 0.5;
  void describe(Keys& keys) {
    keys.key("rate", rate, "part of the inputs that becomes 0 in training; the others grow by 1 / (1 - rate)",
             {.min = 0, .below = 1});
  }
};

LayerInfo build_dropout(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<DropoutKeys>(context);
  LayerInfo info{context.input()};
  info.text = fmt::format("dropout: rate {}{}", keys.rate,
                          context.mode == GraphMode::train ? "" : ", passes everything in evaluation");
  if (context.mode == GraphMode::evaluate) return info;
  // Its place among the layers, not its file, is what the mask depends on.
  NodeOptions op = context.op(fmt::format("dropout_{}", context.number));
  op.name = context.graph.unique_name(op.name);  // in a block that is built twice, each has masks of its own
  info.output = ops::dropout(context.graph, context.input(), keys.rate, hash64(op.name), op);
  return info;
}

struct BatchNormKeys {
  std::string scope, reuse = "no";
  std::string trainable;
  double momentum = 0.99, epsilon = 1e-3;
  void describe(Keys& keys) {
    keys.key("scope", scope,
             "scope of gamma, beta, moving_mean, moving_variance; empty means <type>_<number>");
    keys.key("reuse", reuse, "no, auto, or the scope of another such layer; not twice in one graph");
    keys.choice("trainable", trainable, {"", "true", "false"},
                "false: gamma and beta keep their first values; empty is inherited");
    keys.key("momentum", momentum, "decay of the moving averages per step", {.min = 0, .below = 1});
    keys.key("epsilon", epsilon, "added to the variance", {.above = 0});
  }
  VariableKeys variables() const {
    VariableKeys keys;
    keys.scope = scope;
    keys.reuse = reuse;
    keys.trainable = trainable;
    return keys;
  }
};

// Two updates of one moving average in one step have no order, so one layer may not normalise two inputs.
void check_used_once(const LayerContext& context, const std::string& scope) {
  const Variable* mean = context.store.find(scope + "/moving_mean");
  if (context.mode != GraphMode::train || mean == nullptr || !context.graph.find(*mean)) return;
  context.fail_key("reuse",
                   fmt::format("scope \"{}\" normalises another input of this graph already; give each input "
                               "a batch_norm of its own, or use layer_norm",
                               scope));
}

LayerInfo build_batch_norm(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<BatchNormKeys>(context);
  const VariableKeys variable_keys = keys.variables();
  LayerVariables variables(context, variable_keys, "batch_norm");
  check_used_once(context, variables.scope());
  const Shape& in = context.shape();
  if (in.rank() < 2) context.fail_key("type", "batch_norm needs a batch of rows, got " + in.str());
  const Shape width{in[in.rank() - 1]};
  const NodeId gamma = variables.other("gamma", width, Initializer::constant(1));
  const NodeId beta = variables.other("beta", width, Initializer::constant(0));
  const NodeId mean = variables.average("moving_mean", width, Initializer::constant(0), keys.momentum);
  const NodeId variance =
      variables.average("moving_variance", width, Initializer::constant(1), keys.momentum);
  LayerInfo info;
  info.scope = variables.scope();
  info.output = ops::batch_norm(
      context.graph, context.input(), gamma, beta, mean, variance, keys.epsilon,
      context.mode == GraphMode::train ? ops::BatchNormMode::train : ops::BatchNormMode::inference,
      context.op("batch_norm"));
  info.text =
      fmt::format("{}: batch_norm {}, {}", info.scope, in.str(),
                  context.mode == GraphMode::train ? "by each logical worker's rows" : "by moving averages");
  return info;
}

struct LayerNormKeys {
  std::string scope, reuse = "no";
  std::string trainable;
  double epsilon = 1e-5;
  void describe(Keys& keys) {
    keys.key("scope", scope, "scope of gamma and beta; empty means <type>_<number>");
    keys.key("reuse", reuse, "no, auto, or the scope of another such layer");
    keys.choice("trainable", trainable, {"", "true", "false"},
                "false: gamma and beta keep their first values; empty is inherited");
    keys.key("epsilon", epsilon, "added to the variance", {.above = 0});
  }
};

LayerInfo build_layer_norm(const LayerContext& context) {
  context.require_inputs(1);
  const auto keys = read_keys<LayerNormKeys>(context);
  VariableKeys variable_keys;
  variable_keys.scope = keys.scope;
  variable_keys.reuse = keys.reuse;
  variable_keys.trainable = keys.trainable;
  LayerVariables variables(context, variable_keys, "layer_norm");
  const Shape& in = context.shape();
  if (in.rank() < 2) context.fail_key("type", "layer_norm needs a batch of rows, got " + in.str());
  const Shape width{in[in.rank() - 1]};
  const NodeId gamma = variables.other("gamma", width, Initializer::constant(1));
  const NodeId beta = variables.other("beta", width, Initializer::constant(0));
  LayerInfo info;
  info.scope = variables.scope();
  info.output =
      ops::layer_norm(context.graph, context.input(), gamma, beta, keys.epsilon, context.op("layer_norm"));
  info.text = fmt::format("{}: layer_norm {}", info.scope, in.str());
  return info;
}

}  // namespace

void add_normalization_layers(LayerRegistry& registry) {
  registry.add({"dropout", "drops inputs at random in training", build_dropout, describe_keys<DropoutKeys>});
  registry.add({"batch_norm", "mean 0 and variance 1 over the batch, then gamma x + beta", build_batch_norm,
                describe_keys<BatchNormKeys>});
  registry.add({"layer_norm", "mean 0 and variance 1 over the last axis, then gamma x + beta",
                build_layer_norm, describe_keys<LayerNormKeys>});
}

}  // namespace varscope
