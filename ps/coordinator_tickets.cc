// The coordinator's part of SSP and ASP: deals tickets out, and lets the workers come together where they
// must (docs/consistency.md).
#include <algorithm>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/base/text.h"
#include "ps/coordinator.h"

namespace varscope {

// Whether all workers must have the values of step `clock`, and none of a later one. Where compression keeps
// something back they flush it then. Where a run is recorded,
// at each cut: what a worker read before could not be had from the checkpoint. REQUIRES: the step that is
// being opened.
bool Coordinator::drains_after(Clock clock) const {
  return clock >= train_.last || is_evaluated(clock) || (record_ != nullptr && current_is_cut_) ||
         (replay_ != nullptr && replay_->is_drained(clock)) ||
         (train_.flush.has_residuals && train_.flush.is_flush(clock));
}

// Step `clock` may be dealt from now on. Where it is cut, servers are told first, so that they hold what is
// behind it.
void Coordinator::open_step(Clock clock) {
  dealer_->open(clock);
  open_.push_back({clock,
                   std::vector<std::optional<StepReport>>(static_cast<std::size_t>(dealer_->per_step())),
                   dealer_->per_step(), current_is_cut_});
  if (current_is_cut_) {
    send_to(cut_by_push_, MessageType::cut);
    send_to(cut_by_message_, MessageType::cut);
    cuts_.push_back(clock);
    ledger_->on_cut(clock);
  }
  const bool is_drained = drains_after(clock);
  if (record_ != nullptr)
    record_->opened(clock, is_drained ? TicketRecord::Drained::yes : TicketRecord::Drained::no);
  if (is_drained) drain_ = clock;
}

bool Coordinator::may_open() const {
  const bool is_held = on_nan_ == OnNan::stop && (inquiry_ || not_finite_since_);
  return phase_ == Phase::training && !drain_ && !delayed_ && !awaited_ && !is_held && current_ < train_.last;
}

void Coordinator::on_ticket_request(WorkerId worker) {
  if (!dealer_ || std::ranges::find(asking_, worker) != asking_.end())
    fail(ErrorKind::protocol, "worker {} asked for a ticket where none is due", worker.value);
  asking_.push_back(worker);
  if (n_reading_ > 0) --n_reading_;
  deal();
}

// Answers whom it can, in the order in which they asked. Not while workers that have come together still
// read: one that is late shall not see pushes of the next step.
void Coordinator::deal() {
  if (!dealer_ || n_reading_ > 0) return;
  std::erase_if(asking_, [this](WorkerId worker) {
    std::optional<TicketDealer::Ticket> ticket = dealer_->take(worker);
    while (!ticket && may_open()) {
      release(Clock(current_.value + 1));
      ticket = dealer_->take(worker);
    }
    if (ticket) {
      send_ticket(worker, *ticket);
      return true;
    }
    if (!drain_ && !is_ended_) return false;
    MessageHeader go = make_header(MessageType::go, 0, current_);
    go.flags = is_ended_ ? kFlagEnd : kFlagDrain;
    if (!is_ended_) ledger_->on_drain_told(worker, now_ns());
    transport_.send_message(cluster_.rank_of(worker), go);
    return true;
  });
}

void Coordinator::send_ticket(WorkerId worker, const TicketDealer::Ticket& ticket) {
  // Of the cuts before it the last: servers hold its push until that is over.
  Clock held_after = train_.first;
  bool is_cut = false;
  for (const Clock cut : cuts_) {
    if (cut < ticket.step) held_after = cut;
    is_cut = is_cut || cut == ticket.step;
  }
  MessageHeader go = make_header(MessageType::go, 0, ticket.step);
  go.leaf_begin = ticket.leaf_begin;
  go.sequence = held_after.value;
  go.flags = is_cut ? kFlagCut : 0;
  open_step_of(ticket.step).holders[static_cast<std::size_t>(ticket.index)] = worker;
  if (record_ != nullptr && dealer_->is_dynamic()) record_->dealt(dealer_->number_of(ticket), worker);
  ledger_->on_dealt(worker, ticket.step, ticket.leaf_begin, now_ns());
  transport_.send_message(cluster_.rank_of(worker), go);
}

Coordinator::OpenStep& Coordinator::open_step_of(Clock clock) {
  return open_[static_cast<std::size_t>(clock.value - open_.front().clock.value)];
}

void Coordinator::on_ticket_report(WorkerId worker, const Message& message) {
  const MessageHeader& h = message.header;
  const std::optional<int> index = dealer_->index_of(worker, h.leaf_begin);
  const bool is_open = !open_.empty() && h.clock >= open_.front().clock.value && h.clock <= current_.value;
  auto* report =
      is_open && index ? &open_step_of(Clock(h.clock)).reports[static_cast<std::size_t>(*index)] : nullptr;
  if (report == nullptr || *report ||
      open_step_of(Clock(h.clock)).holders[static_cast<std::size_t>(*index)] != worker) {
    fail(ErrorKind::protocol, "worker {} reports leaf {} of step {}, which it was not given", worker.value,
         h.leaf_begin, h.clock);
  }
  if (h.flags != 0) on_request(h.flags);
  *report = from_binary<StepReport>(message.body, "a step report");
  if ((*report)->leaves.size() != static_cast<std::size_t>(dealer_->n_leaves(*index))) {
    fail(ErrorKind::protocol, "worker {} reports {} logical workers", worker.value, (*report)->leaves.size());
  }
  ledger_->on_report(worker, Clock(h.clock), h.leaf_begin, (*report)->times, now_ns());
  --open_step_of(Clock(h.clock)).n_missing;
  while (!open_.empty() && open_.front().n_missing == 0) {
    OpenStep step = std::move(open_.front());
    open_.pop_front();
    complete_ticketed(step);
  }
  while (cuts_.size() > 1 && cuts_[1] <= completed_) cuts_.erase(cuts_.begin());
}

// In the order of the tickets, that is of the logical workers.
void Coordinator::complete_ticketed(OpenStep& step) {
  std::vector<StepReport> reports;
  IdVector<WorkerId, std::string> states(cluster_.n_workers());
  for (std::size_t i = 0; i < step.reports.size(); ++i) {
    if (step.is_cut) states[*step.holders[i]] = step.reports[i]->state;
    reports.push_back(std::move(*step.reports[i]));
  }
  if (step.is_cut) fill_in_states(states);
  complete_step(step.clock, reports, states, step.is_cut);
  ledger_->on_complete(step.clock, now_ns());
  tell_consistency();
}

// A worker that had no ticket of the step stands where the others do.
void Coordinator::fill_in_states(IdVector<WorkerId, std::string>& states) {
  const auto some = std::ranges::find_if(states, [](const std::string& s) { return !s.empty(); });
  for (WorkerId w : states.ids()) {
    if (!states[w].empty()) continue;
    auto state = from_text<WorkerState>(*some, "the state of a worker");
    state.worker = w.value;
    states[w] = to_text(state);
  }
}

void Coordinator::on_drained(WorkerId worker, Clock clock) {
  const bool is_last = n_drained_ + 1 == cluster_.n_workers();
  if (!drain_ || clock != *drain_ || (is_last && !open_.empty())) {
    fail(ErrorKind::protocol, "worker {} says that step {} is over, which it is not", worker.value,
         clock.value);
  }
  ++n_drained_;
  if (!is_last) return;
  n_drained_ = 0;
  if (clock < train_.last) n_reading_ = cluster_.n_workers();
  ledger_->on_drained(now_ns());
  drain_.reset();
  if (record_ != nullptr && !cuts_.empty() && cuts_.back() == clock) record_->begin(clock, cut_id_);
  MessageHeader go = make_header(MessageType::go, 0, clock);
  go.flags = kFlagDrained | (is_stopped_ ? kFlagStop : 0) | (clock >= train_.last ? kFlagEnd : 0);
  for (Rank rank : cluster_.workers) transport_.send_message(rank, go);
}

void Coordinator::on_staleness(const Message& message) {
  const std::optional<ServerId> server = cluster_.server_at(message.from);
  if (!ledger_ || !server) {
    fail(ErrorKind::protocol, "rank {} sent a {} that is not due", message.from.value,
         to_string(type_of(message.header)));
  }
  ledger_->on_staleness(*server, Clock(message.header.clock),
                        from_binary<StalenessReport>(message.body, "a report of how stale reads were"));
  tell_consistency();
}

void Coordinator::tell_consistency() {
  if (const std::optional<ConsistencySummary> due = ledger_->take_due(now_ns()))
    observer_.on_consistency(*due);
}

// Of those that have tickets of steps up to the one that is being cut.
std::string Coordinator::workers_with_tickets(Clock clock) const {
  IdVector<WorkerId, bool> is_late(cluster_.n_workers(), false);
  for (const OpenStep& step : open_) {
    for (std::size_t i = 0; i < step.reports.size() && step.clock <= clock; ++i) {
      if (step.holders[i] && !step.reports[i]) is_late[*step.holders[i]] = true;
    }
  }
  std::vector<std::string> names;
  for (WorkerId w : is_late.ids()) {
    if (is_late[w]) names.push_back(fmt::format("worker {}", w.value));
  }
  return comma_list(names);
}

}  // namespace varscope
