#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "common/placement/canonical_sum.h"
#include "common/placement/row_plan.h"
#include "tests/support/jobs/ps_exchange.h"
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
  void want(Clock clock);  // for the step that makes `clock`
  void push(Clock clock, std::uint32_t flags);
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

// The rows of all tables by definition: one process, std::map, Optimizer::update_row. Adds what a server
// would, to `hash`.
void add_reference_rows(const Exchange& e, int n_leaves, ValuesHash& hash);

}  // namespace varscope::testing
