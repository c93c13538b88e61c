#pragma once

#include <string>

#include "common/base/finite.h"
#include "worker/graph/graph.h"

namespace varscope {

// How messages call a node: `node "hidden1/dense" (dense, job.yaml:12:7)`.
std::string node_text(const Graph::Node& node);

}  // namespace varscope
