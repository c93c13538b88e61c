#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "common/base/ids.h"
#include "common/transport/counted_workers.h"
#include "ps/observe/dropped_summary.h"

namespace varscope {

class RecordedTickets;

// Whose gradients make a step where there are backup workers (Chen, Pan, Monga, Bengio, Jozefowicz:
// Revisiting Distributed Synchronous SGD, 2016): of W workers the first W - b that have theirs. What the
// others compute of that step is dropped, and is counted here. Where none of the first W - b has samples, as
// in a short last batch, others are waited for until one has. Of a run that is done again the recorded
// workers make a step. One thread.
class StepQuorum {
 public:
  // How many samples of a step a worker has.
  using Samples = std::function<std::int64_t(Clock, WorkerId)>;
  struct Parts {
    int n_workers = 1;
    int n_backups = 0;  // less than that
    Clock first{0};     // of the values that the run starts from
    Samples samples;
    const RecordedTickets* replay = nullptr;
  };
  explicit StepQuorum(Parts parts);

  // The worker has its gradient of step `clock`. Throws Error(protocol) for a step that it cannot have one
  // of.
  void on_done(WorkerId worker, Clock clock);
  // Whose gradients make the step after the last one that was let go; nothing while more are waited for.
  std::optional<CountedWorkers> chosen() const;
  // That step is let go with these.
  void let_go(CountedWorkers counted);
  // Of the step that was let go last.
  const CountedWorkers& counted() const { return counted_; }
  const DroppedStep& dropped() const { return dropped_; }
  // Of all steps that were let go.
  const DroppedSummary& total() const { return total_; }

 private:
  Parts parts_;
  Clock last_;                      // that was let go
  IdVector<WorkerId, Clock> done_;  // the newest of each
  std::vector<WorkerId> in_order_;  // who has a gradient of the step after the last
  CountedWorkers counted_;
  DroppedStep dropped_;
  DroppedSummary total_;
};

}  // namespace varscope
