#include "worker/layers/model_output.h"

#include "common/config/source_keys.h"
#include "worker/ops/losses.h"
#include "worker/ops/metric_ops.h"
#include "worker/ops/ops.h"

namespace varscope {

Place find_layer(const ConfigNode& layers, const std::string& path, const std::string& made_at,
                 const std::string& file) {
  for (std::size_t i = 0; i < layers.items.size(); ++i) {
    const ConfigNode& item = layers.items[i];
    const std::string item_path = fmt::format("{}.{}", path, i);
    if (position_of(item.mark, file) == made_at + ": ") return {&item, item_path};
    const ConfigNode* inner = item.find("layers");
    if (inner == nullptr) continue;
    Place found = find_layer(*inner, item_path + ".layers", made_at, file);
    if (found.node != nullptr) return found;
  }
  return {};
}

namespace {

// At `units` of the layer that yields the output, else at that layer.
[[noreturn]] void fail_output(const Model& model, const JobConfig& config, const std::string& text) {
  const std::string& made_at = model.graph.node(model.output).made_at;
  const ConfigNode& layers = config.model.layers;
  Place place = find_layer(layers, "model.layers", made_at, config.file);
  if (place.node == nullptr)
    place = {&layers.items.back(), fmt::format("model.layers.{}", layers.items.size() - 1)};
  const ConfigNode* units = place.node->find("units");
  if (units != nullptr) fail_at(*units, config.file, place.path + ".units", text);
  fail_at(*place.node, config.file, place.path, text);
}

void check_rank(const Model& model, const JobConfig& config, const Shape& output, const DataFacts& data) {
  if (output.rank() == data.label_shape.rank() + 2) return;
  if (data.label_shape.rank() == 0) {
    fail_output(
        model, config,
        fmt::format("the last layer yields shape {}, the loss needs [?, k]; add a flatten or dense layer",
                    output.str()));
  }
  fail_output(
      model, config,
      fmt::format("the last layer yields shape {}, the loss needs [?, {}, k], one row for each label; "
                  "give the dense layer each_step: true",
                  output.str(), data.label_shape[0]));
}

// What numbers are compared with: as many outputs, and a loss of differences.
void check_numbers(const Model& model, const JobConfig& config, const Shape& output, const DataFacts& data) {
  const LossType loss = config.model.loss.type;
  if (loss == LossType::softmax_cross_entropy || loss == LossType::sigmoid_cross_entropy) {
    fail_at(config.model.loss_node, config.file, "model.loss",
            fmt::format("the labels are numbers, and {} is for classes; use mean_squared_error, "
                        "absolute_error, huber or poisson, or label type: class",
                        choice_name(kLossTypes, loss)));
  }
  if (output == batched(data.label_shape, Shape::kUnknown)) return;
  fail_output(
      model, config,
      fmt::format("the last layer yields shape {}, but the samples have {} numbers to be answered with: "
                  "give it units: {}",
                  output.str(), data.label_shape.n_elements(), data.label_shape.n_elements()));
}

// A table's label is a class unless its config says otherwise.
const char* number_hint(const JobConfig& config) {
  const auto* csv = config.data.train.get<CsvSource>();
  const auto* libsvm = config.data.train.get<LibsvmSource>();
  if (csv != nullptr) return "; a label that is a number to estimate has type: number in the schema";
  return libsvm != nullptr ? "; a label that is a number to estimate is said so: label: number" : "";
}

void check_labels(const Model& model, const JobConfig& config, const Shape& output, const DataFacts& data) {
  check_rank(model, config, output, data);
  const std::int64_t units = output[output.rank() - 1], classes = data.n_classes;
  const char* loss = choice_name(kLossTypes, config.model.loss.type);
  switch (config.model.loss.type) {
    case LossType::softmax_cross_entropy: {
      if (units < classes || (data.exact_classes && units != classes)) {
        fail_output(
            model, config,
            fmt::format("the last layer has {} outputs, but the data has {} classes; loss {} needs one "
                        "output per class{}",
                        units, classes, loss, number_hint(config)));
      }
      const std::size_t n = config.model.loss.class_weights.size();
      if (n == 0 || n == static_cast<std::size_t>(units)) return;
      fail_at(*config.model.loss_node.find("class_weights"), config.file, "model.loss.class_weights",
              fmt::format("{} weights for {} classes; give one for each", n, units));
    }
    case LossType::sigmoid_cross_entropy:
      if (units != 1)
        fail_output(model, config,
                    fmt::format("the last layer has {} outputs; loss {} needs 1", units, loss));
      if (classes > 2) {
        fail_output(model, config,
                    fmt::format("the data has {} classes; loss sigmoid_cross_entropy is for 2. Use "
                                "softmax_cross_entropy with {} outputs{}",
                                classes, classes, number_hint(config)));
      }
      return;
    case LossType::poisson:
      if (units == 1) return;
      fail_output(
          model, config,
          fmt::format("the last layer has {} outputs; loss {} needs 1, the logarithm of the count that is "
                      "expected",
                      units, loss));
    case LossType::mean_squared_error:
    case LossType::absolute_error:
    case LossType::huber:
      if (units == classes || units == 1 || (units > classes && !data.exact_classes)) return;
      fail_output(model, config,
                  fmt::format("the last layer has {} outputs, but the data has {} classes; loss {} needs one "
                              "output per class, or 1",
                              units, classes, loss));
  }
}

// The samples themselves, in the output's shape.
NodeId input_as_target(Model& model, const JobConfig& config) {
  Graph& g = model.graph;
  if (config.model.loss.type == LossType::softmax_cross_entropy) {
    fail_at(config.model.loss_node, config.file, "model.loss",
            "softmax_cross_entropy needs labels; with target: input use "
            "mean_squared_error, absolute_error, huber, poisson or sigmoid_cross_entropy");
  }
  const auto elements = [](const Shape& s) { return with_batch(s, 1).n_elements(); };
  const Shape in = g.node(model.x).type.shape, out = g.node(model.output).type.shape;
  if (g.node(model.x).type.dtype != g.node(model.output).type.dtype || in.has(Shape::kRagged) ||
      elements(in) != elements(out)) {
    fail_output(model, config,
                fmt::format("the last layer yields {}, the input is {}: with target: input both "
                            "must have the same elements",
                            g.node(model.output).type.str(), g.node(model.x).type.str()));
  }
  return in == out ? model.x : ops::reshape(g, model.x, out, {"target", ""});
}

NodeId add_loss(Graph& graph, const LossConfig& loss, NodeId output, NodeId target, ops::WeightsOf weights) {
  switch (loss.type) {
    case LossType::softmax_cross_entropy:
      return ops::softmax_cross_entropy(
          graph, output, target, ops::SoftmaxCrossEntropyOptions{loss.label_smoothing, loss.class_weights},
          {"loss", ""}, weights);
    case LossType::sigmoid_cross_entropy:
      return ops::sigmoid_cross_entropy(
          graph, output, target,
          ops::SigmoidCrossEntropyOptions{loss.label_smoothing, loss.positive_weight, loss.reduction},
          {"loss", ""}, weights);
    case LossType::mean_squared_error:
      return ops::mean_squared_error(graph, output, target, loss.reduction, {"loss", ""}, weights);
    case LossType::absolute_error:
      return ops::absolute_error(graph, output, target, loss.reduction, {"loss", ""}, weights);
    case LossType::huber:
      return ops::huber(graph, output, target, ops::HuberOptions{loss.delta, loss.reduction}, {"loss", ""},
                        weights);
    case LossType::poisson:
      return ops::poisson(graph, output, target, loss.reduction, {"loss", ""}, weights);
  }
  fail(ErrorKind::config, "loss {} does not exist", static_cast<int>(loss.type));
}

// The trainer divides the loss by samples * loss_divisor, so that each sample's share of a regularization
// loss counts so many times.
void add_regularization(Model& model, const VariableStore& store) {
  const auto targets = static_cast<double>(model.loss_divisor);
  const bool is_bag = model.graph.node(model.x).type.shape.has(Shape::kRagged);
  const NodeId rows = model.weights ? *model.weights : is_bag ? model.y : model.x;
  for (const RegularizationLoss& r : store.regularization_losses()) {
    const NodeId w = model.graph.variable(*r.variable);
    const NodeId term = ops::regularization_loss(
        model.graph, w, r.regularizer.l1_factor * targets, r.regularizer.l2_factor * targets, rows,
        {r.name, r.variable->made_at()}, model.weights ? ops::PenaltyTimes::sum : ops::PenaltyTimes::extent);
    model.penalties.push_back(term);
    model.loss = ops::add(model.graph, model.loss, term, {"loss", ""});
  }
}

// What is compared with the target itself: with a sigmoid loss the outputs are logits, with poisson
// logarithms.
NodeId predictions(Model& model, const JobConfig& config) {
  if (config.model.loss.type == LossType::poisson)
    return ops::exponential(model.graph, model.output, {"predictions", ""});
  if (config.model.loss.type != LossType::sigmoid_cross_entropy) return model.output;
  return ops::activation(model.graph, Activation::sigmoid, model.output, {"probabilities", ""});
}

// Over all elements of the output. Labels stand for themselves or for one-hot rows, as in the loss.
NodeId squared_errors(Model& model, NodeId target, const JobConfig& config, const NodeOptions& name) {
  Graph& g = model.graph;
  const NodeId output = predictions(model, config);
  if (g.node(target).type.dtype != DType::int32)
    return ops::squared_error_sum(g, output, target, name, model.weights);
  return ops::mean_squared_error(g, output, target, Reduction::sum, name, model.weights);
}

// Whether the output's logits say which class an answer is.
bool answers_classes(const Model& model, const JobConfig& config, const DataFacts& data) {
  const Shape& output = model.graph.node(model.output).type.shape;
  const LossType loss = config.model.loss.type;
  const bool logits = loss == LossType::softmax_cross_entropy || loss == LossType::sigmoid_cross_entropy;
  return config.model.target == TargetType::labels && data.target == Target::classes &&
         (logits || output[output.rank() - 1] > 1) && (output[output.rank() - 1] > 1 || data.n_classes <= 2);
}

constexpr std::int64_t kMaxMatrixClasses = 1000;

// At the metric in the config, if it is written there.
[[noreturn]] void fail_metric(const JobConfig& config, std::size_t i, const std::string& text) {
  const std::string path = fmt::format("train.metrics.{}", i);
  const ConfigNode* node = config.root.find_path(path);
  fail_at(node != nullptr ? *node : config.model.loss_node, config.file, path, text);
}

void check_metric(const Model& model, const JobConfig& config, const DataFacts& data, std::size_t i) {
  const MetricSpec& m = model.metrics[i];
  const Shape& output = model.graph.node(model.output).type.shape;
  const std::int64_t k = output[output.rank() - 1];
  const bool of_numbers = m.type == MetricType::rmse || m.type == MetricType::mae || m.type == MetricType::r2;
  const bool of_logits = m.type == MetricType::log_loss || m.type == MetricType::perplexity;
  if (!of_numbers && !of_logits && !answers_classes(model, config, data)) {
    fail_metric(
        config, i,
        fmt::format("metric \"{}\" needs outputs that answer with a class: one for each class, or one "
                    "logit of sigmoid_cross_entropy",
                    m.name));
  }
  if (m.type == MetricType::top_k && (k == 1 || m.k > k))
    fail_metric(config, i,
                fmt::format("metric \"{}\": the model has {} output{}", m.name, k, k == 1 ? "" : "s"));
  const bool matrix = m.type == MetricType::confusion_matrix || m.type == MetricType::precision ||
                      m.type == MetricType::recall;
  const std::int64_t elements = model.evaluation_spec().elements_per_target;
  if (m.type == MetricType::r2 && elements > kMaxR2Elements) {
    fail_metric(
        config, i,
        fmt::format("metric \"r2\" has sums for each element of a target; {} are more than the {} it is made "
                    "for. Use rmse or mae",
                    elements, kMaxR2Elements));
  }
  if (matrix && k > kMaxMatrixClasses) {
    fail_metric(config, i,
                fmt::format("metric \"{}\" counts classes by classes; {} classes are more than the "
                            "{} it is made for",
                            m.name, k, kMaxMatrixClasses));
  }
}

NodeId add_metric(Model& model, const MetricSpec& metric, NodeId target, const JobConfig& config) {
  Graph& g = model.graph;
  const NodeOptions name{metric.name, ""};
  switch (metric.type) {
    case MetricType::accuracy:
      return ops::correct_count(g, model.output, target, name, model.weights);
    case MetricType::top_k:
      return ops::top_k_count(g, model.output, target, metric.k, name, model.weights);
    case MetricType::auc:
      return ops::scored_labels(g, model.output, target, name, model.weights);
    case MetricType::precision:
    case MetricType::recall:
    case MetricType::confusion_matrix:
      return ops::confusion_matrix(g, model.output, target, name, model.weights);
    case MetricType::rmse:
      return squared_errors(model, target, config, name);
    case MetricType::mae:
      return ops::absolute_error(g, predictions(model, config), target, Reduction::sum, name, model.weights);
    case MetricType::r2:
      return ops::r2_sums(g, predictions(model, config), target, name, model.weights);
    case MetricType::log_loss:
    case MetricType::perplexity:
      return ops::log_loss_sum(g, model.output, target, name, model.weights);
  }
  fail(ErrorKind::config, "metric {} does not exist", metric.name);
}

}  // namespace

void add_output(Model& model, const VariableStore& store, const JobConfig& config, const DataFacts& data) {
  const bool labels = config.model.target == TargetType::labels;
  const Shape output = model.graph.node(model.output).type.shape;
  const bool numbers = labels && data.target == Target::numbers;
  if (numbers) {
    check_numbers(model, config, output, data);
  } else if (labels) {
    check_labels(model, config, output, data);
  }
  const NodeId target = labels ? model.y : input_as_target(model, config);
  model.targets_per_sample = labels && !numbers ? data.label_shape.n_elements() : 1;
  model.loss_divisor = config.model.loss.sum_over_steps ? 1 : model.targets_per_sample;
  model.loss = add_loss(model.graph, config.model.loss, model.output, target, model.weights);
  const bool classes = answers_classes(model, config, data);
  if (classes)
    model.correct = ops::correct_count(model.graph, model.output, model.y, {"correct", ""}, model.weights);
  model.metrics = metrics_of(config, model.targets_per_sample);
  if (config.train.metrics.empty() && !classes) model.metrics = {{MetricType::rmse, 0, "rmse"}};
  for (std::size_t i = 0; i < model.metrics.size(); ++i) check_metric(model, config, data, i);
  if (model.mode == GraphMode::train) return add_regularization(model, store);
  for (const MetricSpec& m : model.metrics)
    model.metric_nodes.push_back(add_metric(model, m, target, config));
}

}  // namespace varscope
