#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "common/base/growing_bytes.h"
#include "common/base/ids.h"
#include "common/config/flush_rule.h"
#include "common/placement/canonical_sum.h"
#include "common/placement/cluster.h"
#include "common/placement/row_plan.h"
#include "common/transport/counted_workers.h"
#include "common/transport/row_codec.h"
#include "common/transport/transport.h"
#include "ps/tables/row_norms.h"
#include "ps/tables/table_shards.h"

namespace varscope {

// Where each push of rows is applied by itself (PushSteps): when requests may be answered.
class RowGate {
 public:
  virtual ~RowGate() = default;
  // The worker has asked for rows that it will push.
  virtual void on_wanted(TableId table, WorkerId worker) = 0;
  // Whether the table holds what rows that are asked for after step `request` must. All else that they need
  // is there.
  virtual bool may_read(TableId table, WorkerId worker, Clock request) = 0;
  // They are read now, so many bytes. Returns for how many nanoseconds may_read() has refused them.
  virtual std::int64_t on_read(TableId table, WorkerId worker, Clock request, std::size_t n_bytes) = 0;
};

// A server's side of rows. A worker asks for rows by their ids (rows_wanted), gets their values as soon as
// the step before is applied to the table, and pushes gradients of some of them (rows_push). Once all
// workers' pushes of a step are whole, the caller applies them, at once or when it knows their norms; then
// requests that have waited are answered. A request that is flagged kFlagRead is answered and forgotten. See
// docs/data_path.md.
//
// With a gate each push is applied by itself once it is whole, and an answer holds the worker's own pushes.
//
// With a delay (FlushRule) requests and pushes of several steps are under way. A push of a later step waits
// until its round begins, its data with MPI. The pushes of a step are not applied before all workers have
// been answered by the rows that this changes.
//
// With backup workers the pushes of a step are those of the workers that count. Others' requests for it are
// answered, and forgotten once the step is applied: no push of them follows.
//
// A worker has one request of a table without an answer at most; the next step's may come before that step is
// applied. One thread; borrows everything. Throws Error(protocol) that names worker, table and field.
class RowExchange {
 public:
  struct Parts {
    Transport& transport;
    const ClusterMap& cluster;
    const RowPlan& plan;
    TableShards& shards;
    ServerId server;
    int n_buckets = 0;        // of the job's BucketPlan
    RowGate* gate = nullptr;  // null: a step's pushes are applied together
    FlushRule flush = {};     // which values each step reads, where there is a delay
    Clock first{0};           // of the values that the run starts from; only with a delay
  };
  explicit RowExchange(const Parts& parts);

  // Tables here that are pushed in each step.
  int n_pushed() const { return n_pushed_; }

  // From now on the pushes of a step are those of these workers, each of one leaf. REQUIRES: no push is here
  // that is not applied.
  void count_only(const CountedWorkers& counted);
  void on_wanted(WorkerId worker, const MessageHeader& wanted);
  // Both return the table of which all pushes of the step under way are here now, if there is one, or with a
  // gate the push: it waits for apply(), or apply_push(), and stays as it is until then.
  struct Whole {
    TableId table;
    WorkerId worker;  // whose push was the last, or with a gate the one
  };
  std::optional<Whole> on_push(WorkerId worker, const Message& push);
  std::optional<Whole> on_completion(const Completion& completion);
  // With a delay these return nothing. Whatever has come, this returns such a table, once, until there is
  // none.
  std::optional<Whole> take_whole();
  // Of a table that waits for apply(): the squares of its gradients, by part (RowSquares).
  std::span<const double> row_squares(TableId id);
  struct Applied {
    Clock clock;
    std::uint32_t flags = 0;  // of the pushes
  };
  // Merges the pushes, multiplies the sums by `scale`, updates the rows, and answers requests that have
  // waited for this.
  Applied apply(TableId id, double scale = 1);
  // With a gate: updates the rows of one push, and answers what may be answered now.
  void apply_push(TableId id, WorkerId worker, const UpdateStep& step);
  // Answers the request of the worker that waits, if there is one and it may be answered now: true.
  bool answer(TableId id, WorkerId worker);
  // The table holds all of step `clock`.
  void reach(TableId id, Clock clock);
  // It is here, and trained.
  bool is_pushed(TableId id) const { return is_here(id) && parts_.plan[id].trainable; }
  bool is_known(TableId id) const { return parts_.plan.has(id) && is_here(id); }
  const RowPlan& plan() const { return parts_.plan; }
  Clock clock(TableId id) const { return shard(id).clock(); }  // the last step that is applied
  // Some table has not applied step `clock`.
  bool is_behind(Clock clock) const;

