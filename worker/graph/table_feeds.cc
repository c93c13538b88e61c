#include "worker/graph/table_feeds.h"

#include <algorithm>
#include <cstring>

namespace varscope {

std::vector<RowLookup> TableUse::row_lookups(const Graph& graph) const {
  std::vector<RowLookup> rows;
  rows.reserve(lookups.size());
  for (const TableLookup* l : lookups)
    rows.push_back({graph.node(l->ids).name, l->padding, l->in_bags, l->positive_weights});
  return rows;
}

std::vector<TableUse> table_uses(const Graph& graph) {
  std::vector<TableUse> uses;
  for (const TableLookup& lookup : graph.lookups()) {
    auto use = std::ranges::find(uses, lookup.table, &TableUse::table);
    if (use == uses.end()) use = uses.insert(uses.end(), {lookup.table});
    use->lookups.push_back(&lookup);
  }
  return uses;
}

void feed_lookup(Executor& executor, const TableLookup& lookup, const RowFeeds& feeds) {
  executor.feed(lookup.positions, feeds.positions);
  if (lookup.offsets) executor.feed(*lookup.offsets, feeds.offsets.value());
  if (lookup.weights) executor.feed(*lookup.weights, feeds.weights.value());
}

struct TableFeeds::Table {
  Table(const Graph& graph, TableUse of)
      : use(std::move(of)),
        plan(RowPlan::make(VariableTable({use.table->spec()}), 1)),
        ids(plan[TableId(0)], use.row_lookups(graph), 1) {}
  void read(Executor& executor, RowReader* rows);
  void grow(std::size_t n_bytes) {
    if (n_bytes <= capacity) return;
    capacity = std::max(n_bytes, 2 * capacity);
    values = allocate_aligned(capacity);
    gradients = allocate_aligned(capacity);
  }

  TableUse use;
  RowPlan plan;
  RowIds ids;
  AlignedBytes values, gradients;
  std::size_t capacity = 0;  // bytes of each
};

TableFeeds::TableFeeds(const Graph& graph) {
  for (TableUse& use : table_uses(graph)) tables_.push_back(std::make_unique<Table>(graph, std::move(use)));
}
TableFeeds::TableFeeds(TableFeeds&&) noexcept = default;
TableFeeds& TableFeeds::operator=(TableFeeds&&) noexcept = default;
TableFeeds::~TableFeeds() = default;

void TableFeeds::Table::read(Executor& executor, RowReader* rows) {
  const Variable& table = *use.table;
  const auto needed = [&](std::size_t k) { return executor.needs(use.lookups[k]->positions); };
  ids.clear();
  bool any = false;
  for (std::size_t k = 0; k < use.lookups.size(); ++k) {
    if (!needed(k)) continue;
    any = true;
    ids.add(0, k, row_input(*use.lookups[k], [&](NodeId id) { return executor.value(id); }));
  }
  ids.finish();
  if (!any) return;
  if (rows == nullptr) {
    fail(ErrorKind::argument, "table \"{}\" (made at {}) is looked up, and there is no reader of its rows",
         table.name(), table.made_at());
  }
  const std::size_t row_bytes = plan[TableId(0)].row_bytes();
  const std::size_t n_bytes = static_cast<std::size_t>(ids.size()) * row_bytes;
  grow(n_bytes + row_bytes);
  rows->read(table, ids.ids(), values.get());
  std::memset(values.get() + n_bytes, 0, row_bytes);  // of padding
  std::memset(gradients.get(), 0, n_bytes + row_bytes);
  const Shape arena{ids.size() + 1, table.shape()[1]};
  executor.bind_rows(table, TensorView(table.dtype(), arena, values.get()),
                     TensorView(table.dtype(), arena, gradients.get()), ids.ids());
  for (std::size_t k = 0; k < use.lookups.size(); ++k) {
    if (needed(k)) feed_lookup(executor, *use.lookups[k], ids.feeds(0, k));
  }
}

void TableFeeds::read(Executor& executor, RowReader* rows) {
  for (const auto& t : tables_) t->read(executor, rows);
}

std::vector<const Variable*> TableFeeds::tables() const {
  std::vector<const Variable*> all;
  all.reserve(tables_.size());
  for (const auto& t : tables_) all.push_back(t->use.table);
  return all;
}

const TableFeeds::Table& TableFeeds::table_of(const Variable& table) const {
  for (const auto& t : tables_) {
    if (t->use.table == &table) return *t;
  }
  fail(ErrorKind::argument, "variable \"{}\" is no table that the graph looks up", table.name());
}

std::span<const std::uint64_t> TableFeeds::ids(const Variable& table) const {
  return table_of(table).ids.ids();
}

TensorView TableFeeds::gradients(const Variable& table) const {
  const Table& t = table_of(table);
  return {table.dtype(), {t.ids.size(), table.shape()[1]}, t.gradients.get()};
}

}  // namespace varscope
