#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "common/placement/canonical_sum.h"
#include "common/placement/row_plan.h"
#include "common/transport/counted_workers.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/table_life.h"
#include "worker/client/ps_client.h"

namespace varscope::testing {

// Which rows of a table a logical worker touches in a step: a pure function, unsorted, each once. Some are
// touched by all, some by one, some steps by nobody.
std::vector<std::uint64_t> touched_rows(int table, int leaf, std::int64_t step);

// What the graph of one worker does with its tables in one step: asks for the union of the rows that its
// logical workers touch, computes gradients from the values that come, sums and pushes.
class RowWorker {
 public:
  RowWorker(PsClient& client, const RowPlan& plan, const ClusterMap& cluster, WorkerId worker);
  // For the step that makes `clock`, as they are after step `read`.
  void want(Clock clock, Clock read);
  // `details`: with backup workers a CountedPush.
  void push(Clock clock, std::uint32_t flags, std::string_view details = {});
  // Values of rows that are only read, of one table; ids in any order, each once.
  std::vector<std::byte> read(TableId table, const std::vector<std::uint64_t>& ids, Clock clock);

 private:
  struct Step {                      // of one table
    std::vector<std::uint64_t> ids;  // server behind server
    std::vector<std::span<const std::uint64_t>> of_servers;
    std::vector<std::byte> values;
  };
  Step sorted(const RowPlan::Table& table, std::vector<std::uint64_t> ids) const;
  PsClient& client_;
  const RowPlan& plan_;
  int n_servers_;
  LeafRange leaves_;
  LocalSumPlan sums_;
  std::vector<Step> steps_;  // by table
};

// A table of an exchange by definition, in one process. Borrows what it is given.
class ReferenceTable {
 public:
  using Sums = std::map<std::uint64_t, ReferenceTableLife::Push>;  // by id
  ReferenceTable(const Exchange& e, const RowPlan::Table& table);
  ReferenceTable(const ReferenceTable&) = delete;
  ReferenceTable& operator=(const ReferenceTable&) = delete;
  // The gradients of a step, summed over the tree of those who have a row, and who count where that is said.
  Sums gradients(std::int64_t step, int n_leaves, const CountedWorkers* counted = nullptr) const;
  // Where the step reads the rows of `read` as of step `read_at`.
  Sums gradients(std::int64_t step, int n_leaves, const ReferenceTableLife& read, std::int64_t read_at,
                 const CountedWorkers* counted = nullptr) const;
  // Of each part, rows in the order of mix_row_id().
  std::vector<double> squares(const Sums& gradients) const;
  // Multiplies by `factor`, in the table's dtype, and does the step. Throws std::runtime_error where there is
  // no room.
  void apply(std::int64_t step, Sums gradients, double factor = 1);
  void add_to(ValuesHash& hash) const;
  const ReferenceTableLife& life() const { return life_; }

 private:
  const RowPlan::Table& table_;
  Optimizer optimizer_;
  RowLayout layout_;
  ReferenceTableLife life_;
};

// The rows of all tables by definition, without clipping by norms. Adds what a server would, to `hash`.
void add_reference_rows(const Exchange& e, int n_leaves, ValuesHash& hash);

}  // namespace varscope::testing
