#include "worker/graph/graph_text.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace varscope {
namespace {

// A scope with what is directly in it; names are relative.
struct Scope {
  std::map<std::string, Scope> inner;
  std::vector<std::string> order;  // of `inner`, by first appearance
  std::vector<NodeId> nodes;
};

std::string last_name(const std::string& name) {
  const std::size_t slash = name.rfind('/');
  return slash == std::string::npos ? name : name.substr(slash + 1);
}

Scope tree_of(const Graph& graph) {
  Scope root;
  for (std::size_t i = 0; i < graph.size(); ++i) {
    const NodeId id(static_cast<int>(i));
    const std::string& name = graph.node(id).name;
    Scope* at = &root;
    for (std::size_t from = 0, slash = 0; (slash = name.find('/', from)) != std::string::npos;
         from = slash + 1) {
      const std::string part = name.substr(from, slash - from);
      if (!at->inner.contains(part)) at->order.push_back(part);
      at = &at->inner[part];
    }
    at->nodes.push_back(id);
  }
  return root;
}

std::int64_t parameters(const Graph& graph, const Scope& scope) {
  std::int64_t n = 0;
  for (const NodeId id : scope.nodes) {
    const Graph::Node& node = graph.node(id);
    if (node.kind == Graph::Kind::variable && node.variable->trainable())
      n += node.variable->shape().n_elements();
  }
  for (const auto& [name, inner] : scope.inner) n += parameters(graph, inner);
  return n;
}

std::int64_t flops(const Graph& graph, const Scope& scope) {
  std::int64_t n = 0;
  for (const NodeId id : scope.nodes) n += graph.flops(id, 1);
  for (const auto& [name, inner] : scope.inner) n += flops(graph, inner);
  return n;
}

std::string number(std::int64_t n) { return n == 0 ? "" : std::to_string(n); }

std::string row(const std::string& name, const std::string& what, const std::string& shape,
                std::int64_t n_parameters, std::int64_t n_flops, const std::string& inputs) {
  std::string text = fmt::format("{:<36} {:<24} {:<20} {:>12} {:>14}  {}", name, what, shape,
                                 number(n_parameters), number(n_flops), inputs);
  while (text.ends_with(' ')) text.pop_back();
  return text + "\n";
}

// What a node is made of: its inputs, and of where the rows of a table are, what they are looked up by.
std::vector<NodeId> made_of(const Graph& graph, NodeId id) {
  for (const TableLookup& l : graph.lookups()) {
    if (id == l.positions) return {l.ids};
    if (id == l.offsets) return {l.ids_offsets.value_or(l.ids)};
    if (id == l.weights) return {*l.ids_weights};
  }
  return graph.node(id).inputs;
}

std::string what_of(const Graph::Node& node) {
  if (node.kind == Graph::Kind::placeholder) return "placeholder";
  if (node.kind == Graph::Kind::op) return node.op->type();
  if (node.variable->is_local()) return "local variable";
  if (node.variable->spec().is_table()) return node.variable->trainable() ? "table" : "constant table";
  return node.variable->trainable()           ? "variable"
         : node.variable->spec().is_average() ? "moving average"
                                              : "constant variable";
}

std::string inputs_of(const Graph& graph, NodeId id) {
  std::string names;
  for (const NodeId input : made_of(graph, id)) names += (names.empty() ? "" : ", ") + graph.node(input).name;
  return names;
}

// Nodes one after the other, under the scopes that they are in. A scope that is met again has its sums at the
// first place only.
class TreePrinter {
 public:
  TreePrinter(const Graph& graph, const Scope& root) : graph_(graph), root_(root) {}

  std::string print() {
    for (std::size_t i = 0; i < graph_.size(); ++i) {
      const NodeId id(static_cast<int>(i));
      const Graph::Node& node = graph_.node(id);
      open(node.name);
      const bool trained = node.kind == Graph::Kind::variable && node.variable->trainable();
      out_ +=
          row(indent(open_.size()) + last_name(node.name), what_of(node), node.type.shape.str(),
              trained ? node.variable->shape().n_elements() : 0, graph_.flops(id, 1), inputs_of(graph_, id));
    }
    return std::move(out_);
  }

