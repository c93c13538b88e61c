#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/placement/cluster.h"
#include "common/transport/run_requests.h"
#include "launch/job/directory_feed.h"
#include "launch/job/job_setup.h"
#include "launch/job/start_values.h"
#include "launch/observe/metrics_file.h"
#include "launch/observe/run_records.h"
#include "launch/observe/tensorboard.h"
#include "launch/observe/terminal.h"
#include "launch/process/signals.h"
#include "ps/observe/run_observers.h"
#include "ps/server_rank.h"

namespace varscope {

// Everything a rank needs to know to play its role.
struct JobContext {
  explicit JobContext(Fs& where) : fs(where) {}
  Fs& fs;  // of the checkpoints
  StartPacket start;
  std::optional<Manifest> manifest;  // of the checkpoint that `start` names, where this rank has decoded it
  ClusterMap cluster;
  std::vector<std::string> hosts;
  ModelFacts facts;
  BucketPlan plan;
  RowPlan rows;
  StartValues values;
  TrainPlan train;
  StepRule rule;
  CoordinatorState state;
  bool one_process = false;
  StartCommand command;  // for the run's records; rank 0 only
  RunRequests* requests = &watch_user_signals();

  const JobConfig& job() const { return start.job; }
  bool saves() const {
    const CheckpointConfig& c = job().checkpoint;
    if (start.is_replay()) return false;
    return c.every_steps > 0 || c.every_seconds > 0 || c.every_records > 0 || c.at_end;
  }
};

// The plans that follow from start, cluster and facts. Throws Error(checkpoint, config).
void complete_context(JobContext& context);

// A server rank from its first byte of memory to the coordinator's shutdown; two steps, so that what the
// first one throws can be agreed on.
class ServerRole {
 public:
  // Borrows both. Throws Error(checkpoint, io).
  ServerRole(const JobContext& context, ServerId id, Transport& transport);
  RunEnd run();

 private:
  void make_observers(const Transport& transport);
  void write_left_out();
  StreamControl::Options follow();
  std::optional<PredictedCost> predicted_cost();
  ServerRank::Saves saves() const;

  const JobContext& context_;
  // Server 0 only.
  std::optional<RunFacts> facts_;
  std::optional<RunRecords> records_;
  std::optional<Terminal> terminal_;
  std::optional<MetricsFile> metrics_file_;  // unless output.metrics is false
  std::optional<TensorBoard> tensorboard_;   // where output.tensorboard is true
  RunObservers observers_;                   // the terminal, then the files
  std::optional<DirectoryFeed> feed_;        // where a directory is followed
  std::optional<ServerRank> rank_;
};

// A worker rank: trains until the job ends.
RunEnd run_worker(const JobContext& context, const WorkerModel& model, WorkerId id, Transport& transport);

}  // namespace varscope
