#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/config/flush_rule.h"
#include "common/placement/cluster.h"
#include "common/transport/loopback_transport.h"
#include "ps/server_rank.h"
#include "ps/update/optimizer.h"
#include "worker/client/gradient_coder.h"
#include "worker/client/ps_client.h"
#include "worker/client/variable_memory.h"

// Real servers and clients that exchange synthetic gradients, over any transport, and what must come of it.
namespace varscope::testing {

struct Exchange {
  VariableTable variables;
  OptimizerConfig optimizer;
  std::uint64_t seed = 5;
  int steps = 4;
  bool ack_last = false;  // the last pushes ask for an ack; the values are pulled afterwards
  double server_stall_s = 60;
  double worker_stall_s = 60;
  Aggregator::Limits limits;
  std::string checkpoint_dir;  // empty: no checkpoints; else one when `every_steps` are done, one at the end
  int every_steps = 2;
  Fs* fs = nullptr;  // null: the real one
  ShardCheckpointer::Options snapshot = {};
  WhenBusy when_busy = WhenBusy::skip;
  int first = 0;  // not 0: goes on from the checkpoint of this step
  // Workers are through only when the checkpoint of the last step is there: as in a long evaluation.
  bool waits_for_last_save = false;
  OnNan on_nan = OnNan::stop;
  int histogram_every_steps = 0;
  FlushRule flush = {};  // of compressed variables; and of a delay, which is that of the rule, too
  // Workers pull all values anew after each step that is flushed, as for an evaluation.
  bool pulls_at_flushes = false;
  // Is called by each worker before it computes a step; may sleep.
  std::function<void(WorkerId, Clock)> before_step = {};
  // A counter-test: what gradients lose in their encoding is forgotten at once.
  bool forgets_residuals = false;
  // Of (variable, element, leaf, value), in place of synthetic_gradient(); of float32.
  std::function<float(int, std::int64_t, int, float)> gradient = {};
  std::function<double(Clock)> loss = {};  // of each logical worker's two samples; unset: some number
};

// Several chunks, scattered slices, two precisions, a variable that is never pushed, a scalar.
VariableTable exchange_table();
Exchange default_exchange();

// Depends on the value, so that a worker with a stale or torn value pushes something else.
template <class T>
T synthetic_gradient(int variable, std::int64_t element, int leaf, std::int64_t step, T value) {
  std::uint64_t x = static_cast<std::uint64_t>(element + 1) * 0x9E3779B97F4A7C15U +
                    static_cast<std::uint64_t>(variable * 7919 + leaf * 104'729 + step * 1'299'709);
  x ^= x >> 31;
  x *= 0xBF58476D1CE4E5B9U;
  x ^= x >> 29;
  const T random = static_cast<T>(static_cast<double>(x >> 40) * 0x1p-23 - 1.0);
  return random + T(0.01) * value;
}

// The run by definition: one process, whole variables, no slices, buckets, chunks or messages. Knows neither
// clipping nor constraints.
Digest reference_hash(const Exchange& e, int n_leaves);
// Adds a variable that lies whole in memory to the hash of all values.
void add_values(const VariableSpec& v, const std::byte* memory, ValuesHash& hash);

class RowWorker;

class ExchangeWorker {
 public:
  ExchangeWorker(Transport& transport, const ClusterMap& cluster, const Exchange& e, WorkerId worker);

  PsClient& client() { return client_; }
  // The values it has now, by variable.
  std::vector<Tensor> values() const;
  void push_step(Clock clock, std::uint32_t extra_flags = 0);
  // Returns the hash of the values it has at the end.
  Digest run();
  Digest finish();
  ~ExchangeWorker();
  ExchangeWorker(const ExchangeWorker&) = delete;
  ExchangeWorker& operator=(const ExchangeWorker&) = delete;

 private:
  void let_go(Clock clock);
  void wait_to_read(Clock clock);
  bool goes_encoded(const Bucket& bucket, Clock clock) const;
  void compute(const Bucket& bucket, std::size_t leaf, Clock clock);
  const Exchange& exchange_;
  BucketPlan plan_;
  RowPlan rows_;
  LeafRange leaves_;
  LocalSumPlan sums_;
  VariableMemory memory_;
  GradientCoder coder_;
  PsClient client_;
  std::unique_ptr<RowWorker> row_worker_;  // where there are tables
  Clock released_, wanted_{-1};
  std::uint32_t flags_ = 0;
};

class ExchangeServer : private RunObserver {
 public:
  ExchangeServer(Transport& transport, const ClusterMap& cluster, const Exchange& e, ServerId server);
  void run() { server_->run(); }
  const std::optional<FinishSummary>& finished() const { return finished_; }  // server 0 only
  const std::vector<StepSummary>& steps() const { return steps_; }
  const std::vector<NotFiniteSummary>& not_finite() const { return not_finite_; }
  const std::vector<HistogramSummary>& histograms() const { return histograms_; }

 private:
  void fill(ParameterShard& shard, TableShards& tables, const Exchange& e);
  void on_step(const StepSummary& s) override { steps_.push_back(s); }
  void on_finish(const FinishSummary& f) override { finished_ = f; }
  void on_not_finite(const NotFiniteSummary& s) override { not_finite_.push_back(s); }
  void on_histograms(const HistogramSummary& s) override { histograms_.push_back(s); }
  // For the reader of a failed test.
  void on_checkpoint_failed(Clock clock, const std::string& why) override;
  PosixFs posix_;
  Fs& fs_;
  BucketPlan plan_;
  RowPlan rows_;
  std::optional<ServerRank> server_;
  std::optional<FinishSummary> finished_;
  std::vector<StepSummary> steps_;
  std::vector<NotFiniteSummary> not_finite_;
  std::vector<HistogramSummary> histograms_;
};

struct ExchangeResult {
  std::string error;           // the first rank's; empty when all went well
  std::optional<Digest> hash;  // as the coordinator tells it
  IdVector<WorkerId, Digest> worker_hash;
  std::vector<StepSummary> steps;
  std::optional<FinishSummary> finish;
  std::vector<NotFiniteSummary> not_finite;
  std::vector<HistogramSummary> histograms;
  std::vector<Tensor> values;                  // of worker 0 at the end, by variable
  std::uint64_t bytes_up = 0, bytes_down = 0;  // of data: that all workers, and that all servers sent
};

// All ranks as threads of this process. A run that does not end is aborted, and `error` says "stuck".
ExchangeResult run_over_loopback(const Exchange& e, int n_servers, int n_workers, int n_leaves,
                                 LoopbackFaults faults = {});

}  // namespace varscope::testing
