#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "common/base/growing_bytes.h"
#include "common/placement/canonical_sum.h"
#include "worker/client/ps_client.h"
#include "worker/graph/executor.h"
#include "worker/graph/table_feeds.h"
#include "worker/tables/row_ids.h"
#include "worker/tables/row_reader.h"

namespace varscope {

// The tables of a worker's training steps: of each, the rows of a step in one arena, and gradients of them in
// as many as the sum plan has buffers. For each step, in this order:
//
//   tables.clear();
//   for each logical worker with samples: tables.add(i, the feeds of its part);
//   tables.want(clock);                    asks the servers; nothing waits
//   for each logical worker: tables.bind(executor, i), which waits for the first one; forward and backward;
//       tables.finish(i), with or without samples
//   tables.push(clock, flags);
//
// One thread; borrows everything.
class TableSteps {
 public:
  using Feeds = std::vector<std::pair<NodeId, TensorView>>;
  struct Parts {
    const Graph& graph;
    const Executor& executor;                       // of the graph: what it does not need is not looked up
    const std::vector<const Variable*>& variables;  // in the order of the VariableTable
    PsClient& client;
    const LocalSumPlan& sum_plan;
  };
  explicit TableSteps(const Parts& parts);
  ~TableSteps();
  TableSteps(const TableSteps&) = delete;
  TableSteps& operator=(const TableSteps&) = delete;

  bool empty() const { return tables_.empty(); }
  void clear();
  // Throws what RowIds::add throws.
  void add(std::size_t logical_worker, const Feeds& feeds);
  void want(Clock clock);
  void bind(Executor& executor, std::size_t logical_worker);
  void finish(std::size_t logical_worker);
  // Where each push is applied by itself, after the last finish(): of the gradients that are to be pushed to
  // the trained table `variable` (index into the VariableTable) the sums of squares by part, as RowSquares of
  // ps/tables has them; and multiplies them by `factor`. Throws Error(argument) for what is no trained table.
  void row_squares(int variable, std::span<double> of_parts) const;
  void scale(int variable, double factor);
  // `ticket`: where each push is applied by itself. `details`: with backup workers a CountedPush.
  void push(Clock clock, std::uint32_t flags, const PushOfTicket* ticket = nullptr,
            std::string_view details = {});
  // Waits until what has been pushed is applied, where each push is by itself.
  void settle(Clock clock);

 private:
  struct Table;
  Table& of_variable(int variable) const;

  Parts parts_;
  std::vector<std::unique_ptr<Table>> tables_;
};

// Rows as the servers have them after step `clock`: what an evaluation in between reads. Borrows client and
// variables. REQUIRES that no request for a step's rows is under way.
class ServerRows final : public RowReader {
 public:
  ServerRows(PsClient& client, const std::vector<const Variable*>& variables)
      : client_(client), variables_(variables) {}
  void set_clock(Clock clock) { clock_ = clock; }
  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override;

 private:
  PsClient& client_;
  const std::vector<const Variable*>& variables_;
  Clock clock_{0};
  std::vector<std::uint64_t> ids_;   // server behind server
  std::vector<std::size_t> places_;  // of each of them, in what was asked for
  GrowingBytes values_;
};

}  // namespace varscope
