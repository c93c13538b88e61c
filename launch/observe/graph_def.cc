#include "launch/observe/graph_def.h"

#include <fmt/format.h>

#include <set>

#include "common/variables/slice.h"
#include "launch/observe/tensorboard.pb.h"

namespace varscope {
namespace {

board::Shape shape_of(const Shape& shape) {
  board::Shape out;
  for (const std::int64_t d : shape.dims()) out.add_dim()->set_size(d < 0 ? -1 : d);
  return out;
}

std::string op_of(const Graph::Node& node) {
  if (node.kind == Graph::Kind::placeholder) return "placeholder";
  if (node.kind == Graph::Kind::op) return node.op->type();
  if (node.variable->is_local()) return "local_variable";
  if (node.variable->trainable()) return "variable";
  return node.variable->spec().is_average() ? "moving_average" : "constant_variable";
}

std::string device_of(const Graph::Node& node, int n_servers) {
  if (node.kind != Graph::Kind::variable || node.variable->is_local()) return "/job:worker";
  const VariableSpec& spec = node.variable->spec();
  std::set<ServerId> owners;
  const std::int64_t n_slices =
      spec.is_table() ? spec.table->parts
                      : static_cast<std::int64_t>(slice_variable(spec.shape, spec.dtype).size());
  for (std::int64_t slice = 0; slice < n_slices && std::ssize(owners) < n_servers; ++slice)
    owners.insert(spec.owner(slice, n_servers));
  std::string tasks;
  for (const ServerId s : owners) tasks += fmt::format("{}{}", tasks.empty() ? "" : ",", s.value);
  return "/job:ps/task:" + tasks;
}

}  // namespace

std::string graph_def(const Graph& graph, int n_servers) {
  board::Graph out;
  out.mutable_versions()->set_producer(22);  // of TensorFlow 1.0, which has all that is used here
  for (std::size_t i = 0; i < graph.size(); ++i) {
    const NodeId id(static_cast<int>(i));
    const Graph::Node& node = graph.node(id);
    board::Node& n = *out.add_node();
    n.set_name(node.name);
    n.set_op(op_of(node));
    n.set_device(device_of(node, n_servers));
    for (const NodeId input : node.inputs) n.add_input(graph.node(input).name);
    auto& attributes = *n.mutable_attr();
    *attributes["_output_shapes"].mutable_list()->add_shape() = shape_of(node.type.shape);
    attributes["dtype"].set_s(to_string(node.type.dtype));
    if (!node.made_at.empty()) attributes["made_at"].set_s(node.made_at);
    if (const std::int64_t flops = graph.flops(id, 1); flops > 0) attributes["flops"].set_i(flops);
  }
  return out.SerializeAsString();
}

}  // namespace varscope
