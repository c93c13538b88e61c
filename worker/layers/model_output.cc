#include "worker/layers/model_output.h"

#include "worker/ops/losses.h"
#include "worker/ops/metrics.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

// At `units` of the last layer that has it, else at the last layer.
[[noreturn]] void fail_output(const JobConfig& config, const std::string& text) {
  const auto& layers = config.model.layers.items;
  for (std::size_t i = layers.size(); i-- > 0;) {
    const ConfigNode* units = layers[i].find("units");
    if (units == nullptr) continue;
    fail_at(*units, config.file, fmt::format("model.layers.{}.units", i), text);
  }
  fail_at(layers.back(), config.file, fmt::format("model.layers.{}", layers.size() - 1), text);
}

void check_rank(const JobConfig& config, const Shape& output, const DataFacts& data) {
  if (output.rank() == data.label_shape.rank() + 2) return;
  if (data.label_shape.rank() == 0) {
    fail_output(
        config,
        fmt::format("the last layer yields shape {}, the loss needs [?, k]; add a flatten or dense layer",
                    output.str()));
  }
  fail_output(
      config,
      fmt::format("the last layer yields shape {}, the loss needs [?, {}, k], one row for each label; "
                  "give the dense layer each_step: true",
                  output.str(), data.label_shape[0]));
}

void check_labels(const JobConfig& config, const Shape& output, const DataFacts& data) {
  check_rank(config, output, data);
  const std::int64_t units = output[output.rank() - 1], classes = data.n_classes;
  const char* loss = choice_name(kLossTypes, config.model.loss.type);
  switch (config.model.loss.type) {
    case LossType::softmax_cross_entropy: {
      if (units != classes) {
        fail_output(
            config,
            fmt::format("the last layer has {} outputs, but the data has {} classes; loss {} needs one "
                        "output per class",
                        units, classes, loss));
      }
      const std::size_t n = config.model.loss.class_weights.size();
      if (n == 0 || n == static_cast<std::size_t>(classes)) return;
      fail_at(*config.model.loss_node.find("class_weights"), config.file, "model.loss.class_weights",
              fmt::format("{} weights for {} classes; give one for each", n, classes));
    }
    case LossType::sigmoid_cross_entropy:
      if (units != 1)
        fail_output(config, fmt::format("the last layer has {} outputs; loss {} needs 1", units, loss));
      if (classes > 2) {
        fail_output(config,
                    fmt::format("the data has {} classes; loss sigmoid_cross_entropy tells 2 apart. Use "
                                "softmax_cross_entropy with {} outputs",
                                classes, classes));
      }
      return;
    case LossType::mean_squared_error:
    case LossType::absolute_error:
      if (units == classes || units == 1) return;
      fail_output(config,
                  fmt::format("the last layer has {} outputs, but the data has {} classes; loss {} needs one "
                              "output per class, or 1",
                              units, classes, loss));
  }
}

// The samples themselves, in the output's shape.
NodeId input_as_target(Model& model, const JobConfig& config) {
  Graph& g = model.graph;
  if (config.model.loss.type == LossType::softmax_cross_entropy) {
    fail_at(
        config.model.loss_node, config.file, "model.loss",
        "softmax_cross_entropy needs labels; with target: input use mean_squared_error, absolute_error or "
        "sigmoid_cross_entropy");
  }
  const auto elements = [](const Shape& s) { return with_batch(s, 1).n_elements(); };
  const Shape in = g.node(model.x).type.shape, out = g.node(model.output).type.shape;
  if (g.node(model.x).type.dtype != g.node(model.output).type.dtype || elements(in) != elements(out)) {
    fail_output(
        config,
        fmt::format("the last layer yields {}, the input is {}: with target: input both must have the "
                    "same elements",
                    g.node(model.output).type.str(), g.node(model.x).type.str()));
  }
  return in == out ? model.x : ops::reshape(g, model.x, out, {"target", ""});
}