 private:
  static std::string indent(std::size_t depth) { return std::string(2 * depth, ' '); }

  // The scopes of this node are open then, and no others.
  void open(const std::string& node) {
    std::vector<std::string> path;
    for (std::size_t from = 0, slash = 0; (slash = node.find('/', from)) != std::string::npos;
         from = slash + 1)
      path.push_back(node.substr(from, slash - from));
    const auto differ = std::mismatch(open_.begin(), open_.end(), path.begin(), path.end());
    open_.erase(differ.first, open_.end());
    while (open_.size() < path.size()) {
      open_.push_back(path[open_.size()]);
      heading();
    }
  }
  void heading() {
    const Scope* scope = &root_;
    std::string full;
    for (const std::string& part : open_) {
      scope = &scope->inner.at(part);
      full += part + "/";
    }
    const bool is_first = printed_.insert(full).second;
    out_ += row(indent(open_.size() - 1) + open_.back() + "/", is_first ? "" : "(again)", "",
                is_first ? parameters(graph_, *scope) : 0, is_first ? flops(graph_, *scope) : 0, "");
  }

  const Graph& graph_;
  const Scope& root_;
  std::vector<std::string> open_;  // the path that is printed
  std::set<std::string> printed_;
  std::string out_;
};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

void print_dot(const Graph& graph, const Scope& scope, const std::string& path, int depth, std::string& out) {
  const std::string indent(static_cast<std::size_t>(2 * depth), ' ');
  for (const NodeId id : scope.nodes) {
    const Graph::Node& node = graph.node(id);
    const char* shape = node.kind == Graph::Kind::op         ? "box"
                        : node.kind == Graph::Kind::variable ? "cylinder"
                                                             : "ellipse";
    out += fmt::format("{}n{} [label=\"{}\\n{}\\n{}\", shape={}];\n", indent, id.value,
                       escaped(last_name(node.name)), escaped(what_of(node)), escaped(node.type.shape.str()),
                       shape);
  }
  for (const std::string& name : scope.order) {
    const std::string inner = path.empty() ? name : path + "/" + name;
    out += fmt::format("{}subgraph \"cluster_{}\" {{\n{}  label=\"{}\"; style=rounded; color=gray;\n", indent,
                       escaped(inner), indent, escaped(name));
    print_dot(graph, scope.inner.at(name), inner, depth + 1, out);
    out += indent + "}\n";
  }
}

}  // namespace

std::string graph_tree(const Graph& graph) {
  const Scope root = tree_of(graph);
  const std::string out = fmt::format("{:<36} {:<24} {:<20} {:>12} {:>14}  {}\n", "scope / node", "op",
                                      "shape", "parameters", "FLOPs/sample", "inputs");
  return out + TreePrinter(graph, root).print() +
         fmt::format("\ntotal: {} parameters, {} FLOPs per sample forward\n", parameters(graph, root),
                     flops(graph, root));
}

std::string graph_dot(const Graph& graph, const std::string& title) {
  std::string out = fmt::format(
      "digraph \"{}\" {{\n  rankdir=BT; fontname=\"sans-serif\";\n  node [fontname=\"sans-serif\", "
      "fontsize=10]; edge [fontsize=9];\n",
      escaped(title));
  print_dot(graph, tree_of(graph), "", 1, out);
  for (std::size_t i = 0; i < graph.size(); ++i) {
    for (const NodeId input : made_of(graph, NodeId(static_cast<int>(i))))
      out += fmt::format("  n{} -> n{} [label=\"{}\"];\n", input.value, i,
                         escaped(graph.node(input).type.shape.str()));
  }
  return out + "}\n";
}

}  // namespace varscope
