#pragma once

#include "common/config/job_config.h"
#include "worker/layers/model.h"

namespace varscope {

// The layer (or block) of the config that was written at this place ("job.yaml:14:5"), with its path; a null
// node when there is none.
struct Place {
  const ConfigNode* node = nullptr;
  std::string path;
};
Place find_layer(const ConfigNode& layers, const std::string& path, const std::string& made_at,
                 const std::string& file);

// Adds what follows the last layer: the loss, the regularization losses (in training), the count of right
// answers and the metrics (in evaluation). REQUIRES model.x, y, output, mode. Throws Error(config) when the
// last layer does not fit the targets.
void add_output(Model& model, const VariableStore& store, const JobConfig& config, const DataFacts& data);

}  // namespace varscope
