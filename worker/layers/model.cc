#include "worker/layers/model.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "worker/layers/model_output.h"
#include "worker/layers/model_tree.h"
#include "worker/layers/scope_config.h"

namespace varscope {
namespace {

ScopeOptions root_options(const JobConfig& config, GraphMode mode) {
  ScopeKeys keys;
  keys.initializer = config.model.initializer;
  keys.regularizer = config.model.regularizer;
  keys.constraint = config.model.constraint;
  keys.partitioner = config.model.partitioner;
  keys.compression = config.model.compression;
  ScopeOptions options = keys.options(config.file, "model");
  options.dtype = config.model.dtype;
  if (mode == GraphMode::evaluate) options.reuse = Reuse::yes;
  return options;
}

[[noreturn]] void refuse_compression(const Variable& v, const std::string& why) {
  const Compression& c = v.spec().compression;
  const std::string at = c.made_at.empty() ? v.made_at() + ": " : c.made_at;
  fail(ErrorKind::config, "{}{} (of variable \"{}\"): {}", at, c.str(), v.name(), why);
}

// What a compression does not go with.
void check_compression(const VariableStore& store, const JobConfig& config) {
  const OptimizerType optimizer = config.optimizer.type;
  const bool is_adaptive = optimizer == OptimizerType::adam || optimizer == OptimizerType::adamw ||
                           optimizer == OptimizerType::rmsprop;
  for (const Variable* v : store.variables()) {
    const Compression& c = v->spec().compression;
    if (!c.exists()) continue;
    if (v->dtype() != DType::float32) {
      refuse_compression(
          *v, fmt::format("the variable is {}, and only float32 is compressed; say compression: none "
                          "there",
                          to_string(v->dtype())));
    }
    if (!c.has_residual()) continue;
    if (is_adaptive) {
      refuse_compression(
          *v,
          fmt::format("does not go with optimizer {}, which divides by the size of each gradient: signs and "
                      "left-out elements say nothing of it. Use bf16 or fp16, or sgd, momentum, nesterov or "
                      "adagrad",
                      choice_name(kOptimizerTypes, optimizer)));
    }
    if (config.follow() != nullptr)
      refuse_compression(*v,
                         "does not go with data.train.follow: what gradients lose is not in checkpoints, and "
                         "these may be of any step there; use bf16 or fp16");
  }
}

// An id that no row of the table stands for would be met in the middle of a run.
void check_ids(const Model& model, const std::vector<InputSpec>& inputs) {
  for (std::size_t i = 0; i < model.graph.size(); ++i) {
    const Graph::Node& node = model.graph.node(NodeId(static_cast<int>(i)));
    if (node.kind != Graph::Kind::op || node.inputs.empty()) continue;
    const bool one_hot = std::string_view(node.op->type()) == "one_hot";
    const bool bag = node.op->reads_bags();
    if (!one_hot && !bag && std::string_view(node.op->type()) != "embedding") continue;
    const auto input = std::ranges::find(model.inputs, bag ? node.inputs[1] : node.inputs.back());
    if (input == model.inputs.end()) continue;
    const InputSpec& spec = inputs[static_cast<std::size_t>(input - model.inputs.begin())];
    const Shape& shape = one_hot ? node.type.shape : model.graph.node(node.inputs[0]).type.shape;
    const std::int64_t places = one_hot ? shape[shape.rank() - 1] : shape[0];
    if (places >= spec.n_ids) continue;
    fail(ErrorKind::config, "{}: node \"{}\" has {} for {} ids, but the samples have {} (their vocabulary)",
         node.made_at, node.name, one_hot ? "columns" : "rows", places, spec.n_ids);
  }
}

// Ids of one type are other rows than those of another one.
void check_lookups(const Model& model, const std::vector<InputSpec>& inputs) {
  for (const TableLookup& lookup : model.graph.lookups()) {
    const auto input = std::ranges::find(model.inputs, lookup.ids);
    if (input == model.inputs.end()) continue;
    const InputSpec& spec = inputs[static_cast<std::size_t>(input - model.inputs.begin())];
    const IdType has = spec.features == Features::row_ids ? spec.id_type : IdType::int64;
    const IdType wanted = lookup.table->spec().table->ids;
    if (has == wanted) continue;
    fail(
        ErrorKind::config,
        "{}: table \"{}\" is asked by {} ids, but the input \"{}\" has {}: give both one type (table: {{ids: "
        "...}})",
        lookup.made_at, lookup.table->name(), to_string(wanted), spec.name,
        spec.features == Features::row_ids ? to_string(has) : "int32, which are int64 rows");
  }
}

}  // namespace

std::vector<InputSpec> DataFacts::inputs() const {
  if (!named_inputs.empty()) return named_inputs;
  return {{.shape = sample_shape, .features = features, .n_ids = features == Features::ids ? n_classes : 0}};
}

DataFacts DataFacts::of(const Dataset& data) {
  return {.sample_shape = data.sample_shape(),
          .n_classes = data.n_classes(),
          .features = data.features(),
          .label_shape = data.label_shape(),
          .exact_classes = data.knows_classes(),
          .vocabulary = data.vocabulary_digest(),
          .target = data.target(),
          .named_inputs = data.inputs(),
          .has_weights = !data.weights().empty()};
}

std::vector<std::pair<NodeId, TensorView>> Model::feeds(const BatchView& batch) const {
  std::vector<std::pair<NodeId, TensorView>> all;
  all.reserve(inputs.size() + 1);
  for (std::size_t i = 0; i < inputs.size(); ++i) all.emplace_back(inputs[i], batch.inputs[i]);
  all.emplace_back(y, batch.y);
  if (weights) all.emplace_back(*weights, batch.weights.value());
  return all;
}

std::int64_t Model::n_parameters() const {
  std::int64_t n = 0;
  for (const LayerInfo& layer : layers) n += layer.n_parameters;
  return n;
}

std::int64_t Model::flops_per_sample() const {
  std::int64_t n = 0;
  for (const LayerInfo& layer : layers) n += layer.flops_per_sample;
  return n;
}

std::string Model::explain() const {
  std::string text;
  for (const NodeId input : inputs)
    text += fmt::format("{}: {}\n", graph.node(input).name, graph.node(input).type.str());
  for (const LayerInfo& layer : layers) text += layer.text + "\n";
  return text + fmt::format("loss: {}\n", graph.node(loss).op->type());
}

EvaluationSpec Model::evaluation_spec() const {
  const Shape& shape = graph.node(output).type.shape;
  return {metrics,
          shape[shape.rank() - 1],
          with_batch(shape, 1).n_elements() / targets_per_sample,
          targets_per_sample,
          correct.has_value(),
          weights.has_value()};
}

double Model::shown_loss(double loss, double penalty) const {
  if (loss_divisor == targets_per_sample) return loss;
  return loss + penalty * (static_cast<double>(targets_per_sample) / static_cast<double>(loss_divisor) - 1);
}

std::vector<NodeId> Model::also() const {
  std::vector<NodeId> nodes = metric_nodes;
  nodes.insert(nodes.end(), penalties.begin(), penalties.end());
  if (correct) nodes.push_back(*correct);
  return nodes;
}

Model build_model(VariableStore& store, const JobConfig& config, const DataFacts& data, GraphMode mode,
                  const LayerRegistry& registry) {
  Model model;
  model.mode = mode;
  const std::vector<InputSpec> inputs = data.inputs();
  std::vector<NamedInput> named;
  for (const InputSpec& input : inputs) {
    model.inputs.push_back(model.graph.placeholder(input.name, input.dtype(config.model.dtype),
                                                   input.array_shape(Shape::kUnknown)));
    // Behind the ids of a bag stand its offsets and weights, which go with them.
    if (input.is_of_bag() && input.features != Features::ids && input.features != Features::row_ids) {
      named.back().with.push_back(model.inputs.back());
    } else {
      named.push_back({input.name, model.inputs.back()});
    }
  }
  model.x = model.inputs.front();
  const DType label = data.target == Target::classes ? Dataset::kLabelDType : config.model.dtype;
  model.y = model.graph.placeholder("y", label, batched(data.label_shape, Shape::kUnknown));
  if (data.has_weights)
    model.weights = model.graph.placeholder("weights", DType::float64, Shape{Shape::kUnknown});
  const VariableScope root = store.reenter("", root_options(config, mode));
  ModelTree tree(model.graph, store, config, mode, registry);
  model.output = tree.build(named);
  model.layers = tree.take_layers();
  check_ids(model, inputs);
  check_lookups(model, inputs);
  check_compression(store, config);
  add_output(model, store, config, data);
  return model;
}

Model build_model(VariableStore& store, const JobConfig& config, const DataFacts& data, GraphMode mode) {
  return build_model(store, config, data, mode, LayerRegistry::built_in());
}

}  // namespace varscope
