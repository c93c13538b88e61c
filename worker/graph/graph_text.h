#pragma once

#include <string>

#include "worker/graph/graph.h"

namespace varscope {

// The graph for people: its scopes as a tree, in each its ops and variables in order, with type, shape,
// parameters (trained elements of variables) and FLOPs of one sample's forward pass; totals at the end.
std::string graph_tree(const Graph& graph);

// The graph for Graphviz: `dot -Tsvg`. Scopes are clusters, edges carry shapes.
std::string graph_dot(const Graph& graph, const std::string& title);

}  // namespace varscope
