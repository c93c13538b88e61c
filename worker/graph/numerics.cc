#include "worker/graph/numerics.h"

namespace varscope {

std::string node_text(const Graph::Node& node) {
  const char* kind = node.kind == Graph::Kind::placeholder ? "placeholder"
                     : node.kind == Graph::Kind::variable  ? "variable"
                                                           : node.op->type();
  return fmt::format("node \"{}\" ({}{}{})", node.name, kind, node.made_at.empty() ? "" : ", ", node.made_at);
}

}  // namespace varscope