NodeId add_loss(Graph& graph, const LossConfig& loss, NodeId output, NodeId target) {
  switch (loss.type) {
    case LossType::softmax_cross_entropy:
      return ops::softmax_cross_entropy(
          graph, output, target, ops::SoftmaxCrossEntropyOptions{loss.label_smoothing, loss.class_weights},
          {"loss", ""});
    case LossType::sigmoid_cross_entropy:
      return ops::sigmoid_cross_entropy(
          graph, output, target, ops::SigmoidCrossEntropyOptions{loss.label_smoothing, loss.positive_weight},
          {"loss", ""});
    case LossType::mean_squared_error:
      return ops::mean_squared_error(graph, output, target, {"loss", ""});
    case LossType::absolute_error:
      return ops::absolute_error(graph, output, target, {"loss", ""});
  }
  fail(ErrorKind::config, "loss {} does not exist", static_cast<int>(loss.type));
}

// The trainer divides the loss by samples * loss_divisor, so that each sample's share of a regularization
// loss counts so many times.
void add_regularization(Model& model, const VariableStore& store) {
  const auto targets = static_cast<double>(model.loss_divisor);
  for (const RegularizationLoss& r : store.regularization_losses()) {
    const NodeId w = model.graph.variable(*r.variable);
    const NodeId term =
        ops::regularization_loss(model.graph, w, r.regularizer.l1_factor * targets,
                                 r.regularizer.l2_factor * targets, model.x, {r.name, r.variable->made_at()});
    model.loss = ops::add(model.graph, model.loss, term, {"loss", ""});
  }
}

// What is compared with the target itself: with a sigmoid loss the outputs are logits.
NodeId probabilities(Model& model, const JobConfig& config) {
  if (config.model.loss.type != LossType::sigmoid_cross_entropy) return model.output;
  return ops::activation(model.graph, Activation::sigmoid, model.output, {"probabilities", ""});
}

NodeId add_metric(Model& model, const MetricSpec& metric, NodeId target, const JobConfig& config) {
  Graph& g = model.graph;
  const NodeOptions name{metric.name, ""};
  switch (metric.type) {
    case MetricType::accuracy:
      return ops::correct_count(g, model.output, target, name);
    case MetricType::top_k:
      return ops::top_k_count(g, model.output, target, metric.k, name);
    case MetricType::auc:
      return ops::score_histogram(g, model.output, target, name);
    case MetricType::precision:
    case MetricType::recall:
    case MetricType::confusion_matrix:
      return ops::confusion_matrix(g, model.output, target, name);
    case MetricType::rmse:
      return ops::squared_error_sum(g, probabilities(model, config), target, name);
    case MetricType::log_loss:
    case MetricType::perplexity:
      return ops::log_loss_sum(g, model.output, target, name);
  }
  fail(ErrorKind::config, "metric {} does not exist", metric.name);
}

}  // namespace

void add_output(Model& model, const VariableStore& store, const JobConfig& config, const DataFacts& data) {
  const bool labels = config.model.target == TargetType::labels;
  const Shape output = model.graph.node(model.output).type.shape;
  if (labels) check_labels(config, output, data);
  const NodeId target = labels ? model.y : input_as_target(model, config);
  model.targets_per_sample = labels ? data.label_shape.n_elements() : 1;
  model.loss_divisor = config.model.loss.sum_over_steps ? 1 : model.targets_per_sample;
  model.loss = add_loss(model.graph, config.model.loss, model.output, target);
  if (labels) model.correct = ops::correct_count(model.graph, model.output, model.y, {"correct", ""});
  model.metrics = metrics_of(config, model.targets_per_sample);
  if (model.mode == GraphMode::train) return add_regularization(model, store);
  for (const MetricSpec& m : model.metrics)
    model.metric_nodes.push_back(add_metric(model, m, target, config));
}

}  // namespace varscope
