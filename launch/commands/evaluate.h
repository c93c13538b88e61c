#pragma once

#include <string>
#include <vector>

#include "worker/layers/layer.h"

namespace varscope {

struct EvaluateOptions {
  std::string path;  // a config; or a run's directory, one of checkpoints, or a checkpoint
  std::vector<std::string> overrides;
  std::string checkpoint;  // one checkpoint or a directory of them (the newest); empty: the job's
  bool json = false;
};

// `varscope eval`: loss and metrics of a checkpoint's values on data.test, in one process. Prints to
// standard output. Of a run's directory the model is what the checkpoint says, and the test set what the
// run's job.yaml says; where these, or the config that the run was started with, say something else of the
// model by now, that is a warning. Throws Error(config, data, checkpoint).
void evaluate_checkpoint(const EvaluateOptions& options, const LayerRegistry& layers);

}  // namespace varscope
