#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/placement/cluster.h"
#include "common/transport/message_loop.h"
#include "common/transport/run_requests.h"
#include "ps/aggregator.h"
#include "ps/consistency_gate.h"
#include "ps/coordinator.h"
#include "ps/row_exchange.h"
#include "ps/store/parameter_shard.h"
#include "ps/update/deferred_update.h"
#include "ps/update/finite_watch.h"
#include "ps/update/histogram_taker.h"
#include "ps/update/updater.h"

namespace varscope {

// The loop of a server rank: receives pushes, sums them in the canonical order, applies the optimizer wire
// chunk by wire chunk, and answers each with its new value as soon as it has one; where norms are needed,
// DeferredUpdate says when. Server 0 also drives the coordinator. See docs/data_path.md. One thread; borrows
// everything it is given.
class Server final : private MessageHandler {
 public:
  struct Parts {
    Transport& transport;
    const ClusterMap& cluster;
    const BucketPlan& plan;
    const Optimizer& optimizer;
    ParameterShard& shard;
    ShardCheckpointer* checkpointer;  // null: no checkpoints
    Coordinator* coordinator;         // server 0 only
    std::string start_id;             // of this start of the job; names its saves
    double stall_timeout_s = 60;
    std::vector<std::string> hosts = {};  // by rank; for messages
    Aggregator::Limits limits = {};
    RunRequests* requests = nullptr;         // of this rank; null: nobody asks
    std::int64_t histogram_every_steps = 0;  // 0: never
    const RowPlan* rows = nullptr;           // null: there are no tables
    TableShards* tables = nullptr;           // where there are
  };
  explicit Server(const Parts& parts);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves until a message says shutdown; may be called again after that. Throws Error(protocol, stall, io,
  // mpi); on server 0 also what its coordinator throws.
  RunEnd run();

 private:
  struct BucketState {
    int sends_in_flight = 0;
    bool in_round = false;
    std::uint32_t flags = 0;
    std::vector<bool> applied = {};                            // chunks of this round
    int n_answered = 0;                                        // all chunks below this
    std::vector<std::pair<WorkerId, MessageHeader>> deferred;  // pushes that wait for our own sends
  };
  bool work();
  void on_message(const Message& message) override;
  const Bucket& own_bucket(WorkerId worker, const MessageHeader& push_or_pull) const;
  void on_push(WorkerId worker, const MessageHeader& push);
  void announce(WorkerId worker, const MessageHeader& push);
  void on_pull(WorkerId worker, const MessageHeader& pull);
  void on_completion(const Completion& completion) override;
  void apply(const Aggregator::ReadyChunk& chunk);
  void answer(BucketId id, int chunk);
  void answer_in_order(BucketId id, int chunk);
  bool work_on_deferred();
  void send_value_header(BucketId id, Clock clock, Rank to);
  void send_value_chunk(BucketId id, int chunk, Rank to);
  void finish_round(BucketId id);
  void on_rows_push(WorkerId worker, const Message& push);
  void on_whole_table(const std::optional<TableId>& whole);
  void apply_table(TableId id, double scale);
  bool apply_scaled_table();
  void finish_unit(Clock clock, std::uint32_t flags);
  void check_order(WorkerId worker, const MessageHeader& push, std::string_view what) const;
  void on_cut(Clock clock, std::int64_t retry);
  bool is_behind(Clock clock) const;
  void cut(Clock clock, std::int64_t retry);
  void report_outcome();
  void pass_requests_on();
  void report_hashes();
  void answer_finite_request(Clock clock);
  void report_not_finite(bool is_answer);
  bool has_found_not_finite() const;
  template <class F>
  void for_each_table(const F& f) const;
  void report_histograms(BucketId id, Clock clock);
  BucketState& state_of(BucketId id) { return buckets_[id]; }

  Parts parts_;
  Transport& transport_;
  ParameterShard& shard_;
  WireCodec codec_;
  Aggregator aggregator_;
  FiniteWatch watch_;
  Updater updater_;
  DeferredUpdate deferred_;
  std::optional<HistogramTaker> histograms_;
  std::optional<RowExchange> rows_;
  ConsistencyGate gate_ = ConsistencyGate::bsp();
  MessageLoop loop_;
  IdVector<BucketId, BucketState> buckets_;
  IdVector<WorkerId, std::int64_t> sequence_;  // its last push
  std::vector<std::pair<WorkerId, MessageHeader>> held_pulls_;
  int n_pushed_ = 0;  // buckets and tables
  int n_finished_in_step_ = 0;
  Clock finishing_{0};                                       // that step, where there are any
  std::optional<std::pair<Clock, std::int64_t>> cut_asked_;  // a cut, and its retry, that waits for its step
  std::optional<Clock> finite_asked_;                        // finite_request that waits for this step
  bool has_told_not_finite_ = false;
  std::vector<DeferredUpdate::FinalChunk> final_chunks_;
  bool shutdown_ = false;
  RunEnd end_ = RunEnd::finished;
};

}  // namespace varscope
