#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/observe/run_facts.h"
#include "launch/observe/run_records.h"
#include "launch/observe/run_speed.h"
#include "ps/observe/run_observer.h"

namespace varscope {

// The lines about a run before its first step.
std::vector<std::string> header_lines(const RunFacts& facts);

// What a person sees of a run. Header, epochs, evaluations, checkpoints and summary go to standard output;
// progress goes to standard error: one line that is rewritten on a terminal, a plain line every
// train.log_every_steps otherwise. A standard output that takes nothing any more is told of once. Borrows the
// facts. Used by the coordinator's thread.
class Terminal final : public RunObserver {
 public:
  // What is shown, and the step lines in any case, goes into `records` as well, where there are some.
  explicit Terminal(const RunFacts& facts, RunRecords* records = nullptr);

  void print_header();
  void on_step(const StepSummary& step) override;
  void on_epoch(const EpochSummary& epoch) override;
  void on_eval(const EvalSummary& eval) override;
  void on_checkpoint(const CheckpointSummary& checkpoint) override;
  void on_checkpoint_failed(Clock clock, const std::string& why) override;
  void on_not_finite(const NotFiniteSummary& summary) override;
  void on_warning(const std::string& what) override;
  void on_request(const std::string& what) override;
  void on_note(const std::string& what) override;
  void on_finish(const FinishSummary& finish) override;

 private:
  void line(const std::string& text);
  void record(const std::string& text);
  void clear_progress();
  void draw_progress(const StepSummary& step);
  void log_step(const StepSummary& step);
  void print_stream(const StreamSummary& s, bool has_done_nothing);
  void print_times(const FinishSummary& finish);
  void print_compression(const CompressionReport& compression);
  void print_actual_cost();

  const RunFacts& facts_;
  RunRecords* records_;
  bool live_;             // progress is a terminal line
  bool on_line_ = false;  // the cursor stands behind a progress line
  bool has_lost_lines_ = false;
  std::int64_t started_ns_;
  RunSpeed speed_;
  std::int64_t last_draw_ns_ = 0;
  int n_saves_ = 0;
  double save_stall_s_ = 0, save_copy_s_ = 0, save_write_s_ = 0;  // sums over the saves
  std::optional<EpochSummary> last_epoch_;
  std::optional<std::string> last_eval_;  // "loss 0.3270, accuracy 0.8500"
};

}  // namespace varscope
