#pragma once

#include <string>
#include <vector>

#include "worker/layers/layer.h"

namespace varscope {

// `varscope eval`: loss and accuracy of a checkpoint's values on data.test, in one process. Prints to
// standard output. `checkpoint` is one checkpoint or a directory of them (the newest). Throws Error(config,
// data, checkpoint).
void evaluate_checkpoint(const std::string& config, const std::vector<std::string>& overrides,
                         const std::string& checkpoint, const LayerRegistry& layers);

}  // namespace varscope
