#include "worker/layers/built_in.h"
#include "worker/layers/layer_variables.h"
#include "worker/layers/table_keys.h"
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
  IdKeys ids;
  std::int64_t units = 0;
  OptionalCombiner combiner;
  void describe(Keys& keys) {
    variables.describe(keys);
    ids.describe(keys, "number of ids: 0 .. vocabulary - 1");
    keys.required_key("units", units, "numbers of one id", {.min = 1, .max = 1 << 20});
    keys.choice(
        "combiner", combiner, kCombiners,
        "of bags, which are inputs: [ids, offsets] or [ids, offsets, weights]: the rows of a bag are "
        "added; mean divides by the sum of the weights (or by how many ids there are), sqrtn by the "
        "root of the sum of their squares. none: a row for each id. Of a table, ids [n] of each sample "
        "are a bag, too");
  }
};

// A bag is two or three inputs; anything else has a row for each id, but of a table's ids [?, n] may be bags.
void check_embedding_inputs(const LayerContext& context, const EmbeddingKeys& keys) {
  keys.ids.check(context);
  if (!keys.ids.table && keys.ids.vocabulary == 0) {
    context.fail_key(
        "vocabulary",
        "missing; the layer needs this key (an integer: number of ids), or table, for ids of any "
        "number");
  }
  const std::size_t n = context.inputs.size();
  const bool ragged = context.shape().has(Shape::kRagged);
  if (n == 1 && !ragged) {
    if (!keys.combiner || (keys.ids.table && context.shape().rank() == 2)) return;
    context.fail_key("combiner",
                     fmt::format("is for bags: inputs: [ids, offsets] or [ids, offsets, weights]{}. The ids "
                                 "here have shape {}",
                                 keys.ids.table ? ", or ids [?, n]" : "", context.shape().str()));
  }
  if (n > 3 && ragged) {
    context.fail_key("inputs",
                     "embedding takes one bag, and these are several: give each a layer of its own; "
                     "with reuse they share rows");
  }
  if (n != 2 && n != 3) {
    context.fail_key("inputs", fmt::format("embedding takes ids, or a bag: [ids, offsets] or [ids, offsets, "
                                           "weights]; got {} input{}{}",
                                           n, n == 1 ? "" : "s", ragged ? " of a bag" : ""));
  }
  if (!keys.combiner) context.fail_key("combiner", "missing; a bag of ids needs one: sum, mean or sqrtn");
}

struct EmbeddingIds {
  NodeId table, ids;
  std::optional<NodeId> offsets = {}, weights = {};
};

EmbeddingIds embedding_ids(const LayerContext& context, LayerVariables& variables,
                           const EmbeddingKeys& keys) {
  const std::vector<NodeId>& in = context.inputs;
  if (!keys.ids.table) {
    EmbeddingIds found{variables.table("embeddings", keys.ids.vocabulary, keys.units), in[0]};
    if (in.size() > 1) found.offsets = in[1];
    if (in.size() > 2) found.weights = in[2];
    return found;
  }
  const bool positive = keys.combiner && *keys.combiner != ops::Combiner::sum;
  const TableLookup& lookup = look_up_rows(context, variables, keys.ids, "embeddings", keys.units,
                                           {keys.combiner.has_value(), positive});
  return {context.graph.variable(*lookup.table), lookup.positions, lookup.offsets, lookup.weights};
}

LayerInfo build_embedding(const LayerContext& context) {
  const auto keys = read_keys<EmbeddingKeys>(context);
  check_embedding_inputs(context, keys);
  LayerVariables variables(context, keys.variables, "embedding");
  const EmbeddingIds in = embedding_ids(context, variables, keys);
  LayerInfo info;
  info.scope = variables.scope();
  info.output = keys.combiner ? ops::embedding_bag(context.graph, in.table, in.ids, *in.offsets, in.weights,
                                                   *keys.combiner, context.op("embedding_bag"))
                              : ops::embedding(context.graph, in.table, in.ids, context.op("embedding"));
  info.text =
      fmt::format("{}: embedding {} -> {}{}, {}", info.scope,
                  keys.ids.table ? table_text(keys.ids) : std::to_string(keys.ids.vocabulary), keys.units,
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
