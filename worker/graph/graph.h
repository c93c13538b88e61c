#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/variables/variable_scope.h"
#include "worker/graph/op.h"

namespace varscope {

// How a node is called in messages. An empty name takes the op's type; a taken name gets "_1", "_2", ...
// `made_at` is the position in YAML ("job.yaml:14:5"), empty for nodes made in C++.
struct NodeOptions {
  std::string name;
  std::string made_at;
};

// A place of a graph where rows of a sparse table are looked up. The ids are the samples'; for each batch,
// who runs the graph makes positions of them, in an arena that holds the rows of those ids
// (worker/tables/row_ids.h), and feeds these: ops know rows by position alone, and ids of any 64 bits become
// int32.
struct TableLookup {
  const Variable* table = nullptr;
  // Placeholders that the batch feeds: int32 or int64 [?, ...]; of bags [ragged], with their offsets and,
  // where there are, weights.
  NodeId ids;
  std::optional<NodeId> ids_offsets = {}, ids_weights = {};
  std::optional<std::uint64_t> padding = {};  // the id that stands for nothing
  // False: a position for each id, the padding's that of a row of zeros behind the arena's. True: bags of
  // positions, without padding and without ids of weight 0; a row of ids without offsets is a bag.
  bool in_bags = false;
  bool positive_weights = false;  // weights below 0 are an error: mean, sqrtn
  std::string made_at = {};       // in YAML
  // Placeholders that Graph::look_up() has made: int32, as the ids; in bags [ragged], int64 [?+1], and
  // weights of the table's dtype.
  NodeId positions = {};
  std::optional<NodeId> offsets = {}, weights = {};
};

// A dataflow graph: placeholders, variables and ops, in the order in which they were added, which is a
// topological order. A value (it moves, ops are not copied); immutable while executors use it. Variables are
// borrowed: the VariableStore outlives the graph. Not thread-safe while nodes are added.
class Graph {
 public:
  enum class Kind : std::uint8_t { placeholder, variable, op };
  struct Node {
    Kind kind = Kind::placeholder;
    std::string name;  // full: "hidden1/dense", "x", "hidden1/weights"
    std::string made_at;
    TensorType type;
    const Variable* variable = nullptr;
    std::unique_ptr<const Op> op;
    std::vector<NodeId> inputs;
  };

  // Fed at run time. Unknown extents take the batch of the run, bounds the batch + 1, and ragged ones what is
  // fed. Throws Error(argument) if the name is taken.
  NodeId placeholder(std::string name, DType dtype, Shape shape);
  // The node of a variable; one variable has one node however often it is asked for. That of a table is of
  // shape [ragged, units]: each run has rows of its own. One that is made of
  // others (a partitioned one, a sum, a product) is computed: ops::variable (worker/ops/ops.h) adds its ops.
  // Throws Error(argument) for such a variable that has no node yet.
  NodeId variable(const Variable& variable);
  // From now on `computed` is the node of a variable that is made of others. Throws Error(argument) if it has
  // one already.
  void set_node(const Variable& variable, NodeId computed);
  // The table's node, and placeholders for where the rows of `lookup` are; the result is good for as long as
  // the graph. Throws Error(argument) for a variable that is no table, and for ids, offsets and weights that
  // are no placeholders of the shapes and dtypes that TableLookup says.
  const TableLookup& look_up(TableLookup lookup, const NodeOptions& options = {});
  const std::deque<TableLookup>& lookups() const { return lookups_; }
  // Infers the type at once. Throws Error(argument) for an input that is not in the graph, and what Op::infer
  // throws for shapes and dtypes that do not fit.
  NodeId add(std::unique_ptr<const Op> op, std::vector<NodeId> inputs, const NodeOptions& options = {});

  std::size_t size() const { return nodes_.size(); }
  // The reference is good for as long as the graph. Throws Error(argument).
  const Node& node(NodeId id) const;
  std::vector<const TensorType*> input_types(const Node& n) const;
  std::optional<NodeId> find(std::string_view name) const;
  // What a node that wants this name would be called: "name", "name_1", ...
  std::string unique_name(const std::string& wanted) const;
  std::optional<NodeId> find(const Variable& variable) const;
  std::vector<const Variable*> variables() const;  // that have a node, in order of nodes
  // Floating-point operations of one forward call of this node; 0 for placeholders and variables.
  std::int64_t flops(NodeId id, std::int64_t batch) const;

 private:
  NodeId append(Node node);
  const Node& fed(NodeId id, const NodeOptions& options, std::string_view what) const;

  IdVector<NodeId, Node, std::deque<Node>> nodes_;  // references stay valid while others are added
  std::map<std::string, NodeId, std::less<>> by_name_;
  std::map<const Variable*, NodeId> by_variable_;
  std::deque<TableLookup> lookups_;
  mutable std::map<std::string, int> next_;  // by wanted name: the number that may be free
};

}  // namespace varscope
