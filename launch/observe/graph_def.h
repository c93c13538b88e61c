#pragma once

#include <string>

#include "worker/graph/graph.h"

namespace varscope {

// The graph as TensorFlow's GraphDef, serialized; TensorBoard draws names with a '/' as nested boxes, and
// colours nodes by device. Ops have our names; a variable's op is "variable", "moving_average",
// "constant_variable" or "local_variable", and its device names the servers that own its slices
// ("/job:ps/task:0,2"); other nodes are the workers' ("/job:worker"). Attributes: shapes (an unknown
// extent is -1), dtype, where it was made, and of ops the floating-point operations for one sample.
std::string graph_def(const Graph& graph, int n_servers);

}  // namespace varscope
