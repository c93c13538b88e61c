#pragma once

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/config/job_config.h"
#include "common/metrics/metric.h"
#include "common/placement/cluster.h"
#include "common/variables/variable_table.h"
#include "launch/observe/checkpoint_forecast.h"
#include "ps/coordinator.h"
#include "ps/observe/run_observer.h"

namespace varscope {

// What a person sees of a run, and its metrics. Header, epochs, evaluations, checkpoints and summary go to
// standard output; progress goes to standard error: one line that is rewritten on a terminal, a plain line
// every train.log_every_steps otherwise. Metrics are JSON lines in <run dir>/metrics.jsonl (docs/metrics.md).
// Used by the coordinator's thread.
class Console final : public RunObserver {
 public:
  struct Facts {
    const JobConfig& job;
    const ClusterMap& cluster;
    const VariableTable& variables;
    std::vector<std::string> hosts;  // by rank
    TrainPlan train;
    std::int64_t train_samples = 0;
    std::int64_t test_samples = 0;
    std::string run_id;
    int attempt = 1;
    std::string resumed_from;  // path, or ""
    EvalFacts eval = {};
    bool one_process = false;
    std::vector<std::string> notes = {};  // lines of the header, about the start
  };
  // Opens the metrics file, appending. Throws Error(io).
  explicit Console(const Facts& facts);

  // What checkpoints are expected to cost, for the header; the summary compares. Before print_header().
  void set_forecast(const CheckpointSize& size, const CheckpointForecast& forecast);
  void print_header();
  void on_step(const StepSummary& step) override;
  void on_epoch(const EpochSummary& epoch) override;
  void on_eval(const EvalSummary& eval) override;
  void on_checkpoint(const CheckpointSummary& checkpoint) override;
  void on_checkpoint_failed(Clock clock, const std::string& why) override;
  void on_warning(const std::string& what) override;
  void on_request(const std::string& what) override;
  void on_finish(const FinishSummary& finish) override;

 private:
  void line(const std::string& text);
  void clear_progress();
  void progress(const StepSummary& step);
  void log_step(const StepSummary& step);
  void print_times(const FinishSummary& finish);
  void print_forecast();
  void print_actual_cost();
  template <class Json>
  void metric(const char* event, Clock clock, Json fields);

  Facts facts_;
  std::ofstream metrics_;
  bool live_;             // progress is a terminal line
  bool on_line_ = false;  // the cursor stands behind a progress line
  std::int64_t started_ns_;
  std::int64_t first_step_ns_ = 0;  // when the first step was complete: rates start there
  std::int64_t samples_ = 0;        // since then
  std::int64_t total_samples_ = 0;
  std::int64_t last_draw_ns_ = 0;
  BatchSums window_;  // since the last periodic line
  std::int64_t window_started_ns_;
  int n_saves_ = 0;
  double save_stall_s_ = 0, save_copy_s_ = 0, save_write_s_ = 0;  // sums over the saves
  std::optional<CheckpointForecast> forecast_;
  CheckpointSize checkpoint_size_;
  std::optional<EpochSummary> last_epoch_;
  std::optional<std::string> last_eval_;  // "loss 0.3270, accuracy 0.8500"
  nlohmann::json last_figures_ = nlohmann::json::object();
};

}  // namespace varscope
