#pragma once

#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "worker/layers/layer.h"

namespace varscope {

// Checks of a job what can be checked without its data, with the words that `train` has for it: builds the
// graphs of training and evaluation for samples of the shape that the config says, or the data set's name;
// looks at the optimizer, the metrics, the names of variables in checkpoints and in warm_start, at the number
// of steps and at batches in logical workers. The shape of an idx file's images is not known: what holds for
// some shapes passes. Returns warnings. Throws Error(config).
std::vector<std::string> check_without_data(const JobConfig& job, const LayerRegistry& layers);

}  // namespace varscope
