#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "ps/checkpointing/checkpoint_coordinator.h"
#include "ps/checkpointing/shard_checkpointer.h"
#include "ps/coordinator.h"
#include "ps/record/recorded_order.h"
#include "ps/record/step_record.h"
#include "ps/server.h"
#include "ps/store/parameter_shard.h"
#include "ps/tables/table_shards.h"
#include "ps/update/optimizer.h"

namespace varscope {

// A server rank from its first byte of memory to the end of its service: shard, optimizer, its part of saves,
// and on server 0 the coordinator. Borrows what Parts refers to and what `control` observes; owns the rest.
// One thread.
class ServerRank {
 public:
  // What checkpoints need; the same on all servers.
  struct Saves {
    Fs& fs;
    std::string dir;
    CheckpointConfig config;
    ShardCheckpointer::Options options = {};
    // What the rank cannot know of the job: program, run, attempt, parent, config. It fills in the rest.
    Manifest manifest = {};
    std::string resumed_from = {};          // path, or ""
    std::vector<std::string> lineage = {};  // lines for LINEAGE (docs/checkpoint_format.md), of this start
  };
  // What server 0 needs to lead the run.
  struct Control {
    TrainPlan train;
    RunObserver& observer;
    CoordinatorState state = {};
    EvaluationSpec evaluation = {};
    OnNan on_nan = OnNan::stop;
    std::optional<EarlyStop> stop = {};
    std::optional<StreamControl::Options> stream = {};  // from state.stream on, where there is one
    StepQuorum::Samples samples = {};                   // with backup workers
  };
  // Where the run is recorded; the same on all servers.
  struct Record {
    Fs& fs;
    std::string run_dir;
    RecordHeader header;                           // whose `server` and `n_units` are filled in
    std::function<void(const std::string&)> tell;  // what goes wrong with it
  };
  // A recorded run that is to be done again.
  struct Replay {
    Fs& fs;
    RecordedRun run;
  };
  struct Parts {
    Transport& transport;
    const ClusterMap& cluster;
    const VariableTable& variables;
    const BucketPlan& plan;
    ServerId id;
    OptimizerConfig optimizer;
    // Sets the values, slots and clocks of what the server has, tables being empty. It comes first: where it
    // throws, no checkpoint has been touched.
    std::function<void(ParameterShard&, TableShards&)> fill;
    std::string start_id;             // of this start of the job; names its saves
    std::optional<Saves> saves = {};  // nothing: no checkpoints
    // Server 0 only. Nothing: no coordinator; somebody else sends `shutdown`, as a benchmark does.
    std::optional<Control> control = {};
    double stall_timeout_s = 60;
    std::vector<std::string> hosts = {};  // by rank; for messages
    Aggregator::Limits limits = {};
    RunRequests* requests = nullptr;
    std::int64_t histogram_every_steps = 0;  // 0: never
    const RowPlan* rows = nullptr;           // null: there are no tables
    std::uint64_t seed = 1;                  // of the first values of tables' rows
    StepRule rule = {};
    Clock first{0};  // of the values that `fill` sets; only where the rule is not BSP, or has a delay
    std::int64_t staleness_every_steps = 0;  // 0: how stale reads are is said at the end alone
    std::optional<Record> record = {};       // nothing: the run is not recorded
    std::optional<Replay> replay = {};       // nothing: it is no replay
    FlushRule flush = {};                    // which values each step reads where there is a delay, and after
                                             // which steps workers hold no residuals of compression
  };
  // Throws Error(checkpoint, io), and what `fill` throws.
  explicit ServerRank(const Parts& parts);
  ServerRank(const ServerRank&) = delete;
  ServerRank& operator=(const ServerRank&) = delete;

  RunEnd run() { return server_->run(); }
  const Optimizer& optimizer() const { return optimizer_; }

 private:
  void make_saves(const Parts& parts);
  void make_record(const Parts& parts);
  void make_replay(const Parts& parts, const RecordedRun& run);
  Manifest manifest_of(const Parts& parts) const;

  Optimizer optimizer_;
  ParameterShard shard_;
  TableShards tables_;
  std::optional<ShardCheckpointer> checkpointer_;
  std::optional<CheckpointCoordinator> checkpoints_;
  std::optional<StepRecord> record_;
  std::optional<TicketRecord> ticket_record_;  // server 0 only
  std::optional<RecordedOrder> replay_;
  std::optional<RecordedTickets> ticket_replay_;  // server 0 only
  std::optional<Coordinator> coordinator_;
  std::optional<Server> server_;
};

}  // namespace varscope
