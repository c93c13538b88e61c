// The coordinator's part of learning from a directory that is followed.
#include "common/base/clock.h"
#include "common/base/serialize.h"
#include "ps/coordinator.h"

namespace varscope {

// True: no file has come for this step; it is let go when one has.
bool Coordinator::waits_for_data(Clock clock) {
  if (!stream_ || stream_->has(clock)) return false;
  if (!starved_) idle_since_ns_ = now_ns();
  starved_ = clock;
  return true;
}

void Coordinator::tick_stream() {
  while (const std::optional<FedFile> file = stream_->poll()) {
    const MessageHeader header = make_header(MessageType::feed, 0, Clock(file->first));
    for (Rank worker : cluster_.workers) transport_.send_message(worker, header, to_binary(*file));
  }
  if (!starved_) return;
  if (stream_->has(*starved_)) {
    // A save of values that nobody pushes to any more: each server may still be about to copy them.
    if (is_idle_save_ && !checkpoints_->idle()) return;
    is_idle_save_ = false;
    return release_unless_not_finite(*std::exchange(starved_, std::nullopt));
  }
  is_stopping_ || stream_->has_ended() ? end_stream() : save_idle();
}

// The values stay those of the step before.
void Coordinator::end_stream() {
  if (on_nan_ == OnNan::stop && not_finite_since_) return;
  MessageHeader go = make_header(MessageType::go, 0, *starved_);
  go.flags = kFlagEnd;
  if (is_stopping_) {
    is_stopped_ = true;
    go.flags |= kFlagStop;
  } else {
    ended_by_ = "END";
    ended_why_ = fmt::format("{}, where END says that no file will come any more", stream_->name());
  }
  starved_.reset();
  train_.last = current_;
  for (Rank worker : cluster_.workers) transport_.send_message(worker, go);
}

// What has been learnt since the last checkpoint, once nothing has come for a while, or somebody has asked.
void Coordinator::save_idle() {
  if (checkpoints_ == nullptr || !checkpoints_->idle()) return;
  is_idle_save_ = false;
  const double idle_s = static_cast<double>(now_ns() - idle_since_ns_) * 1e-9;
  const bool is_due = checkpoint_.idle_save_s > 0 && idle_s >= checkpoint_.idle_save_s;
  if (!is_due && !is_queued_) return;
  is_queued_ = false;
  idle_since_ns_ = last_save_ns_ = now_ns();
  if (current_ == train_.first || checkpoints_->last_committed() == std::optional(current_)) return;
  const std::int64_t retry = ++idle_tries_;
  if (!begin_save(current_, retry, CheckpointCoordinator::Rows::changed)) return;
  is_idle_save_ = true;
  keep_progress();
  checkpoints_->set_states(current_, states_of_last_, state_text());
  send_to(cut_by_push_, MessageType::cut, retry);
  send_to(cut_by_message_, MessageType::cut, retry);
}

// What the checkpoint under way says of the stream. REQUIRES: its step has ended.
void Coordinator::keep_progress() {
  if (!stream_) return;
  if (checkpoints_ != nullptr && current_ > train_.first)
    checkpoints_->on_evaluation({current_.value, stream_->metrics(evaluation_.has_accuracy)});
  state_.stream = stream_->cut();
}

}  // namespace varscope
