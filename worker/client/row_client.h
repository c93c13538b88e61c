#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/growing_bytes.h"
#include "common/base/ids.h"
#include "common/placement/canonical_sum.h"
#include "common/placement/cluster.h"
#include "common/placement/row_plan.h"
#include "common/transport/push_details.h"
#include "common/transport/row_codec.h"
#include "common/transport/transport.h"

namespace varscope {

// A worker's side of rows: asks the servers for the rows of a step, which land in the caller's memory, and
// pushes gradients of some of them. A part of PsClient, which polls and waits. One thread; borrows what it is
// given, and the memory of a request until that is ready. Throws Error(protocol) for what no server may send.
class RowClient {
 public:
  // `n_contributions`: of each push. `delay`: StepRule's.
  RowClient(Transport& transport, const ClusterMap& cluster, const RowPlan& plan, WorkerId worker,
            int n_buckets, std::size_t n_contributions, std::int64_t delay = 0);

  const RowPlan& plan() const { return plan_; }

  // Asks for the values of rows after step `clock`. `ids`: for each server those that it owns, ascending by
  // mix_row_id(), none where it has no parts. `values`: a row for each id, server behind server. With
  // `is_read` they are only looked at, no push follows. What has been pushed may still be leaving. REQUIRES
  // that the rows of the last request are there.
  void want(TableId table, Clock clock, std::span<const std::span<const std::uint64_t>> ids,
            std::byte* values, bool is_read = false);
  // What a contribution adds to rows of the last request: `positions` in all of its rows, ascending, and of
  // each of these the row of `gradients`, which has as many rows as were asked for. `counts`: how often each
  // row asked for occurs, where the table counts its ids, else null.
  struct Contribution {
    std::span<const std::int32_t> positions;
    const std::byte* gradients = nullptr;
    const std::uint32_t* counts = nullptr;
  };
  // Pushes step `clock`: a contribution for each of maximal_nodes(), or, of a ticket, one. The memory is free
  // again at once. REQUIRES ready(table), and that the rows were asked for at step clock - 1, or so many
  // before as the delay allows. `details`: with backup workers a CountedPush.
  void push(TableId table, Clock clock, std::uint32_t flags, std::span<const Contribution> contributions,
            const PushOfTicket* ticket = nullptr, std::string_view details = {});

  // The rows are there, and what was pushed has left.
  bool ready(TableId table) const { return state(table).n_due == 0; }
  bool all_ready() const { return n_due_ == 0; }
  // What is under way, and of which table; "" when all are ready.
  std::string missing_text() const;

  void on_rows(const MessageHeader& header);
  void on_completion(const Completion& completion);

 private:
  struct Share {                        // of one server
    std::size_t begin = 0, n_rows = 0;  // of the request's rows
    bool is_header_due = false;
    int n_sends = 0, n_receives = 0;
    GrowingBytes push;
    GrowingBytes ids;
  };
  struct State {
    Clock clock{0};
    int n_due = 0;       // headers, sends and receives
    int n_rows_due = 0;  // of them headers and receives
    IdVector<ServerId, Share> shares;
  };
  State& state(TableId table) { return states_[table]; }
  const State& state(TableId table) const { return states_[table]; }
  void count_sends(TableId table, int n) {
    state(table).n_due += n;
    n_due_ += n;
  }
  void count_rows(TableId table, int n) {
    state(table).n_rows_due += n;
    count_sends(table, n);
  }
  void push_share(const RowPlan::Table& table, ServerId server, MessageHeader header, const std::string& body,
                  std::span<const Contribution> contributions);

  Transport& transport_;
  const ClusterMap& cluster_;
  const RowPlan& plan_;
  WorkerId worker_;
  RowCodec codec_;
  std::size_t n_contributions_;
  std::int64_t delay_;
  IdVector<TableId, State> states_;
  int n_due_ = 0;
};

}  // namespace varscope
