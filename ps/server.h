#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/placement/cluster.h"
#include "common/transport/message_loop.h"
#include "common/transport/run_requests.h"
#include "ps/checkpointing/shard_checkpointer.h"
#include "ps/coordinator.h"
#include "ps/step_protocol.h"
#include "ps/store/parameter_shard.h"
#include "ps/update/finite_watch.h"

namespace varscope {

// The loop of a server rank: hands pushes and reads to the StepProtocol of its mode, cuts its shard, says
// what is not finite, and ends when it is told to. Server 0 also drives the coordinator. See
// docs/data_path.md. One thread; borrows everything it is given.
class Server final : private MessageHandler, private StepListener {
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
    StepRule rule = {};
    Clock first{0};                          // of the values that the run starts from
    std::int64_t staleness_every_steps = 0;  // StalenessReport; 0: at the end alone
    StepRecord* record = nullptr;            // StepProtocol::Parts
    RecordedOrder* replay = nullptr;         // the same
    FlushRule flush = {};                    // the same
  };
  explicit Server(const Parts& parts);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves until a message says shutdown; may be called again after that. Throws Error(protocol, stall, io,
  // mpi); on server 0 also what its coordinator throws.
  RunEnd run();

 private:
  bool work();
  void on_message(const Message& message) override;
  void on_worker_message(WorkerId worker, const Message& message);
  void on_completion(const Completion& completion) override { steps_->on_completion(completion); }
  void on_step_end(Clock clock, bool is_cut) override;
  void on_cut(Clock clock, std::int64_t retry);
  void on_cut_given_up(Clock clock);
  void cut(Clock clock, std::int64_t retry);
  void report_outcome();
  void tell(const ShardOutcome& outcome, Clock step);
  void pass_requests_on();
  void report_hashes();
  void answer_finite_request(Clock clock);
  void report_not_finite(bool is_answer);
  void report_staleness(Clock clock);
  bool has_found_not_finite() const;
  template <class F>
  void for_each_table(const F& f) const;

  Parts parts_;
  Transport& transport_;
  ParameterShard& shard_;
  FiniteWatch watch_;
  std::unique_ptr<StepProtocol> steps_;
  MessageLoop loop_;
  std::optional<std::pair<Clock, std::int64_t>> cut_asked_;  // a cut, and its retry, that waits for its step
  std::optional<Clock> finite_asked_;                        // finite_request that waits for this step
  bool has_told_not_finite_ = false;
  Clock staleness_told_;  // of the last StalenessReport
  bool shutdown_ = false;
  RunEnd end_ = RunEnd::finished;
};

}  // namespace varscope
