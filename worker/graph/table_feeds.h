#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/placement/row_plan.h"
#include "worker/graph/executor.h"
#include "worker/tables/row_ids.h"
#include "worker/tables/row_reader.h"

namespace varscope {

// A table of a graph with the places that look up its rows, in their order; borrows the graph.
struct TableUse {
  const Variable* table = nullptr;
  std::vector<const TableLookup*> lookups = {};
  std::vector<RowLookup> row_lookups(const Graph& graph) const;  // for RowIds, in the same order
};
// Every table that the graph looks up rows of, in order of the first lookup.
std::vector<TableUse> table_uses(const Graph& graph);

// What a lookup reads, by view_of(placeholder), which gives what the batch feeds.
template <class ViewOf>
RowInput row_input(const TableLookup& lookup, const ViewOf& view_of) {
  RowInput input{.ids = view_of(lookup.ids)};
  if (lookup.ids_offsets) input.offsets = view_of(*lookup.ids_offsets);
  if (lookup.ids_weights) input.weights = view_of(*lookup.ids_weights);
  return input;
}
// Feeds a lookup of the executor's graph; borrowed as Executor::feed says.
void feed_lookup(Executor& executor, const TableLookup& lookup, const RowFeeds& feeds);

// The tables of a graph that one process runs by itself: for each batch, reads the rows of its ids into an
// arena, and feeds where they are.
//
//   executor.set_batch(n); executor.feed(...);
//   tables.read(executor, &rows);
//   for (const auto& step : executor.forward_steps()) executor.forward(step);
//
// Owns the arenas, which the executor reads until the next read(); borrows the graph. Not thread-safe.
class TableFeeds {
 public:
  explicit TableFeeds(const Graph& graph);
  TableFeeds(TableFeeds&&) noexcept;
  TableFeeds& operator=(TableFeeds&&) noexcept;
  ~TableFeeds();

  // Of a batch that has been fed. Throws Error(argument) when there are tables and `rows` is null, what
  // RowIds::add throws, and what reading throws.
  void read(Executor& executor, RowReader* rows);

  std::vector<const Variable*> tables() const;
  // Of the last read(): the ids, ascending by mix_row_id(), and for an executor with gradients those of their
  // rows, [n, units], zeros before its backward pass. Throws Error(argument) for a variable that no lookup of
  // the graph is of.
  std::span<const std::uint64_t> ids(const Variable& table) const;
  TensorView gradients(const Variable& table) const;

 private:
  struct Table;
  const Table& table_of(const Variable& table) const;
  std::vector<std::unique_ptr<Table>> tables_;  // RowIds borrows
};

}  // namespace varscope
