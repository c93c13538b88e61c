#include "worker/layers/model.h"

#include <map>
#include <utility>

#include "worker/ops/ops.h"

namespace varscope {
namespace {

constexpr const char* kLayersPath = "model.layers";

// Messages of scopes and variables know no YAML; they get the layer's position here.
LayerInfo build_layer(const LayerType& type, const LayerContext& context) {
  try {
    return type.build(context);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::argument) throw;
    fail_at(context.node, context.file, context.path, e.what(), e.where());
  }
}

// At `units` of the last layer that has it, else at the last layer.
[[noreturn]] void fail_output(const JobConfig& config, const std::string& text) {
  const auto& layers = config.model.layers.items;
  for (std::size_t i = layers.size(); i-- > 0;) {
    const ConfigNode* units = layers[i].find("units");
    if (units == nullptr) continue;
    fail_at(*units, config.file, fmt::format("{}.{}.units", kLayersPath, i), text);
  }
  fail_at(layers.back(), config.file, fmt::format("{}.{}", kLayersPath, layers.size() - 1), text);
}

void check_output(const JobConfig& config, const Shape& logits, std::int64_t n_classes) {
  if (logits.rank() != 2) {
    fail_output(
        config,
        fmt::format("the last layer yields shape {}, the loss needs [?, k]; add a flatten or dense layer",
                    logits.str()));
  }
  const std::int64_t units = logits[1];
  switch (config.model.loss) {
    case LossType::softmax_cross_entropy:
      if (units == n_classes) return;
      fail_output(config, fmt::format("the last layer has {} outputs, but the data has {} classes; loss "
                                      "softmax_cross_entropy needs one output per class",
                                      units, n_classes));
    case LossType::sigmoid_cross_entropy:
      if (units != 1) {
        fail_output(config,
                    fmt::format("the last layer has {} outputs; loss sigmoid_cross_entropy needs 1", units));
      }
      if (n_classes > 2) {
        fail_output(config,
                    fmt::format("the data has {} classes; loss sigmoid_cross_entropy tells 2 apart. Use "
                                "softmax_cross_entropy with {} outputs",
                                n_classes, n_classes));
      }
      return;
    case LossType::mean_squared_error:
      if (units == n_classes || units == 1) return;
      fail_output(config, fmt::format("the last layer has {} outputs, but the data has {} classes; loss "
                                      "mean_squared_error needs one output per class, or 1",
                                      units, n_classes));
  }
}

NodeId add_loss(Graph& graph, LossType type, NodeId logits, NodeId y) {
  switch (type) {
    case LossType::softmax_cross_entropy:
      return ops::softmax_cross_entropy(graph, logits, y, {"loss", ""});
    case LossType::sigmoid_cross_entropy:
      return ops::sigmoid_cross_entropy(graph, logits, y, {"loss", ""});
    case LossType::mean_squared_error:
      return ops::mean_squared_error(graph, logits, y, {"loss", ""});
  }
  fail(ErrorKind::config, "loss {} does not exist", static_cast<int>(type));
}

Shape batched(const Shape& sample) {
  std::vector<std::int64_t> dims{Shape::kUnknown};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return Shape(std::move(dims));
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

Model build_model(VariableStore& store, const JobConfig& config, const Shape& sample_shape,
                  std::int64_t n_classes) {
  Model model;
  model.x = model.graph.placeholder("x", config.model.dtype, batched(sample_shape));
  model.y = model.graph.placeholder("y", DType::int32, Shape{Shape::kUnknown});
  NodeId output = model.x;
  std::map<std::string, int> count;
  for (std::size_t i = 0; i < config.model.layers.items.size(); ++i) {
    const ConfigNode& node = config.model.layers.items[i];
    const std::string path = fmt::format("{}.{}", kLayersPath, i);
    const LayerType& type = find_layer_type(node, config.file, path);
    const LayerContext context{model.graph,
                               store,
                               output,
                               config.model.dtype,
                               node,
                               config.file,
                               path,
                               config.model.initializer,
                               "model.initializer",
                               ++count[type.name]};
    model.layers.push_back(build_layer(type, context));
    output = model.layers.back().output;
  }
  model.logits = output;
  check_output(config, model.graph.node(output).type.shape, n_classes);
  model.loss = add_loss(model.graph, config.model.loss, model.logits, model.y);
  model.correct = ops::correct_count(model.graph, model.logits, model.y, {"correct", ""});
  return model;
}

}  // namespace varscope
