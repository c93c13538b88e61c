#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/config/job_config.h"
#include "common/metrics/metric.h"
#include "common/variables/variable_scope.h"
#include "worker/data/dataset.h"
#include "worker/graph/graph.h"
#include "worker/layers/layer.h"

namespace varscope {

// What a model must know of its data.
struct DataFacts {
  Shape sample_shape;
  std::int64_t n_classes = 0;  // labels are 0 .. n_classes - 1; 0 for numbers
  Features features = Features::real;
  Shape label_shape = {};     // of one sample
  bool exact_classes = true;  // false: a model may have more classes than these data
  Digest vocabulary = {};     // Dataset::vocabulary_digest(); zeros: not known
  Target target = Target::classes;
  std::vector<InputSpec> named_inputs = {};  // empty: one input "x" of sample_shape and features
  bool has_weights = false;                  // samples count as their weights say

  std::vector<InputSpec> inputs() const;
  static DataFacts of(const Dataset& data);
};

// A graph made from a job's `model` section, and the nodes that a trainer needs. Its variables are in the
// store that build_model was given, which must outlive it. A value; executors borrow `graph`, so move it
// before making them.
struct Model {
  GraphMode mode = GraphMode::train;
  Graph graph;
  std::vector<NodeId>
      inputs;  // placeholders of the data's inputs, [?, shape...]: model.dtype, or int32 for ids
  NodeId x;    // the first of them, or the only one
  NodeId y;    // placeholder, [?, label shape...]: int32 classes, or numbers of model.dtype
  std::optional<NodeId> weights;  // placeholder, float64 [?], where samples have weights
  NodeId output;                  // the last layer's
  NodeId loss;  // float64 scalar: SUM over the targets; in training with the regularization losses
  std::optional<NodeId>
      correct;  // int64 scalar, float64 with weights: targets answered right; none when the output is no class
  std::vector<MetricSpec> metrics;   // of evaluations
  std::vector<NodeId> metric_nodes;  // evaluation only; of each metric: int64 counts, a float64 scalar, or
                                     // scored_labels
  std::vector<NodeId> penalties;     // in training: the regularization losses, which are in `loss` too
  std::vector<LayerInfo> layers;
  std::int64_t targets_per_sample = 1;  // labels of a sample: words of a window
  std::int64_t loss_divisor = 1;        // the gradient's loss is `loss` / (samples * this)

  std::int64_t n_parameters() const;      // of all layers; shared ones count each time
  std::int64_t flops_per_sample() const;  // forward, of the layers
  std::string explain() const;            // one line per layer, and one for the loss
  EvaluationSpec evaluation_spec() const;
  // What is shown as the loss: with `penalty`, the sum of the penalties' values, each target has one penalty,
  // whatever the gradient's loss has (loss_divisor).
  double shown_loss(double loss, double penalty) const;
  // Of a batch, in the executor's words: what to feed.
  std::vector<std::pair<NodeId, TensorView>> feeds(const BatchView& batch) const;
  // What an executor computes besides the loss.
  std::vector<NodeId> also() const;
};

// Builds in the root scope of the store. In GraphMode::evaluate the variables must exist: build the training
// graph first. Throws Error(config) at the position in the YAML file: an unknown layer type or key, variables
// that clash, shapes that do not fit each other, or a last layer that does not fit the labels.
Model build_model(VariableStore& store, const JobConfig& config, const DataFacts& data, GraphMode mode,
                  const LayerRegistry& registry);
// With the built-in layers.
Model build_model(VariableStore& store, const JobConfig& config, const DataFacts& data,
                  GraphMode mode = GraphMode::train);

}  // namespace varscope
