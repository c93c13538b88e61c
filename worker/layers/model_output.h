#pragma once

#include "common/config/job_config.h"
#include "worker/layers/model.h"

namespace varscope {

// Adds what follows the last layer: the loss, the regularization losses (in training), the count of right
// answers and the metrics (in evaluation). REQUIRES model.x, y, output, mode. Throws Error(config) when the
// last layer does not fit the targets.
void add_output(Model& model, const VariableStore& store, const JobConfig& config, const DataFacts& data);

}  // namespace varscope
