#include "worker/layers/model.h"

#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "worker/layers/model_output.h"
#include "worker/layers/model_tree.h"
#include "worker/layers/scope_config.h"

namespace varscope {
namespace {

Shape batched(const Shape& sample) {
  std::vector<std::int64_t> dims{Shape::kUnknown};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return Shape(std::move(dims));
}

ScopeOptions root_options(const JobConfig& config, GraphMode mode) {
  ScopeKeys keys;
  keys.initializer = config.model.initializer;
  keys.regularizer = config.model.regularizer;
  keys.constraint = config.model.constraint;
  keys.partitioner = config.model.partitioner;
  ScopeOptions options = keys.options(config.file, "model");
  options.dtype = config.model.dtype;
  if (mode == GraphMode::evaluate) options.reuse = Reuse::yes;
  return options;
}

// An id that no row of the table stands for would be met in the middle of a run.
void check_embeddings(const Model& model, const DataFacts& data) {
  for (std::size_t i = 0; i < model.graph.size(); ++i) {
    const Graph::Node& node = model.graph.node(NodeId(static_cast<int>(i)));
    if (node.kind != Graph::Kind::op || std::string_view(node.op->type()) != "embedding") continue;
    const std::int64_t rows = model.graph.node(node.inputs[0]).type.shape[0];
    if (node.inputs[1] != model.x || rows >= data.n_classes) continue;
    fail(ErrorKind::config, "{}: node \"{}\" has rows for {} ids, but the samples have {} (their vocabulary)",
         node.made_at, node.name, rows, data.n_classes);
  }
}

}  // namespace

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
  std::string text = fmt::format("x: {}\n", graph.node(x).type.str());
  for (const LayerInfo& layer : layers) text += layer.text + "\n";
  return text + fmt::format("loss: {}\n", graph.node(loss).op->type());
}

EvaluationSpec Model::evaluation_spec() const {
  const Shape& shape = graph.node(output).type.shape;
  return {metrics, shape[shape.rank() - 1], with_batch(shape, 1).n_elements() / targets_per_sample,
          targets_per_sample, correct.has_value()};
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
  const DType dtype = data.features == Features::ids ? DType::int32 : config.model.dtype;
  model.x = model.graph.placeholder("x", dtype, batched(data.sample_shape));
  model.y = model.graph.placeholder("y", Dataset::kLabelDType, batched(data.label_shape));
  const VariableScope root = store.reenter("", root_options(config, mode));
  ModelTree tree(model.graph, store, config, mode, registry);
  model.output = tree.build(model.x);
  model.layers = tree.take_layers();
  check_embeddings(model, data);
  add_output(model, store, config, data);
  return model;
}

Model build_model(VariableStore& store, const JobConfig& config, const DataFacts& data, GraphMode mode) {
  return build_model(store, config, data, mode, LayerRegistry::built_in());
}

}  // namespace varscope
