#include "worker/graph/graph.h"

#include <utility>

namespace varscope {

std::string TensorType::str() const { return fmt::format("{} {}", to_string(dtype), shape.str()); }

Shape with_batch(const Shape& shape, std::int64_t batch) {
  std::vector<std::int64_t> dims(shape.dims().begin(), shape.dims().end());
  for (auto& d : dims) {
    if (d == Shape::kUnknown) d = batch;
    if (d == Shape::kBounds) d = batch + 1;
  }
  return Shape(std::move(dims));
}

void InferContext::fail(const std::string& what) const {
  const std::string message = fmt::format("node \"{}\" ({}): {}", node_, op_, what);
  if (made_at_.empty()) throw Error(ErrorKind::argument, message);
  throw Error(ErrorKind::config, fmt::format("{}: {}", made_at_, message));
}

void InferContext::fail_shapes(std::size_t a, std::size_t b, const std::string& what) const {
  fail(fmt::format("shapes {} of \"{}\" and {} of \"{}\" {}", shape(a).str(), name(a), shape(b).str(),
                   name(b), what));
}

void InferContext::require_inputs(std::size_t n) const {
  if (n_inputs() != n) fail(fmt::format("takes {} inputs, got {}", n, n_inputs()));
}

void InferContext::require_rank(std::size_t input, std::size_t rank) const {
  if (shape(input).rank() == rank) return;
  fail(fmt::format("needs rank {} for \"{}\", which has shape {}", rank, name(input), shape(input).str()));
}

void InferContext::require_floating(std::size_t input) const {
  if (dtype(input) == DType::float32 || dtype(input) == DType::float64) return;
  fail(fmt::format("needs float32 or float64 for \"{}\", which is {}", name(input), type(input).str()));
}

void InferContext::require_dtype(std::size_t input, DType wanted) const {
  if (dtype(input) == wanted) return;
  fail(fmt::format("needs dtype {} for \"{}\", which is {}", to_string(wanted), name(input),
                   type(input).str()));
}

void InferContext::require_same_dtype(std::size_t a, std::size_t b) const {
  if (dtype(a) == dtype(b)) return;
  fail(fmt::format("dtypes differ: {} of \"{}\" and {} of \"{}\"", type(a).str(), name(a), type(b).str(),
                   name(b)));
}

std::optional<TensorType> Op::workspace(std::span<const TensorType* const>) const { return std::nullopt; }
bool Op::differentiable(std::size_t) const { return true; }

std::int64_t Op::flops(std::span<const TensorType* const> inputs, std::int64_t batch) const {
  return inputs.empty() ? 0 : with_batch(inputs[0]->shape, batch).n_elements();
}

namespace {

// Every op but those on bags and tables has as many rows as the batch.
void check_batched(const InferContext& context, const Op& op) {
  for (std::size_t i = op.reads_tables() ? 1 : 0; i < context.n_inputs(); ++i) {
    const Shape& shape = context.shape(i);
    if (!shape.has(Shape::kRagged) && !shape.has(Shape::kBounds)) continue;
    if (shape.rank() == 2) {
      context.fail(
          fmt::format("\"{}\" has shape {}: it is a table, of which a run has the rows that it looks "
                      "up, and this op takes no tables; embedding does",
                      context.name(i), shape.str()));
    }
    context.fail(
        fmt::format("\"{}\" has shape {}: it is part of a bag, which holds any number of ids for each "
                    "row, and this op does not read bags; embedding_bag does",
                    context.name(i), shape.str()));
  }
}

}  // namespace

NodeId Graph::placeholder(std::string name, DType dtype, Shape shape) {
  if (name.empty()) fail(ErrorKind::argument, "a placeholder needs a name");
  if (by_name_.contains(name))
    fail(ErrorKind::argument, "placeholder \"{}\": the graph has a node of this name", name);
  Node node;
  node.kind = Kind::placeholder;
  node.name = std::move(name);
  node.type = {dtype, std::move(shape)};
  return append(std::move(node));
}

NodeId Graph::variable(const Variable& variable) {
  if (const auto it = by_variable_.find(&variable); it != by_variable_.end()) return it->second;
  if (variable.combine() != Combine::whole) {
    fail(ErrorKind::argument,
         "variable \"{}\" is made of {} others and has no node; let ops::variable compute it from them",
         variable.name(), variable.parts().size());
  }
  Node node;
  node.kind = Kind::variable;
  node.name = unique_name(variable.name());
  node.made_at = variable.made_at();
  node.type = {variable.dtype(),
               variable.spec().is_table() ? variable.shape().with_dim(0, Shape::kRagged) : variable.shape()};
  node.variable = &variable;
  const NodeId id = append(std::move(node));
  by_variable_[&variable] = id;
  return id;
}

void Graph::set_node(const Variable& variable, NodeId computed) {
  node(computed);  // checks the id
  if (by_variable_.try_emplace(&variable, computed).second) return;
  fail(ErrorKind::argument, "variable \"{}\" has a node already", variable.name());
}

const Graph::Node& Graph::fed(NodeId id, const NodeOptions& options, std::string_view what) const {
  const Node& found = node(id);
  if (found.kind == Kind::placeholder) return found;
  fail(ErrorKind::argument,
       "lookup \"{}\": its {}, \"{}\", are computed by {}; rows are asked for before a batch is run, so they "
       "must be an input of the model itself",
       options.name, what, found.name, found.kind == Kind::op ? found.op->type() : "a variable");
}

const TableLookup& Graph::look_up(TableLookup lookup, const NodeOptions& options) {
  if (lookup.table == nullptr || !lookup.table->spec().is_table()) {
    fail(ErrorKind::argument, "lookup \"{}\": variable \"{}\" is no table", options.name,
         lookup.table == nullptr ? "" : lookup.table->name());
  }
  const Node& ids = fed(lookup.ids, options, "ids");
  const bool is_ragged = ids.type.shape.has(Shape::kRagged);
  if (ids.type.dtype != DType::int32 && ids.type.dtype != DType::int64) {
    fail(ErrorKind::argument, "lookup \"{}\": a table is asked by ids, int32 or int64; \"{}\" is {}",
         options.name, ids.name, ids.type.str());
  }
  if (is_ragged != lookup.ids_offsets.has_value() || (is_ragged && !lookup.in_bags)) {
    fail(ErrorKind::argument, "lookup \"{}\": ids of shape {} are {}", options.name, ids.type.shape.str(),
         is_ragged ? "of bags: they need offsets, and a combiner" : "no bags that have offsets");
  }
  if (lookup.in_bags && !is_ragged && ids.type.shape.rank() != 2) {
    fail(ErrorKind::argument,
         "lookup \"{}\": bags are ids of shape [?, ids of each] or [ragged]; \"{}\" has {}", options.name,
         ids.name, ids.type.shape.str());
  }
  if (lookup.ids_offsets) fed(*lookup.ids_offsets, options, "offsets");
  if (lookup.ids_weights) fed(*lookup.ids_weights, options, "weights");
  const std::string prefix = options.name.empty() ? lookup.table->name() : options.name;
  const auto add_placeholder = [&](const char* what, DType dtype, const Shape& shape) {
    return placeholder(unique_name(fmt::format("{}/{}", prefix, what)), dtype, shape);
  };
  const Shape each = lookup.in_bags ? Shape{Shape::kRagged} : ids.type.shape;
  lookup.positions = add_placeholder("positions", DType::int32, each);
  if (lookup.in_bags) lookup.offsets = add_placeholder("offsets", DType::int64, {Shape::kBounds});
  if (lookup.ids_weights)
    lookup.weights = add_placeholder("weights", node(*lookup.ids_weights).type.dtype, each);
  lookup.made_at = options.made_at;
  variable(*lookup.table);
  lookups_.push_back(std::move(lookup));
  return lookups_.back();
}

NodeId Graph::add(std::unique_ptr<const Op> op, std::vector<NodeId> inputs, const NodeOptions& options) {
  Node node;
  node.kind = Kind::op;
  node.name = unique_name(options.name.empty() ? op->type() : options.name);
  node.made_at = options.made_at;
  std::vector<InferContext::Input> seen;
  for (const NodeId id : inputs) {
    if (!nodes_.has(id)) {
      fail(ErrorKind::argument, "node \"{}\" ({}): its input {} is not in the graph, which has {} nodes",
           node.name, op->type(), id.value, nodes_.size());
    }
    const Node& input = nodes_[id];
    seen.push_back({&input.type, input.name});
  }
  const InferContext context(node.name, op->type(), node.made_at, seen);
  if (!op->reads_bags()) check_batched(context, *op);
  node.type = op->infer(context);
  node.op = std::move(op);
  node.inputs = std::move(inputs);
  return append(std::move(node));
}

const Graph::Node& Graph::node(NodeId id) const {
  if (!nodes_.has(id)) {
    fail(ErrorKind::argument, "node {} is not in the graph, which has {} nodes", id.value, nodes_.size());
  }
  return nodes_[id];
}

std::optional<NodeId> Graph::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  if (it == by_name_.end()) return std::nullopt;
  return it->second;
}

