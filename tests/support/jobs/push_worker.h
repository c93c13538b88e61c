#pragma once

#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "common/placement/row_plan.h"
#include "tests/support/jobs/push_exchange.h"
#include "worker/client/ps_client.h"
#include "worker/client/variable_memory.h"

namespace varscope::testing {

// A worker of a PushExchange: asks for tickets and does with each what the trainer does: pulls what its
// pushes did not know of, reads, asks for the next ticket, pushes, reports. Checks what it reads. One thread.
class PushWorker {
 public:
  PushWorker(Transport& transport, const ClusterMap& cluster, const PushExchange& e, WorkerId worker,
             PushedTickets& pushed);
  // Until the run is over.
  void run();
  const ReadFindings& findings() const { return findings_; }

 private:
  struct Ticket {
    std::int64_t step = 0;
    LeafRange leaves{0, 0};
    std::int64_t held_after = 0;
    double share = 0;
    bool is_cut = false;
  };
  struct Rows {  // of one table, those of the ticket
    std::vector<std::uint64_t> ids;
    std::vector<double> values;
  };
  void ask_for_first(Clock values);
  Ticket ticket_of(const MessageHeader& go) const;
  void compute(const Ticket& ticket);
  void pause();
  void want(const RowPlan::Table& table, std::vector<std::uint64_t> ids, Clock clock, bool is_read);
  void read_all(std::int64_t step, std::optional<std::int64_t> staleness);
  StepSet may_hold(std::int64_t step, int leaf) const;
  void read_slice(const BucketSlice& slice, std::int64_t step, std::optional<std::int64_t> staleness);
  void read_rows(const RowPlan::Table& table, std::int64_t step, std::optional<std::int64_t> staleness);
  void fill_gradients(const Bucket& bucket, const Ticket& ticket);
  void push_rows(const RowPlan::Table& table, const Ticket& ticket);
  double unit_of(const Ticket& ticket, std::int64_t element) const;
  PushOfTicket push_of(const Ticket& ticket);
  void report(const Ticket& ticket);
  bool drain(Clock clock);

  const PushExchange& exchange_;
  const ClusterMap& cluster_;
  PushedTickets& pushed_;
  bool has_met_ = false;  // what is read now is what all read
  TicketSpace space_;
  BucketPlan plan_;
  RowPlan row_plan_;
  VariableMemory memory_;
  PsClient client_;
  std::mt19937_64 random_;
  std::optional<MessageHeader> next_go_;
  std::vector<StepSet> own_;  // by leaf
  IdVector<TableId, Rows> rows_;
  ReadFindings findings_;
};

}  // namespace varscope::testing
