#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/config/flush_rule.h"
#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "common/placement/cluster.h"
#include "common/transport/reports.h"
#include "common/transport/run_requests.h"
#include "worker/client/coded_pushes.h"
#include "worker/client/ps_client.h"
#include "worker/client/variable_memory.h"
#include "worker/data/batch_source.h"
#include "worker/graph/executor.h"
#include "worker/graph/local_states.h"
#include "worker/layers/model.h"
#include "worker/train/evaluator.h"
#include "worker/train/push_clip.h"
#include "worker/train/table_steps.h"

namespace varscope {

// One row alone has no variance. Throws Error(config) for an op that takes statistics of rows (a sample has
// as many as pixels, or steps), where a logical worker's part of a whole batch may have one row only.
void check_statistics(const Graph& graph, std::int64_t batch, std::int64_t logical_workers);

// A worker rank's training loop. In BSP: for each step, its logical workers' parts of the global batch
// forward and backward; each bucket is pushed as soon as backward has finished it, and waited for only when
// forward reads it. With backup workers it is pushed when all is computed, by those who were first; the
// others drop it and go on with the newest values (trainer_backups.cc). In SSP and ASP: the same for each
// ticket that server 0 deals out (trainer_tickets.cc). The numbered path is in docs/data_path.md, tickets
// are in docs/consistency.md. One thread; borrows everything.
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
    FlushRule flush = {};             // of residuals; and by which values each step reads
    StepRule rule = {};               // where it is not BSP, the sum plan is ticket_sum_plan()
    std::function<void(const std::string&)> warn = {};  // tells the user; may be empty
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
  // What server 0 has dealt out to this worker.
  struct Ticket {
    Clock step;
    int leaf_begin = 0;
    std::int64_t n_samples = 0;  // of its leaves
    double weight = 0;           // of these
    double share = 0;            // of the step's
    Clock held_after{0};         // PushDetails
    bool is_cut = false;         // the step is cut
  };
  enum class Evaluates : std::uint8_t { no, yes };
  void meet(Clock clock, Evaluates evaluates);
  Clock run_steps();
  bool goes_on(Clock done, bool was_evaluated);
  // trainer_backups.cc
  Clock train_counted_step(Clock clock);
  bool may_compute(Clock clock);
  bool is_left_behind() const;
  bool is_counted(const PsClient::StepGo& go, Clock clock) const;
  CountedPush counted_push(const PsClient::StepGo& go);
  void push_counted(const PsClient::StepGo& go);
  void catch_up(const PsClient::StepGo& go);
  // trainer_tickets.cc
  Clock run_tickets();
  void begin_ticket(const MessageHeader& go);
  void run_ticket();
  bool drain(Clock clock);
  void push_of_ticket(const Bucket& bucket);
  PushOfTicket push_of_ticket();
  void clip_and_push(const std::vector<BatchSums>& sums);
  void ask_for_next(std::size_t logical_worker);
  void look_for_next();
  bool may_train(Clock clock);
  bool await_data(Clock clock);
  void take_feeds();
  void train_step(Clock clock);
  std::vector<BatchSums> run_logical_workers(Clock clock);
  // A logical worker is called by its position among this worker's, from 0: a leaf of the sum plan.
  BatchSums run_logical_worker(std::size_t logical_worker, Clock clock);
  void forward(bool wait_for_values);
  void wait_to_read(BucketId id);
  void wait_to_read_all(Clock clock);
  void backward(std::size_t logical_worker, Clock clock, double scale);
  void finish_variable(const Variable& variable, std::size_t logical_worker, Clock clock);
  void finish_bucket(const Bucket& bucket, std::size_t logical_worker, Clock clock);
  // trainer_compression.cc
  bool is_coded_by_leaf(const Bucket& bucket) const { return parts_.rule.is_bsp() && coder_.handles(bucket); }
  static std::int64_t planned_steps(const Parts& parts);
  bool leaf_goes_encoded(const Bucket& bucket, Clock clock) const;
  void code_gradient(const Bucket& bucket, std::size_t logical_worker, Clock clock);
  bool measures_norms(Clock clock) const;
  void bind_memory(int buffer, Clock clock);
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
  GradientCoder coder_;
  CodedPushes coded_pushes_;      // where tickets are dealt
  std::optional<PushClip> clip_;  // where this worker clips its pushes by norm
  ServerRows server_rows_;
  Clock wanted_{-1};                          // the step whose rows have been asked for
  double weight_ = 0;                         // of the samples in it; 0 without weights
  Ticket ticket_;                             // where tickets are dealt: the one under way
  std::optional<MessageHeader> next_go_;      // what comes after it, once that is known
  std::vector<int> table_index_;              // by Variable::index()
  std::vector<std::vector<BucketId>> reads_;  // by forward step: the buckets it needs
  IdVector<BucketId, PendingBucket> pending_;
  Clock read_;               // the values of the step under way are those after this one (BSP)
  std::uint32_t flags_ = 0;  // of the step under way, once it has been let go
  bool released_ = false;
  Clock computing_{0};  // with backup workers: the step under way
  std::int64_t data_ns_ = 0;
  std::int64_t reported_ns_ = 0;  // since when times count for the next report
};

// How a worker sums the leaves of a ticket: they are a tree of their own.
LocalSumPlan ticket_sum_plan(const StepRule& rule, const ClusterMap& cluster, WorkerId worker);

}  // namespace varscope
