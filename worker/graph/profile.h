#pragma once

#include <cstdint>
#include <string>

#include "common/base/ids.h"
#include "worker/graph/graph.h"

namespace varscope {

// Where the time of one node went, in nanoseconds over all runs of an executor.
struct NodeTimes {
  std::int64_t runs = 0;
  std::int64_t forward_ns = 0;
  std::int64_t backward_ns = 0;
  std::int64_t blas_ns = 0;  // of both
};

// A table of the nodes that took time, the most expensive first, with their share of BLAS and the rate of
// their products.
std::string profile_text(const Graph& graph, const IdVector<NodeId, NodeTimes>& times);

}  // namespace varscope
