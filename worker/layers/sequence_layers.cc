#include "worker/layers/built_in.h"
#include "worker/layers/layer_variables.h"
#include "worker/ops/feature_ops.h"
#include "worker/ops/sequence_ops.h"

namespace varscope {
namespace {

using OptionalCombiner = std::optional<ops::Combiner>;
constexpr Choice<OptionalCombiner> kCombiners[] = {{std::nullopt, "none"},
                                                   {ops::Combiner::sum, "sum"},
                                                   {ops::Combiner::mean, "mean"},
                                                   {ops::Combiner::sqrtn, "sqrtn"}};

struct EmbeddingKeys {
  VariableKeys variables;
  std::int64_t vocabulary = 0, units = 0;
  OptionalCombiner combiner;
  void describe(Keys& keys) {
    variables.describe(keys);
    keys.required_key("vocabulary", vocabulary, "number of ids: 0 .. vocabulary - 1",
                      {.min = 1, .max = 1 << 30});
    keys.required_key("units", units, "numbers of one id", {.min = 1, .max = 1 << 20});
    keys.choice("combiner", combiner, kCombiners,
                "of bags, which are inputs: [ids, offsets] or [ids, offsets, weights]: the rows of a bag are "
                "added; mean divides by the sum of the weights (or by how many ids there are), sqrtn by the "
                "root of the sum of their squares. none: a row for each id");
  }
};

// A bag is two or three inputs; anything else has a row for each id.
void check_embedding_inputs(const LayerContext& context, const EmbeddingKeys& keys) {
  const std::size_t n = context.inputs.size();
  const bool ragged = context.shape().has(Shape::kRagged);
  if (n == 1 && !ragged) {
    if (!keys.combiner) return;
    context.fail_key("combiner",
                     fmt::format("is for bags: inputs: [ids, offsets] or [ids, offsets, weights]. The ids "
                                 "here have shape {}",
                                 context.shape().str()));
  }
  if (n != 2 && n != 3) {
    context.fail_key("inputs", fmt::format("embedding takes ids, or a bag: [ids, offsets] or [ids, offsets, "
                                           "weights]; got {} input{}{}",
                                           n, n == 1 ? "" : "s", ragged ? " of a bag" : ""));
  }
  if (!keys.combiner) context.fail_key("combiner", "missing; a bag of ids needs one: sum, mean or sqrtn");
}

LayerInfo build_embedding(const LayerContext& context) {
  const auto keys = read_keys<EmbeddingKeys>(context);
  check_embedding_inputs(context, keys);
  LayerVariables variables(context, keys.variables, "embedding");
  const NodeId table = variables.table("embeddings", keys.vocabulary, keys.units);
  LayerInfo info;
  info.scope = variables.scope();
  const std::vector<NodeId>& in = context.inputs;
  if (keys.combiner) {
    const std::optional<NodeId> weights = in.size() == 3 ? std::optional(in[2]) : std::nullopt;
    info.output = ops::embedding_bag(context.graph, table, in[0], in[1], weights, *keys.combiner,
                                     context.op("embedding_bag"));
  } else {
    info.output = ops::embedding(context.graph, table, context.input(), context.op("embedding"));
  }
  info.text =
      fmt::format("{}: embedding {} -> {}{}, {}", info.scope, keys.vocabulary, keys.units,
                  keys.combiner ? fmt::format(", {} of bags", choice_name(kCombiners, keys.combiner)) : "",
                  variables.text());
  return info;
}

struct RecurrentKeys {
  VariableKeys variables;
  std::int64_t units = 0;
  double forget_bias = 1;
  void describe_common(Keys& keys) {
    variables.describe(keys);
    keys.required_key("units", units, "width of the state and of the output",
                      {.unit = "units", .min = 1, .max = 1 << 20});
  }
};
struct LstmKeys : RecurrentKeys {
  void describe(Keys& keys) {
    describe_common(keys);
    keys.key("forget_bias", forget_bias, "added to the forget gate's argument");
  }
};
struct GruKeys : RecurrentKeys {
  bool reset_after = false;
  void describe(Keys& keys) {
    describe_common(keys);
    keys.key("reset_after", reset_after,
             "false: the reset gate meets the state before the candidate's product (TensorFlow 1), and the "
             "gates' bias starts at 1; true: it meets the product (PyTorch, Keras), which gets a bias of its "
             "own, and all biases start at 0");
  }
};

std::int64_t width_of_sequence(const LayerContext& context, const char* name) {
  context.require_inputs(1);
  if (context.shape().rank() != 3) {
    context.fail_key("type", fmt::format("{} needs sequences [?, steps, width], got shape {}; an "
                                         "embedding makes them of ids",
                                         name, context.shape().str()));
  }
  return context.shape()[2];
}

LayerInfo build_lstm(const LayerContext& context) {
  const auto keys = read_keys<LstmKeys>(context);
  const std::int64_t d = width_of_sequence(context, "lstm"), h = keys.units;
  LayerVariables variables(context, keys.variables, "lstm");
  const NodeId w = variables.weights("weights", {d + h, 4 * h}, d + h);
  const NodeId b = variables.other("bias", {4 * h}, Initializer::constant(0));
  LayerInfo info;
  info.scope = variables.scope();
  const NodeId h0 = variables.state("h", h, context.type(w).dtype),
               c0 = variables.state("c", h, context.type(w).dtype);
  info.output = ops::lstm(context.graph, context.input(), w, b, h0, c0, ops::LstmOptions{keys.forget_bias},
                          context.op("lstm"));
  info.text = fmt::format("{}: lstm {} -> {}, {}", info.scope, d, h, variables.text());
  return info;
}

LayerInfo build_gru(const LayerContext& context) {
  const auto keys = read_keys<GruKeys>(context);
  const std::int64_t d = width_of_sequence(context, "gru"), h = keys.units;
  LayerVariables variables(context, keys.variables, "gru");
  const NodeId gates = variables.weights("gates_weights", {d + h, 2 * h}, d + h);
  const NodeId gates_bias =
      variables.other("gates_bias", {2 * h}, Initializer::constant(keys.reset_after ? 0 : 1));
  const NodeId candidate = variables.weights("candidate_weights", {d + h, h}, d + h);
  const NodeId candidate_bias = variables.other("candidate_bias", {h}, Initializer::constant(0));
  LayerInfo info;
  info.scope = variables.scope();
  const auto state = [&] { return variables.state("h", h, context.type(gates).dtype); };
  if (keys.reset_after) {
    const NodeId recurrent_bias = variables.other("candidate_recurrent_bias", {h}, Initializer::constant(0));
    info.output = ops::gru_reset_after(context.graph, context.input(), gates, gates_bias, candidate,
                                       candidate_bias, recurrent_bias, state(), context.op("gru"));
  } else {
    info.output = ops::gru(context.graph, context.input(), gates, gates_bias, candidate, candidate_bias,
                           state(), context.op("gru"));
  }
  info.text = fmt::format("{}: gru {} -> {}{}, {}", info.scope, d, h,
                          keys.reset_after ? ", reset after the product" : "", variables.text());
  return info;
}

}  // namespace

void add_sequence_layers(LayerRegistry& registry) {
  registry.add({"embedding",
                "a row of numbers for each id, or for each bag of ids; constraints and fans are of a row",
                build_embedding, describe_keys<EmbeddingKeys>});
  registry.add({"lstm", "long short-term memory over [steps, width]; its state goes on from batch to batch",
                build_lstm, describe_keys<LstmKeys>});
  registry.add({"gru", "gated recurrent unit over [steps, width]; its state goes on from batch to batch",
                build_gru, describe_keys<GruKeys>});
}

}  // namespace varscope
