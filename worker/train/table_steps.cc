#include "worker/train/table_steps.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "worker/tables/row_sums.h"

namespace varscope {
namespace {

const RowPlan::Table& plan_of(const RowPlan& plan, const std::vector<const Variable*>& variables,
                              const Variable& table) {
  const auto at = std::ranges::find(variables, &table) - variables.begin();
  const RowPlan::Table* found = plan.of_variable(static_cast<int>(at));
  if (found == nullptr) fail(ErrorKind::argument, "variable \"{}\" is no table of the servers", table.name());
  return *found;
}

// What the executor computes with of the table's rows.
TableUse use_of(const TableSteps::Parts& parts, const Variable& table) {
  TableUse use{&table};
  for (const TableLookup& lookup : parts.graph.lookups()) {
    if (lookup.table == &table && parts.executor.needs(lookup.positions)) use.lookups.push_back(&lookup);
  }
  return use;
}

}  // namespace

struct TableSteps::Table {
  Table(const Parts& parts, const RowPlan::Table& place)
      : use(use_of(parts, *parts.variables[static_cast<std::size_t>(place.variable)])),
        plan(place),
        ids(plan, use.row_lookups(parts.graph), static_cast<int>(parts.sum_plan.leaves.size())),
        sums(plan, parts.sum_plan.n_buffers) {}
  std::size_t n_rows() const { return static_cast<std::size_t>(ids.size()); }
  TensorView arena(std::byte* memory) const {
    return {plan.dtype, Shape{ids.size() + 1, plan.units}, memory};  // the last row is the padding's
  }

  TableUse use;
  const RowPlan::Table& plan;
  RowIds ids;
  GrowingBytes values;
  RowSums sums;
  std::vector<bool> is_here;  // by logical worker: it has samples
};

// A step is pushed to every table, also where nothing of it is looked up.
TableSteps::TableSteps(const Parts& parts) : parts_(parts) {
  for (const RowPlan::Table& table : parts.client.rows().plan().tables())
    tables_.push_back(std::make_unique<Table>(parts, table));
}
TableSteps::~TableSteps() = default;

void TableSteps::clear() {
  for (const auto& table : tables_) {
    table->ids.clear();
    table->is_here.assign(parts_.sum_plan.leaves.size(), false);
  }
}

void TableSteps::add(std::size_t logical_worker, const Feeds& feeds) {
  const auto view_of = [&](NodeId node) {
    return std::ranges::find(feeds, node, &Feeds::value_type::first)->second;
  };
  for (const auto& table : tables_) {
    table->is_here[logical_worker] = true;
    for (std::size_t k = 0; k < table->use.lookups.size(); ++k)
      table->ids.add(static_cast<int>(logical_worker), k, row_input(*table->use.lookups[k], view_of));
  }
}

void TableSteps::want(Clock clock) {
  std::vector<std::span<const std::uint64_t>> of_servers;
  for (const auto& table : tables_) {
    table->ids.finish();
    of_servers.clear();
    for (std::size_t s = 0; s < table->plan.has_parts.size(); ++s)
      of_servers.push_back(table->ids.ids(ServerId(static_cast<int>(s))));
    const std::size_t row_bytes = table->plan.row_bytes(), n_bytes = table->n_rows() * row_bytes;
    std::byte* values = table->values.of(n_bytes + row_bytes).data();
    std::memset(values + n_bytes, 0, row_bytes);
    parts_.client.rows().want(table->plan.id, clock, of_servers, values);
  }
}

void TableSteps::bind(Executor& executor, std::size_t logical_worker) {
  for (const auto& table : tables_) {
    parts_.client.wait_rows(table->plan.id);
    std::byte* gradients = table->sums.begin(parts_.sum_plan.leaves[logical_worker].buffer, table->n_rows());
    executor.bind_rows(*table->use.table, table->arena(table->values.data()), table->arena(gradients),
                       table->ids.ids());
    for (std::size_t k = 0; k < table->use.lookups.size(); ++k)
      feed_lookup(executor, *table->use.lookups[k], table->ids.feeds(static_cast<int>(logical_worker), k));
  }
}

void TableSteps::finish(std::size_t logical_worker) {
  const LocalSumPlan::Leaf& leaf = parts_.sum_plan.leaves[logical_worker];
  const auto v = static_cast<int>(logical_worker);
  for (const auto& table : tables_) {
    if (table->is_here[logical_worker]) {
      table->sums.touch(leaf.buffer, table->ids.touched(v), table->ids.counts(v));
    } else {
      table->sums.touch(leaf.buffer, {}, {});
    }
    for (const LocalSumPlan::Merge& m : leaf.merges) table->sums.add(m.into, m.from, table->n_rows());
  }
}

TableSteps::Table& TableSteps::of_variable(int variable) const {
  const auto found = std::ranges::find_if(
      tables_, [&](const auto& t) { return t->plan.variable == variable && t->plan.trainable; });
  if (found == tables_.end()) fail(ErrorKind::argument, "variable {} is no trained table", variable);
  return **found;
}

void TableSteps::row_squares(int variable, std::span<double> of_parts) const {
  const Table& table = of_variable(variable);
  std::ranges::fill(of_parts, 0.0);
  table.sums.add_squares(0, table.ids.ids(), of_parts);
}

void TableSteps::scale(int variable, double factor) { of_variable(variable).sums.scale(0, factor); }

void TableSteps::push(Clock clock, std::uint32_t flags, const PushOfTicket* ticket,
                      std::string_view details) {
  std::vector<RowClient::Contribution> contributions;
  for (const auto& table : tables_) {
    if (!table->plan.trainable) continue;
    contributions.clear();
    for (int c = 0; c < static_cast<int>(parts_.sum_plan.contributions.size()); ++c)
      contributions.push_back({table->sums.touched(c), table->sums.gradients(c), table->sums.counts(c)});
    parts_.client.rows().push(table->plan.id, clock, flags, contributions, ticket, details);
  }
}

// An answer holds the worker's own pushes, also one without rows.
void TableSteps::settle(Clock clock) {
  for (const auto& table : tables_) {
    const std::vector<std::span<const std::uint64_t>> none(table->plan.has_parts.size());
    parts_.client.wait_rows(table->plan.id);
    parts_.client.rows().want(table->plan.id, clock, none, table->values.of(table->plan.row_bytes()).data(),
                              true);
  }
  for (const auto& table : tables_) parts_.client.wait_rows(table->plan.id);
}

void ServerRows::read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) {
  const RowPlan::Table& plan = plan_of(client_.rows().plan(), variables_, table);
  const std::size_t row_bytes = plan.row_bytes();
  ids_.clear();
  places_.clear();
  std::vector<std::size_t> ends;
  for (std::size_t s = 0; s < plan.has_parts.size(); ++s) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (plan.server_of(ids[i]) != ServerId(static_cast<int>(s))) continue;
      ids_.push_back(ids[i]);
      places_.push_back(i);
    }
    ends.push_back(ids_.size());
  }
  std::vector<std::span<const std::uint64_t>> of_servers;
  for (std::size_t s = 0, begin = 0; s < ends.size(); begin = ends[s++])
    of_servers.emplace_back(ids_.data() + begin, ends[s] - begin);
  std::byte* values = values_.of(ids_.size() * row_bytes).data();
  client_.wait_rows(plan.id);
  client_.rows().want(plan.id, clock_, of_servers, values, true);
  client_.wait_rows(plan.id);
  for (std::size_t i = 0; i < places_.size(); ++i)
    std::memcpy(out + places_[i] * row_bytes, values + i * row_bytes, row_bytes);
}

}  // namespace varscope
