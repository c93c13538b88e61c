#pragma once

#include <string>

#include "worker/graph/graph.h"

namespace varscope {

// The graph for people: its ops and variables in the order of the network, under the scopes that they are in,
// with type, shape, parameters (trained elements of variables), FLOPs of one sample's forward pass and the
// nodes that they read; totals at the end. A scope that is entered again is marked so.
std::string graph_tree(const Graph& graph);

// The graph for Graphviz: `dot -Tsvg`. Scopes are clusters, edges carry shapes.
std::string graph_dot(const Graph& graph, const std::string& title);

}  // namespace varscope
