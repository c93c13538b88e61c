#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "common/placement/cluster.h"
#include "common/transport/reports.h"
#include "common/transport/run_requests.h"
#include "worker/client/ps_client.h"
#include "worker/client/variable_memory.h"
#include "worker/data/batch_source.h"
#include "worker/graph/executor.h"
#include "worker/graph/local_states.h"
#include "worker/layers/model.h"
#include "worker/train/evaluator.h"
#include "worker/train/table_steps.h"

namespace varscope {

// One row alone has no variance. Throws Error(config) for an op that takes statistics of rows (a sample has
// as many as pixels, or steps), where a logical worker's part of a whole batch may have one row only.
void check_statistics(const Graph& graph, std::int64_t batch, std::int64_t logical_workers);

// A worker rank's training loop in BSP: for each step, its logical workers' parts of the global batch forward
// and backward; each bucket is pushed as soon as backward has finished it, and waited for only when forward
// reads it. The numbered path is in docs/data_path.md. One thread; borrows everything.
class Trainer {
 public:
  struct Parts {
    const JobConfig& job;
    const ClusterMap& cluster;
    const Model& model;
    const Model* evaluation;  // the same model in GraphMode::evaluate; null without a test set
    const std::vector<const Variable*>& variables;  // in the order of the VariableTable
    BatchSource& train;
    const Dataset* test;  // may be null
    PsClient& client;
    VariableMemory& memory;
    const LocalSumPlan& sum_plan;
    Clock first;  // of the values to start from
    Clock last;
    std::vector<LocalRows> locals = {};  // of all workers, when a run goes on
    bool check_numerics = false;
    bool profile = false;
    RunRequests* requests = nullptr;  // of this rank; null: nobody asks
    bool evaluate_first = false;      // TrainPlan::evaluates_first
  };
  explicit Trainer(const Parts& parts);

  // From the first pull to the coordinator's shutdown.
  RunEnd run();
  // Where this worker's time in the training graph went; REQUIRES Parts::profile.
  std::string profile() const;

 private:
  struct PendingBucket {  // which variables of a bucket backward has not finished yet
    int n_variables = 0;
    int n_missing = 0;
  };
  bool goes_on(Clock done, bool was_evaluated);
  bool may_train(Clock clock);
  bool await_data(Clock clock);
  void take_feeds();
  void train_step(Clock clock);
  // A logical worker is called by its position among this worker's, from 0: a leaf of the sum plan.
  BatchSums run_logical_worker(std::size_t logical_worker, Clock clock);
  void forward(bool wait_for_values);
  void backward(std::size_t logical_worker, Clock clock, double scale);
  void finish_variable(const Variable& variable, std::size_t logical_worker, Clock clock);
  void finish_bucket(const Bucket& bucket, std::size_t logical_worker, Clock clock);
  void bind_gradients(int buffer);
  void read(Batch& batch, int v, Clock clock);
  void want_rows(Clock clock);
  bool asks_early(Clock clock);
  void wait_go(Clock clock);
  void feed(const BatchView& samples);
  int global_number(std::size_t logical_worker) const;
  void check_values(Clock clock) const;
  void load_locals();
  std::vector<LocalRows> save_locals(Clock clock) const;
  BatchSums sums_of_batch(std::int64_t rows);
  void evaluate(Clock clock);
  void start_times();
  void report_step(Clock clock, std::vector<BatchSums> sums);
  std::string state_text(Clock clock) const;
  bool evaluates_after(Clock clock) const;
  int table_index(const Variable& v) const { return table_index_[static_cast<std::size_t>(v.index())]; }

  Parts parts_;
  Executor executor_;
  LocalStates states_;
  std::optional<Evaluator> evaluator_;
  std::vector<Batch> batches_;  // one, or with tables of each logical worker: rows are asked for all at once
  TableSteps tables_;
  ServerRows server_rows_;
  Clock wanted_{-1};                          // the step whose rows have been asked for
  double weight_ = 0;                         // of the samples in it; 0 without weights
  std::vector<int> table_index_;              // by Variable::index()
  std::vector<std::vector<BucketId>> reads_;  // by forward step: the buckets it needs
  IdVector<BucketId, PendingBucket> pending_;
  std::uint32_t flags_ = 0;  // of the step under way, once it has been let go
  bool released_ = false;
  std::int64_t data_ns_ = 0;
  std::int64_t reported_ns_ = 0;  // since when times count for the next report
};

}  // namespace varscope
