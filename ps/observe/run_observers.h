#pragma once

#include <vector>

#include "ps/observe/run_observer.h"

namespace varscope {

// Several observers as one: each event goes to all of them, in the order in which they were added, before the
// next event. What one of them throws ends the job, so that those after it are not told. Borrows the
// observers: whoever assembles a server rank owns them, and they outlive its coordinator. Used by the
// coordinator's thread.
class RunObservers final : public RunObserver {
 public:
  void add(RunObserver& observer) { observers_.push_back(&observer); }

  void on_step(const StepSummary& step) override { tell(&RunObserver::on_step, step); }
  void on_epoch(const EpochSummary& epoch) override { tell(&RunObserver::on_epoch, epoch); }
  void on_eval(const EvalSummary& eval) override { tell(&RunObserver::on_eval, eval); }
  void on_histograms(const HistogramSummary& all) override { tell(&RunObserver::on_histograms, all); }
  void on_consistency(const ConsistencySummary& summary) override {
    tell(&RunObserver::on_consistency, summary);
  }
  void on_checkpoint(const CheckpointSummary& made) override { tell(&RunObserver::on_checkpoint, made); }
  void on_checkpoint_failed(Clock clock, const std::string& why) override {
    tell(&RunObserver::on_checkpoint_failed, clock, why);
  }
  void on_not_finite(const NotFiniteSummary& what) override { tell(&RunObserver::on_not_finite, what); }
  void on_warning(const std::string& what) override { tell(&RunObserver::on_warning, what); }
  void on_request(const std::string& what) override { tell(&RunObserver::on_request, what); }
  void on_note(const std::string& what) override { tell(&RunObserver::on_note, what); }
  void on_finish(const FinishSummary& finish) override { tell(&RunObserver::on_finish, finish); }

 private:
  template <class... Parameters, class... Facts>
  void tell(void (RunObserver::*event)(Parameters...), const Facts&... facts) {
    for (RunObserver* observer : observers_) (observer->*event)(facts...);
  }
  std::vector<RunObserver*> observers_;
};

}  // namespace varscope
