#include "ps/step_quorum.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "ps/record/recorded_order.h"

namespace varscope {

StepQuorum::StepQuorum(Parts parts)
    : parts_(std::move(parts)),
      last_(parts_.first),
      done_(parts_.n_workers, parts_.first),
      counted_(parts_.n_workers) {
  total_.n_backups = parts_.n_backups;
  total_.workers.assign(parts_.n_workers, {});
}

void StepQuorum::on_done(WorkerId worker, Clock clock) {
  Clock& newest = done_[worker];
  if (clock <= newest || clock.value > last_.value + 1) {
    fail(ErrorKind::protocol,
         "worker {} has a gradient of step {} after that of step {}, where step {} is the next", worker.value,
         clock.value, newest.value, last_.value + 1);
  }
  newest = clock;
  if (clock > last_) in_order_.push_back(worker);
}

std::optional<CountedWorkers> StepQuorum::chosen() const {
  const Clock step(last_.value + 1);
  const auto is_done = [&](WorkerId w) { return done_[w] == step; };
  if (parts_.replay != nullptr) {
    const CountedWorkers* recorded = parts_.replay->counted(step);
    if (recorded == nullptr) return std::nullopt;
    for (WorkerId w : recorded->ids()) {
      if (recorded->has(w) && !is_done(w)) return std::nullopt;
    }
    return *recorded;
  }
  CountedWorkers workers(parts_.n_workers);
  int n = 0;
  bool has_samples = false;
  for (const WorkerId w : in_order_) {
    workers.add(w);
    has_samples = has_samples || parts_.samples(step, w) > 0;
    if (++n >= parts_.n_workers - parts_.n_backups && has_samples) return workers;
  }
  return std::nullopt;
}

void StepQuorum::let_go(CountedWorkers counted) {
  ++last_.value;
  in_order_.clear();
  dropped_ = {};
  for (WorkerId w : counted.ids()) {
    const std::int64_t samples = parts_.samples(last_, w);
    total_.of_samples += samples;
    dropped_.of_samples += samples;
    if (counted.has(w)) continue;
    dropped_.workers.push_back(w);
    dropped_.samples += samples;
    ++total_.workers[w].steps;
    total_.workers[w].samples += samples;
  }
  total_.samples += dropped_.samples;
  counted_ = std::move(counted);
}

}  // namespace varscope
