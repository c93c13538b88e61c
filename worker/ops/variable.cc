#include <vector>

#include "worker/ops/ops.h"

namespace varscope::ops {
namespace {

NodeId computed(Graph& graph, const Variable& whole) {
  std::vector<NodeId> parts;
  for (const Variable* part : whole.parts()) parts.push_back(variable(graph, *part));
  const NodeOptions options{whole.name(), whole.made_at()};
  if (parts.empty()) fail(ErrorKind::argument, "variable \"{}\" is made of no parts", whole.name());
  if (whole.combine() == Combine::concat) return concat(graph, parts, whole.axis(), options);
  NodeId result = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    result = whole.combine() == Combine::add ? add(graph, result, parts[i], options)
                                             : multiply(graph, result, parts[i], options);
  }
  return result;
}

}  // namespace

NodeId variable(Graph& graph, const Variable& variable) {
  if (variable.combine() == Combine::whole) return graph.variable(variable);
  if (const auto known = graph.find(variable)) return *known;
  const NodeId node = computed(graph, variable);
  graph.set_node(variable, node);
  return node;
}

}  // namespace varscope::ops
