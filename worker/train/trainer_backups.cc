// The trainer's part of BSP with backup workers: docs/consistency.md.
#include "common/transport/wire.h"
#include "worker/train/trainer.h"

namespace varscope {

// Trains step `clock`, or drops it where it has been let go without this worker. Returns the step whose
// values are on their way: that one, or the newest that has been let go. None is let go after an evaluated
// one before all workers have evaluated, so no evaluation is missed.
Clock Trainer::train_counted_step(Clock clock) {
  if (parts_.train.begins_pass(clock)) states_.reset();
  computing_ = clock;
  std::vector<BatchSums> sums;
  if (!is_left_behind() && !tables_.empty() && wanted_ != clock) want_rows(clock);
  if (!is_left_behind()) sums = run_logical_workers(clock);
  if (!is_left_behind()) {
    // All values of the step before are here: whoever is named has computed with exactly these.
    MessageHeader done = make_header(MessageType::gradient_done, parts_.client.worker().value, clock);
    done.flags = parts_.requests != nullptr ? parts_.requests->take() : 0;
    parts_.client.send_to_coordinator(done, {});
  }
  const PsClient::StepGo go = parts_.client.wait_newest_go(clock);
  flags_ = go.flags;
  if (!is_counted(go, clock)) {
    catch_up(go);
    return go.step;
  }
  push_counted(go);
  released_ = true;
  report_step(clock, std::move(sums));
  released_ = false;
  if (!tables_.empty() && asks_early(clock)) want_rows(Clock(clock.value + 1));
  return clock;
}

// A step that is under way here has been let go: nobody waits for this worker's gradient.
bool Trainer::is_left_behind() const {
  if (!parts_.rule.has_backups()) return false;
  const std::optional<PsClient::StepGo>& go = parts_.client.newest_go();
  return go && go->step >= computing_;
}

bool Trainer::is_counted(const PsClient::StepGo& go, Clock clock) const {
  return go.step == clock && go.counted.n_workers() > 0 && go.counted.has(parts_.client.worker());
}

// Both sums are formed in the same order, so that a step of which all count is multiplied by 1. Where what
// counts weighs nothing, so does the sum.
CountedPush Trainer::counted_push(const PsClient::StepGo& go) {
  double weight = 0, counted_weight = 0, samples = 0, counted_samples = 0;
  for (WorkerId w : go.counted.ids()) {
    const Range part = parts_.train.part(go.step, parts_.cluster.leaves_of(w).begin);
    const double of_worker = part.size() > 0 ? parts_.train.weight(go.step, part) : 0;
    weight += of_worker;
    samples += static_cast<double>(part.size());
    if (!go.counted.has(w)) continue;
    counted_weight += of_worker;
    counted_samples += static_cast<double>(part.size());
  }
  return {counted_weight > 0 ? weight / counted_weight : 1,
          counted_samples > 0 ? samples / counted_samples : 1, go.counted};
}

void Trainer::push_counted(const PsClient::StepGo& go) {
  const std::string body = counted_push(go).to_bytes();
  for (const Bucket& bucket : parts_.client.plan().buckets()) {
    if (!bucket.is_pushed()) continue;
    if (leaf_goes_encoded(bucket, go.step)) {
      parts_.client.push(bucket.id, go.step, flags_, coder_, body);
    } else {
      parts_.client.push(bucket.id, go.step, flags_, body);
    }
    parts_.client.progress();
  }
  if (!tables_.empty()) tables_.push(go.step, flags_, nullptr, body);
}

// What was computed is dropped. The values may be newer than the step that they are asked for, or of several
// steps: then the next one has been let go, too, and is dropped in its turn.
void Trainer::catch_up(const PsClient::StepGo& go) {
  const std::uint32_t asked = parts_.requests != nullptr ? parts_.requests->take() : 0;
  if (asked != 0) {
    MessageHeader request = make_header(MessageType::request, parts_.client.worker().value, Clock(0));
    request.flags = asked;
    parts_.client.send_to_coordinator(request, {});
  }
  parts_.client.wait_all();
  parts_.client.pull_pushed(go.step);
}

// Whether step `clock` is computed at all: evaluations may have ended the run.
bool Trainer::may_compute(Clock clock) {
  const PsClient::StepGo& go = parts_.client.wait_begin(clock);
  start_times();
  return (go.flags & kFlagEnd) == 0;
}

}  // namespace varscope
