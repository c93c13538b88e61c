#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "common/variable_scope.h"
#include "worker/graph/graph.h"
#include "worker/layers/layer.h"

namespace varscope {

// A graph made from a job's `model` section, and the nodes that a trainer needs. Its variables are in the
// store that build_model was given, which must outlive it. A value; executors borrow `graph`, so move it
// before making them.
struct Model {
  Graph graph;
  NodeId x;        // placeholder, [?, sample shape...], model.dtype
  NodeId y;        // placeholder, int32 [?]: labels
  NodeId logits;   // the last layer's output, [?, k], model.dtype
  NodeId loss;     // float64 scalar: SUM over the batch
  NodeId correct;  // int64 scalar: rows answered right
  std::vector<LayerInfo> layers;

  std::int64_t n_parameters() const;      // of all layers; shared ones count each time
  std::int64_t flops_per_sample() const;  // forward
  std::string explain() const;            // one line per layer, and one for the loss
};

// Builds in the store's current scope. Samples have `sample_shape` and labels 0 .. n_classes - 1. Throws
// Error(config) at the position in the YAML file: an unknown layer type or key, variables that clash, shapes
// that do not fit each other, or a last layer that does not fit the number of classes.
Model build_model(VariableStore& store, const JobConfig& config, const Shape& sample_shape,
                  std::int64_t n_classes);

}  // namespace varscope
