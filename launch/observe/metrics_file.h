#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include "launch/observe/appended_file.h"
#include "launch/observe/run_facts.h"
#include "launch/observe/run_speed.h"
#include "ps/observe/run_observer.h"

namespace varscope {

// Integers where they are: sums of weights need not be.
nlohmann::json counts_as_json(std::span<const double> counts);

// Writes what happens in a run as JSON lines to <run dir>/metrics.jsonl, each at once (docs/metrics.md). A
// line that cannot be written is lost; the first one is told of. Borrows the facts. Used by the coordinator's
// thread.
class MetricsFile final : public RunObserver {
 public:
  // Opens the file, appending. Throws Error(io).
  explicit MetricsFile(const RunFacts& facts);

  // The line about the start; before all others.
  void write_start();
  void on_step(const StepSummary& step) override;
  void on_epoch(const EpochSummary& epoch) override;
  void on_eval(const EvalSummary& eval) override;
  void on_consistency(const ConsistencySummary& summary) override;
  void on_checkpoint(const CheckpointSummary& checkpoint) override;
  void on_checkpoint_failed(Clock clock, const std::string& why) override;
  void on_not_finite(const NotFiniteSummary& summary) override;
  void on_finish(const FinishSummary& finish) override;

 private:
  void write(const char* event, Clock clock, const nlohmann::json& fields);

  const RunFacts& facts_;
  AppendedFile file_;
  std::int64_t started_ns_;
  RunSpeed speed_;
  CompressionReport compression_;                           // since the last line of a step
  nlohmann::json last_metrics_ = nlohmann::json::object();  // of the last evaluation, those that are a number
};

}  // namespace varscope