std::optional<NodeId> Graph::find(const Variable& variable) const {
  const auto it = by_variable_.find(&variable);
  if (it == by_variable_.end()) return std::nullopt;
  return it->second;
}

std::vector<const Variable*> Graph::variables() const {
  std::vector<const Variable*> found;
  for (const Node& n : nodes_) {
    if (n.kind == Kind::variable) found.push_back(n.variable);
  }
  return found;
}

std::int64_t Graph::flops(NodeId id, std::int64_t batch) const {
  const Node& n = node(id);
  if (n.kind != Kind::op) return 0;
  return n.op->flops(input_types(n), batch);
}

std::vector<const TensorType*> Graph::input_types(const Node& n) const {
  std::vector<const TensorType*> types;
  types.reserve(n.inputs.size());
  for (const NodeId input : n.inputs) types.push_back(&node(input).type);
  return types;
}

NodeId Graph::append(Node node) {
  const NodeId id = nodes_.next_id();
  by_name_[node.name] = id;
  nodes_.push_back(std::move(node));
  return id;
}

std::string Graph::unique_name(const std::string& wanted) const {
  if (!by_name_.contains(wanted)) return wanted;
  for (int& i = next_.try_emplace(wanted, 1).first->second;; ++i) {
    std::string candidate = fmt::format("{}_{}", wanted, i);
    if (!by_name_.contains(candidate)) return candidate;
  }
}

}  // namespace varscope
