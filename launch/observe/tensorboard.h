#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/transport/transport.h"
#include "launch/observe/event_file.h"
#include "launch/observe/run_facts.h"
#include "launch/observe/run_speed.h"
#include "ps/observe/run_observer.h"
#include "ps/update/schedule.h"

namespace varscope {

// Where a run's events are: <run dir>/tensorboard.
std::string tensorboard_dir(const JobConfig& job);

// Writes what happens in a run as events for TensorBoard (docs/tensorboard.md lists them): one file for
// each attempt, by a thread of its own, so that no step waits for it. What goes wrong with the file is
// one warning, to the observer that prints. Borrows all that it is given; `traffic` is that of server 0.
// Used by the coordinator's thread; nothing throws.
class TensorBoard final : public RunObserver {
 public:
  TensorBoard(const RunFacts& facts, const TransportStats& traffic, RunObserver& warnings);
  // Writes what is left.
  ~TensorBoard() override;
  TensorBoard(const TensorBoard&) = delete;
  TensorBoard& operator=(const TensorBoard&) = delete;

  // What is known before the first step; before all else. `header`: the lines that the terminal shows.
  void write_start(const std::vector<std::string>& header);
  void on_step(const StepSummary& step) override;
  void on_epoch(const EpochSummary& epoch) override;
  void on_eval(const EvalSummary& eval) override;
  void on_histograms(const HistogramSummary& all) override;
  void on_consistency(const ConsistencySummary& summary) override;
  void on_checkpoint(const CheckpointSummary& checkpoint) override;
  void on_finish(const FinishSummary& finish) override;

 private:
  struct Scalar {
    std::string tag;
    double value;
  };
  void write(Clock clock, const std::vector<Scalar>& scalars);
  void write_text(const std::string& tag, const std::string& markdown);
  void write_hyperparameters();
  void tell_problem();
  void add_compression(std::vector<Scalar>& scalars);

  const RunFacts& facts_;
  const TransportStats& traffic_;
  RunObserver& warnings_;
  Schedule schedule_;
  EventFile file_;
  // Since the last scalars of training.
  RunSpeed speed_;
  WorkerTimes times_;
  CompressionReport compression_;
  std::int64_t n_dropped_ = 0, n_samples_ = 0;  // since the last point: with backup workers; of all
  std::int64_t n_steps_ = 0;
  TransportStats traffic_before_;
};

}  // namespace varscope
