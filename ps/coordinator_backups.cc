// The coordinator's part of BSP with backup workers: which gradients make a step (docs/consistency.md).
#include "common/base/error.h"
#include "common/transport/wire.h"
#include "ps/coordinator.h"

namespace varscope {

void Coordinator::on_gradient_done(WorkerId worker, const Message& message) {
  if (!quorum_) {
    fail(ErrorKind::protocol, "worker {} has a gradient of step {}, where nobody asked", worker.value,
         message.header.clock);
  }
  if (message.header.flags != 0) on_request(message.header.flags);
  quorum_->on_done(worker, Clock(message.header.clock));
  if (due_ && quorum_->chosen()) release_unless_not_finite(*std::exchange(due_, std::nullopt));
}

// True: too few workers have a gradient of this step; it is let go when they have.
bool Coordinator::must_wait_for_gradients(Clock clock) {
  if (!quorum_ || quorum_->chosen()) return false;
  due_ = clock;
  return true;
}

// It names the workers that push the step. Nobody is told before it is on record.
void Coordinator::send_counted_go(MessageHeader go) {
  const CountedWorkers counted = *quorum_->chosen();
  quorum_->let_go(counted);
  if (record_ != nullptr) record_->counted(Clock(go.clock), counted);
  for (Rank worker : cluster_.workers) transport_.send_message(worker, go, counted.to_bytes());
}

// Where evaluations decide whether there is a step, workers wait for a word before they compute it.
void Coordinator::let_compute(Clock clock) {
  if (!quorum_ || !stop_ || clock > train_.last) return;
  MessageHeader go = make_header(MessageType::go, 0, clock);
  go.flags = kFlagBegin;
  for (Rank worker : cluster_.workers) transport_.send_message(worker, go);
}

}  // namespace varscope
