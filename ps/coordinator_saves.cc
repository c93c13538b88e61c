// When the coordinator has a checkpoint cut, at whose wish, and what becomes of a save that fails.
#include <algorithm>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/base/text.h"
#include "common/transport/wire.h"
#include "ps/coordinator.h"

namespace varscope {

bool Coordinator::cut_is_due(Clock clock) const {
  if (checkpoints_ == nullptr) return false;
  if (stop_ && is_evaluated(clock)) return true;
  if (checkpoint_.every_steps > 0 && clock.value % checkpoint_.every_steps == 0) return true;
  if (stream_ && checkpoint_.every_records > 0 &&
      stream_->records_after(clock) / checkpoint_.every_records >
          stream_->records() / checkpoint_.every_records)
    return true;
  return checkpoint_.every_seconds > 0 &&
         static_cast<double>(now_ns() - last_save_ns_) * 1e-9 >= checkpoint_.every_seconds;
}

bool Coordinator::begin_cut(Clock clock) {
  if (!train_.flush.may_cut(clock)) return false;  // what is due stays due
  // Written while the last evaluation runs, which may take long. Where this does not come off, the final save
  // tries again.
  if (checkpoints_ != nullptr && clock == train_.last && saves_at_end())
    return checkpoints_->idle() && begin_save(clock, final_tries_++, CheckpointCoordinator::Rows::all);
  const bool is_due = cut_is_due(clock);
  if (!is_due && !is_queued_) return false;
  if (!checkpoints_->idle()) {
    if (is_due && checkpoint_.when_busy == WhenBusy::skip) ++skipped_;
    if (is_due && checkpoint_.when_busy == WhenBusy::queue && !std::exchange(is_queued_, true)) ++queued_;
    return false;
  }
  is_queued_ = false;
  last_save_ns_ = now_ns();
  return begin_save(clock, 0, CheckpointCoordinator::Rows::changed);
}

// Servers begin to write once they have both the cut and what it goes on from, in any order.
bool Coordinator::begin_save(Clock clock, std::int64_t retry, CheckpointCoordinator::Rows rows) {
  if (!checkpoints_->begin(clock, retry, rows)) return false;
  cut_id_ = checkpoints_->id();
  const std::optional<SaveBase> base = checkpoints_->save_base();
  if (!base) return true;
  const MessageHeader header = make_header(MessageType::save_base, 0, clock);
  for (ServerId s : cluster_.servers.ids())
    transport_.send_message(cluster_.rank_of(s), header, to_binary(*base));
  return true;
}

void Coordinator::on_request(std::uint32_t what) {
  if ((what & ~(kRequestSave | kRequestStop)) != 0)
    fail(ErrorKind::protocol, "a request for {}, which nobody knows", what);
  if (phase_ != Phase::training || is_stopping_) return;
  const std::string save = checkpoints_ != nullptr ? "a checkpoint" : "no checkpoint (none are configured)";
  const char* wish = (what & kRequestStop) != 0 ? "to stop" : "for a checkpoint";
  if (current_ >= train_.last && !stream_) {
    is_stopping_ = is_asked_at_end_ = true;
    return observer_.on_request(
        fmt::format("a signal asks {}: the last step, {}, is under way; then {}, and the end", wish,
                    train_.last.value, save));
  }
  if (follows_order()) {
    is_stopping_ = (what & kRequestStop) != 0;
    return observer_.on_request(
        fmt::format("a signal asks {}: {}", wish,
                    is_stopping_ ? "on to where the recorded run came together next, and the end"
                                 : "a replay saves nothing"));
  }
  if ((what & kRequestStop) != 0) {
    is_stopping_ = true;
    observer_.on_request(fmt::format("a signal asks to stop: {}{}, and the end",
                                     starved_ ? "" : steps_until_cut() + ", ", save));
  } else if (!std::exchange(is_queued_, checkpoints_ != nullptr)) {
    observer_.on_request(fmt::format("a signal asks for a checkpoint: {} {}", save,
                                     starved_ ? "now, unless all is saved" : "at " + step_of_next_cut()));
  }
}

Clock Coordinator::next_cut() const {
  return std::min(train_.last, train_.flush.next_cut(Clock(current_.value + 1)));
}

// "one more step". Where each push is applied by itself others may be some steps ahead.
std::string Coordinator::steps_until_cut() const {
  if (train_.flush.is_needed()) return "on to " + step_of_next_cut();
  return dealer_ ? fmt::format("on to step {}, the first that nobody has begun", next_cut().value)
                 : "one more step";
}

std::string Coordinator::step_of_next_cut() const {
  if (!train_.flush.is_needed()) return "the next step";
  return fmt::format("step {}, where {}", next_cut().value,
                     train_.flush.has_residuals ? "compression has nothing left to send"
                                                : "all workers come together (cluster.delay)");
}

std::string Coordinator::state_text() const { return to_manifest_text(state_); }

// What the last updates made, no worker's loss has shown.
void Coordinator::begin_final_save() {
  phase_ = Phase::final_save;
  inquire({.step = current_.value});
}

std::string Coordinator::silent_workers() const {
  std::vector<std::string> names;
  for (WorkerId w : cluster_.workers.ids()) {
    const bool is_silent = open_.empty() || !open_.front().reports[static_cast<std::size_t>(w.value)];
    if (is_silent && counts(w)) names.push_back(fmt::format("worker {}", w.value));
  }
  return comma_list(names);
}

void Coordinator::give_overdue_save_up() {
  if (!dealer_ || cuts_.empty()) return checkpoints_->give_up_overdue(silent_workers());
  const std::string late = workers_with_tickets(cuts_.back());
  checkpoints_->give_up_overdue(
      late, late.empty() ? CheckpointCoordinator::Blame::anybody : CheckpointCoordinator::Blame::workers);
}

// Outside BSP servers must not hold up what follows for a cut that somebody is too slow for, nor for one that
// another server could not write.
void Coordinator::tell_given_up() {
  const std::optional<Clock> step = checkpoints_->take_given_up();
  if (!step || !dealer_) return;
  const MessageHeader header = make_header(MessageType::cut_given_up, 0, *step);
  for (Rank server : cluster_.servers) transport_.send_message(server, header);
}

}  // namespace varscope
