#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "worker/graph/executor.h"
#include "worker/graph/local_states.h"
#include "worker/graph/table_feeds.h"
#include "worker/tables/memory_rows.h"

namespace varscope {

// Values for placeholders, borrowed for one call.
using Feeds = std::vector<std::pair<NodeId, TensorView>>;

// Runs a graph in one process, without servers: the C++ way in, for tests, notebooks and evaluation.
//
//   Session session(graph, seed);
//   std::vector<Tensor> out = session.run({logits}, {{x, images.view()}});
//
// Owns the values of the graph's variables, initialised as the servers would: by global element index. Rows
// of tables are in memory(), what TableSpec::absent says where none is there, unless set_rows() says who has
// them. Borrows the graph and the variables, which must outlive it. Throws Error(argument) that names the
// node. Not thread-safe.
class Session {
 public:
  // Fills `out`, row-major, with the first values of a variable that is not local.
  using FirstValues = std::function<void(const Variable& variable, const TensorView& out)>;

  Session(const Graph& graph, std::uint64_t seed);
  // With other first values; `seed` is for the local variables.
  Session(const Graph& graph, std::uint64_t seed, const FirstValues& first);
  Session(Session&&) = default;

  // The values of `fetches`, in their order. Unknown extents take their value from the feeds, which must
  // agree on it (bounds are one more); 1 when no placeholder with an unknown extent is fed.
  std::vector<Tensor> run(const std::vector<NodeId>& fetches, const Feeds& feeds);
  // d loss / d variable for every trainable variable of the graph, by name; zero where the loss does not
  // depend on it. Of a table: of the rows of ids(), [n, units].
  std::map<std::string, Tensor, std::less<>> gradients(NodeId loss, const Feeds& feeds);

  // Local variables carry their state from one run() to the next; this sets them to their first values again,
  // as a change of the number of rows does.
  void reset_states() { states_.reset(); }
  // Which run the coming ones are, for ops that ask (dropout).
  void set_run(const RunInfo& run) { run_ = run; }
  // The variable's own memory: writing to it changes the variable.
  const TensorView& value(const Variable& variable) const;
  void assign(const Variable& variable, const TensorView& value);

  // From now on rows of tables come from there; borrowed.
  void set_rows(RowReader& rows) { rows_ = &rows; }
  // Where they come from.
  RowReader& rows() { return rows_ != nullptr ? *rows_ : *memory_; }
  // The session's own rows: MemoryRows::row() gives one to write to.
  MemoryRows& memory() { return *memory_; }
  // The rows of a table that the last run() or gradients() has read, ascending by mix_row_id().
  std::span<const std::uint64_t> ids(const Variable& table) const { return tables_->ids(table); }

 private:
  std::int64_t batch_of(const Feeds& feeds) const;
  void prepare_states(Executor& executor, std::int64_t batch);
  void run_forward(Executor& executor, std::int64_t batch, const Feeds& feeds);
  Executor& prepare(const std::vector<NodeId>& fetches, const Feeds& feeds);

  const Graph* graph_;
  std::uint64_t seed_;
  RunInfo run_;
  std::optional<LocalStates> states_;
  std::int64_t state_rows_ = 0;
  std::map<const Variable*, Tensor> values_;
  std::unique_ptr<TableFeeds> tables_;
  std::unique_ptr<MemoryRows> memory_;
  RowReader* rows_ = nullptr;  // null: memory_
  struct Plan {
    std::int64_t max_batch;
    Executor executor;
  };
  // Forward only, by fetches; kept, since loops fetch the same again.
  std::map<std::vector<NodeId>, Plan> plans_;
  struct GradientPlan {
    Plan plan;
    std::map<const Variable*, Tensor> gradients;
  };
  std::map<NodeId, GradientPlan> gradient_plans_;  // by loss
};

}  // namespace varscope
