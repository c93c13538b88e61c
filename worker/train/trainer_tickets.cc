// The trainer's loop where tickets are dealt out (SSP, ASP): docs/consistency.md.
#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/transport/wire.h"
#include "worker/train/trainer.h"

namespace varscope {

LocalSumPlan ticket_sum_plan(const StepRule& rule, const ClusterMap& cluster, WorkerId worker) {
  const int n = rule.is_dynamic() ? 1 : cluster.leaves_of(worker).size();
  return LocalSumPlan::make({0, n}, n);
}

// Returns the last step of the run.
Clock Trainer::run_tickets() {
  parts_.client.ask_for_ticket();
  while (true) {
    if (!next_go_) next_go_ = parts_.client.wait_ticket();
    const MessageHeader go = *std::exchange(next_go_, std::nullopt);
    if ((go.flags & kFlagEnd) != 0) {
      flags_ = go.flags;
      return Clock(go.clock);
    }
    if ((go.flags & kFlagDrain) != 0) {
      if (!drain(Clock(go.clock))) return Clock(go.clock);
      parts_.client.ask_for_ticket();
      continue;
    }
    begin_ticket(go);
    run_ticket();
  }
}

void Trainer::begin_ticket(const MessageHeader& go) {
  const auto n_leaves = static_cast<int>(parts_.sum_plan.leaves.size());
  ticket_ = {.step = Clock(go.clock),
             .leaf_begin = go.leaf_begin,
             .held_after = Clock(go.sequence),
             .is_cut = (go.flags & kFlagCut) != 0};
  parts_.train.prepare(ticket_.step);
  const Range samples{parts_.train.part(ticket_.step, ticket_.leaf_begin).begin,
                      parts_.train.part(ticket_.step, ticket_.leaf_begin + n_leaves - 1).end};
  ticket_.n_samples = samples.size();
  ticket_.weight = parts_.train.weight(ticket_.step, samples);
  if (ticket_.n_samples > 0) ticket_.share = ticket_.weight / parts_.train.batch_weight(ticket_.step);
}

void Trainer::run_ticket() {
  const Clock step = ticket_.step;
  if (parts_.train.begins_pass(step)) states_.reset();
  if (!parts_.rule.is_dynamic()) parts_.client.ask_for_ticket();
  if (!tables_.empty()) want_rows(step);
  std::vector<BatchSums> sums = run_logical_workers(step);
  if (clip_) clip_and_push(sums);
  if (!tables_.empty()) {
    const PushOfTicket push = push_of_ticket();
    tables_.push(step, 0, &push);
  }
  report_step(step, std::move(sums));
}

// Whose own the next ticket is anyway has asked at the start of this one. Else not before the backward pass:
// who is slow now shall not have another ticket that others may wait for.
void Trainer::ask_for_next(std::size_t logical_worker) {
  if (!parts_.rule.is_dynamic() || logical_worker + 1 < parts_.sum_plan.leaves.size()) return;
  parts_.client.ask_for_ticket();
}

// Whether server 0 has said by now what comes next.
void Trainer::look_for_next() {
  if (!next_go_) next_go_ = parts_.client.take_go();
}

PushOfTicket Trainer::push_of_ticket() {
  look_for_next();
  const bool is_last = next_go_ && (next_go_->flags & (kFlagDrain | kFlagEnd)) != 0;
  return {ticket_.leaf_begin,
          {.next_step = is_last    ? PushDetails::kNone
                        : next_go_ ? next_go_->clock
                                   : PushDetails::kNotKnown,
           .held_after = ticket_.held_after.value,
           .share = ticket_.share,
           .n_leaves = static_cast<std::int32_t>(parts_.sum_plan.leaves.size())}};
}

void Trainer::push_of_ticket(const Bucket& bucket) {
  coded_pushes_.push(bucket, ticket_.step, push_of_ticket());
}

// The gradients are scaled before any of them leaves: pushes and backward do not overlap.
void Trainer::clip_and_push(const std::vector<BatchSums>& sums) {
  const bool is_loss_finite =
      std::ranges::all_of(sums, [](const BatchSums& s) { return std::isfinite(s.loss); });
  // What is of no samples, or of samples that weigh nothing, sends no gradients.
  if (ticket_.share > 0) clip_->clip(ticket_.step, is_loss_finite, [this] { parts_.client.progress(); });
  for (const Bucket& bucket : parts_.client.plan().buckets()) {
    if (bucket.is_pushed()) push_of_ticket(bucket);
  }
}

// There are no tickets until all up to step `clock` are over: then all workers read the same values. False
// where the run ends with these.
bool Trainer::drain(Clock clock) {
  parts_.client.wait_all();
  coded_pushes_.push_rest(clock);
  tables_.settle(clock);
  parts_.client.send_to_coordinator(make_header(MessageType::drained, parts_.client.worker().value, clock),
                                    {});
  const MessageHeader go = parts_.client.wait_ticket();
  if ((go.flags & kFlagDrained) == 0 || go.clock != clock.value) {
    fail(ErrorKind::protocol,
         "the coordinator sent a go of step {} to worker {}, which waits for the end of {}", go.clock,
         parts_.client.worker().value, clock.value);
  }
  flags_ = go.flags;
  meet(clock, evaluates_after(clock) ? Evaluates::yes : Evaluates::no);
  start_times();
  return (go.flags & kFlagEnd) == 0;
}

}  // namespace varscope
