#pragma once

#include <string>

#include "worker/layers/layer.h"

namespace varscope {

// What `varscope config --explain` prints: every key of a job and of its layers. Of a `section`: what begins
// with it. That is a section ("train", "optimizer.schedule"), a key ("train.batch"), "layers", a type of
// layers ("dense"), "block", "initializer", "regularizer", "constraint", "partitioner", "compression". Throws
// Error(config) for anything else, with what was probably meant.
std::string explain_config(const std::string& section, const LayerRegistry& layers);

}  // namespace varscope