 private:
  struct Request {
    bool is_open = false;     // until its push is applied, or, where none follows, until it is answered
    bool is_waiting = false;  // for its answer
    Clock clock{0};
    std::size_t n_rows = 0;
    int n_due = 0;  // messages with its ids
    GrowingBytes ids;
  };
  struct Stream {                // of one table and worker
    std::vector<Request> steps;  // in turn
    Request read;
    GrowingBytes reply;
    int n_reply_sends = 0;
    GrowingBytes push;
    std::size_t push_bytes = 0;
    int n_push_due = 0;      // messages with gradients
    bool is_pushed = false;  // in this round
    std::vector<std::uint32_t> n_rows;
    std::size_t n_wanted = 0, n_answered = 0, n_pushed = 0;
    std::deque<Message> later = {};  // pushes of later steps
    // Requests and pushes come in turn.
    Request& to_ask() { return steps[n_wanted % steps.size()]; }
    Request& to_push() { return steps[n_pushed % steps.size()]; }
    const Request& to_push() const { return steps[n_pushed % steps.size()]; }
  };
  struct Table {
    IdVector<WorkerId, Stream> streams;
    std::uint32_t flags = 0;
    int n_announced = 0, n_whole = 0;   // pushes of this round
    bool is_taken = false;              // take_whole() has returned it
    std::optional<RowSquares> squares;  // made when first asked for
  };
  bool counts(WorkerId worker) const { return !counted_ || counted_->has(worker); }
  void forget_requests(TableId id, WorkerId worker);
  const RowPlan::Table& own_table(WorkerId worker, const MessageHeader& header) const;
  TableShard& shard(TableId id) const { return *parts_.shards[id]; }
  bool is_here(TableId id) const { return parts_.plan[id].has_parts[parts_.server]; }
  Request* waiting(Stream& stream) const;
  void check_ids(const RowPlan::Table& table, WorkerId worker, const Request& request) const;
  void check_positions(const RowPlan::Table& table, WorkerId worker, std::span<const std::uint32_t> positions,
                       std::size_t n_rows) const;
  void check_counts(const RowPlan::Table& table, WorkerId worker,
                    std::span<const std::uint32_t> counts) const;
  bool is_delayed() const { return parts_.flush.delay > 0; }
  // What the step of a request reads: the requests for pushes of a worker are of one step each.
  Clock read_of(std::size_t request) const {
    return parts_.flush.read_by(Clock(parts_.first.value + 1 + static_cast<std::int64_t>(request)),
                                parts_.first);
  }
  bool has_readers_to_come(TableId id) const;
  bool is_too_early(TableId id, WorkerId worker, const Message& push);
  void begin_round(TableId id);
  std::optional<Whole> push_is_whole(TableId id, WorkerId worker);
  void check_push(TableId id, WorkerId worker) const;
  RowsPushLayout layout_of(TableId id, const Stream& stream) const;
  void gather(TableId id, const Stream& stream);
  void gather_contributions(TableId id);
  bool may_answer(TableId id, WorkerId worker, const Stream& stream, const Request& request) const;
  static std::span<const std::uint64_t> ids_of(const Request& request);

  Parts parts_;
  RowCodec codec_;
  ReductionTree tree_;
  std::optional<CountedWorkers> counted_;  // nothing: all
  IdVector<WorkerId, int> n_contributions_;
  IdVector<TableId, Table> tables_;
  int n_pushed_ = 0;
  std::vector<TableShard::Contribution> contributions_;
};

}  // namespace varscope
