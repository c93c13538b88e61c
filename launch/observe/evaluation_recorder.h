#pragma once

#include "common/metrics/metric.h"
#include "ps/checkpointing/checkpoint_coordinator.h"
#include "ps/observe/run_observer.h"

namespace varscope {

// Hands everything on to another observer; and the figures of each evaluation to the checkpoints, which keep
// them for checkpoint.keep_best. Borrows what it is given; `saver` may be null. Used by the coordinator's
// thread.
class EvaluationRecorder final : public RunObserver {
 public:
  EvaluationRecorder(RunObserver& next, const EvalFacts& facts, CheckpointCoordinator* saver)
      : next_(next), facts_(facts), saver_(saver) {}

  void on_step(const StepSummary& step) override { next_.on_step(step); }
  void on_epoch(const EpochSummary& epoch) override { next_.on_epoch(epoch); }
  void on_eval(const EvalSummary& eval) override;
  void on_checkpoint(const CheckpointSummary& checkpoint) override { next_.on_checkpoint(checkpoint); }
  void on_checkpoint_failed(Clock clock, const std::string& why) override {
    next_.on_checkpoint_failed(clock, why);
  }
  void on_warning(const std::string& what) override { next_.on_warning(what); }
  void on_request(const std::string& what) override { next_.on_request(what); }
  void on_finish(const FinishSummary& finish) override { next_.on_finish(finish); }

 private:
  RunObserver& next_;
  const EvalFacts& facts_;
  CheckpointCoordinator* saver_;
};

// By name: "loss", and each metric that is a number.
EvaluationRecord record_of(const EvalFacts& facts, const EvalSummary& eval);

}  // namespace varscope
