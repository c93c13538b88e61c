#pragma once

#include <string>

#include "common/config/job_config.h"
#include "worker/layers/layer.h"

namespace varscope {

// What `varscope graph` prints: the scope tree with ops, shapes, parameters and FLOPs per sample. Where
// `dot_file` is not empty, writes the graph there for Graphviz. Warnings go to standard error. Throws
// Error(config, data, io).
std::string show_graph(const JobConfig& job, GraphMode mode, const std::string& dot_file,
                       const LayerRegistry& layers);

}  // namespace varscope
