#include "ps/server.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"
#include "ps/bulk_steps.h"
#include "ps/push_steps.h"

namespace varscope {
namespace {

std::vector<PeerMonitor::Peer> peers_of(const Server::Parts& parts) {
  const auto host = [&](Rank r) {
    const auto i = static_cast<std::size_t>(r.value);
    return i < parts.hosts.size() ? " on host " + parts.hosts[i] : std::string();
  };
  std::vector<PeerMonitor::Peer> peers;
  for (WorkerId w : parts.cluster.workers.ids()) {
    const Rank r = parts.cluster.rank_of(w);
    peers.push_back({r, fmt::format("worker {}{}", w.value, host(r))});
  }
  for (ServerId s : parts.cluster.servers.ids()) {
    const Rank r = parts.cluster.rank_of(s);
    // The coordinator watches every server, the others watch the coordinator.
    if (s != parts.shard.server() && (s == ServerId(0) || parts.coordinator != nullptr))
      peers.push_back({r, fmt::format("server {}{}", s.value, host(r))});
  }
  return peers;
}

}  // namespace

Server::Server(const Parts& parts)
    : parts_(parts),
      transport_(parts.transport),
      shard_(parts.shard),
      watch_(parts.plan, parts.shard),
      loop_(parts.transport, *this, peers_of(parts), parts.shard.server().value, parts.stall_timeout_s),
      staleness_told_(parts.first) {
  const StepProtocol::Parts steps{parts.transport,
                                  parts.cluster,
                                  parts.plan,
                                  parts.optimizer,
                                  parts.shard,
                                  watch_,
                                  *this,
                                  parts.limits,
                                  parts.rows,
                                  parts.tables,
                                  parts.histogram_every_steps,
                                  parts.rule,
                                  parts.first,
                                  parts.record,
                                  parts.replay,
                                  parts.flush};
  if (parts.rule.is_bsp()) {
    steps_ = std::make_unique<BulkSteps>(steps);
  } else {
    steps_ = std::make_unique<PushSteps>(steps);
  }
  watch_.look_at_all();
}

RunEnd Server::run() {
  shutdown_ = false;
  if (parts_.coordinator != nullptr) parts_.coordinator->start();
  while (!shutdown_) {
    loop_.turn("serving its slices", [this] { return work(); });
    if (parts_.checkpointer != nullptr) parts_.checkpointer->reset_wait_budget();
  }
  transport_.flush(10);
  return end_;
}

// What is done between two polls; true when there was something that others wait for.
bool Server::work() {
  const bool worked = steps_->work();
  if (!has_told_not_finite_ && has_found_not_finite()) report_not_finite(false);
  if (parts_.checkpointer != nullptr) report_outcome();
  if (parts_.requests != nullptr) pass_requests_on();
  if (parts_.record != nullptr) parts_.record->tick();
  if (parts_.coordinator != nullptr) parts_.coordinator->tick();
  return worked;
}

void Server::on_message(const Message& message) {
  const MessageHeader& h = message.header;
  const auto worker = parts_.cluster.worker_at(message.from);
  switch (type_of(h)) {
    case MessageType::heartbeat:
      return;
    case MessageType::push:
    case MessageType::pull:
    case MessageType::rows_wanted:
    case MessageType::rows_push:
      if (!worker)
        fail(ErrorKind::protocol, "rank {} is no worker but sent a {}", message.from.value,
             to_string(type_of(h)));
      return on_worker_message(*worker, message);
    case MessageType::cut:
      return on_cut(Clock(h.clock), h.sequence);
    case MessageType::cut_given_up:
      return on_cut_given_up(Clock(h.clock));
    case MessageType::save_base:
      if (parts_.checkpointer == nullptr)
        fail(ErrorKind::protocol, "a checkpoint of step {} is announced, but none are configured", h.clock);
      return parts_.checkpointer->set_base(from_binary<SaveBase>(message.body, "the base of a save"));
    case MessageType::hash_request:
      return report_hashes();
    case MessageType::finite_request:
      return answer_finite_request(Clock(h.clock));
    case MessageType::norm_sums:
    case MessageType::norm_scales:
      return steps_->on_norms(message);
    case MessageType::shutdown:
      shutdown_ = true;
      loop_.end_poll();
      end_ = (h.flags & kFlagStop) != 0 ? RunEnd::stopped : RunEnd::finished;
      return;
    case MessageType::finite_report:
    case MessageType::histograms:
    case MessageType::shard_report:
    case MessageType::staleness:
      // Without a coordinator nobody leads this run.
      if (parts_.coordinator != nullptr) parts_.coordinator->on_message(message);
      return;
    default:
      if (parts_.coordinator == nullptr) {
        fail(ErrorKind::protocol, "rank {} sent server {} a {}", message.from.value, shard_.server().value,
             to_string(type_of(h)));
      }
      parts_.coordinator->on_message(message);
  }
}

void Server::on_worker_message(WorkerId worker, const Message& message) {
  const MessageHeader& h = message.header;
  switch (type_of(h)) {
    case MessageType::push:
      return steps_->on_push(worker, message);
    case MessageType::pull:
      return steps_->on_pull(worker, h);
    default:
      break;
  }
  if (parts_.rows == nullptr || parts_.rows->empty()) {
    fail(ErrorKind::protocol, "worker {} sent a {}, but there are no tables", worker.value,
         to_string(type_of(h)));
  }
  type_of(h) == MessageType::rows_push ? steps_->on_rows_push(worker, message)
                                       : steps_->on_rows_wanted(worker, h);
}

// A bucket or table was the last here to have all of step `clock`.
void Server::on_step_end(Clock clock, bool is_cut) {
  if (finite_asked_ && !steps_->is_behind(*finite_asked_))
    answer_finite_request(*std::exchange(finite_asked_, std::nullopt));
  if (is_cut) cut(clock, 0);
  if (!parts_.rule.is_bsp()) report_staleness(clock);
  if (!cut_asked_ || steps_->is_behind(cut_asked_->first)) return;
  const auto [step, retry] = *std::exchange(cut_asked_, std::nullopt);
  cut(step, retry);
}

// Workers report a step when they have pushed it: it may still be under way here.
void Server::on_cut(Clock clock, std::int64_t retry) {
  if (parts_.checkpointer == nullptr || !steps_->is_behind(clock)) return cut(clock, retry);
  cut_asked_ = {clock, retry};
}

// Whoever waits for all servers to be through with that save need not wait for this one.
void Server::on_cut_given_up(Clock clock) {
  if (cut_asked_ && cut_asked_->first == clock) {
    ShardOutcome outcome;
    outcome.checkpoint_id = checkpoint_id(clock, parts_.start_id, cut_asked_->second);
    outcome.error = "the save was given up before this server had cut it";
    cut_asked_.reset();
    tell(outcome, clock);
  }
  steps_->go_on_after(clock);
}

// Every bucket and table here has all of step `clock` applied, and nothing of a later one: see StepProtocol.
void Server::cut(Clock clock, std::int64_t retry) {
  if (parts_.checkpointer == nullptr)
    fail(ErrorKind::protocol, "a checkpoint of step {} was asked for, but none are configured", clock.value);
  spdlog::debug("server {} cuts at step {}", shard_.server().value, clock.value);
  parts_.checkpointer->cut(clock, checkpoint_id(clock, parts_.start_id, retry));
  steps_->on_cut(clock);
  steps_->go_on_after(clock);
}

void Server::report_outcome() {
  if (const auto outcome = parts_.checkpointer->poll()) tell(*outcome, Clock(outcome->report.step));
}

void Server::tell(const ShardOutcome& outcome, Clock step) {
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)),
                          make_header(MessageType::shard_report, shard_.server().value, step),
                          to_binary(outcome));
}

void Server::pass_requests_on() {
  const std::uint32_t what = parts_.requests->take();
  if (what == 0) return;
  if (parts_.coordinator != nullptr) return parts_.coordinator->on_request(what);
  MessageHeader request = make_header(MessageType::request, shard_.server().value, Clock(0));
  request.flags = what;
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)), request);
}

// Once all buckets here have step `clock` applied: then all that it made has been looked at.
void Server::answer_finite_request(Clock clock) {
  if (steps_->is_behind(clock)) {
    finite_asked_ = clock;
  } else {
    report_not_finite(true);
  }
}

template <class F>
void Server::for_each_table(const F& f) const {
  if (parts_.tables == nullptr) return;
  for (const auto& table : *parts_.tables) f(*table);
}

bool Server::has_found_not_finite() const {
  bool has_found = watch_.has_found();
  for_each_table([&](const TableShard& table) { has_found = has_found || !table.not_finite().empty(); });
  return has_found;
}

// What has led to it is on record before the run may end.
void Server::report_not_finite(bool is_answer) {
  if (parts_.record != nullptr) parts_.record->write();
  has_told_not_finite_ = has_told_not_finite_ || !is_answer;
  FiniteReport report = watch_.report();
  report.is_answer = is_answer;
  for_each_table([&](const TableShard& table) {
    report.findings.insert(report.findings.end(), table.not_finite().begin(), table.not_finite().end());
  });
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)),
                          make_header(MessageType::finite_report, shard_.server().value, Clock(0)),
                          to_binary(report));
}

// Each time all here has come to the next multiple of the steps between two reports, or beyond it.
void Server::report_staleness(Clock clock) {
  const std::int64_t every = parts_.staleness_every_steps;
  if (every <= 0) return;
  const Clock due(clock.value / every * every);
  if (due <= staleness_told_ || steps_->is_behind(due)) return;
  staleness_told_ = due;
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)),
                          make_header(MessageType::staleness, shard_.server().value, due),
                          to_binary(steps_->staleness()));
}

void Server::report_hashes() {
  HashReport report = shard_.hashes();
  report.staleness = steps_->staleness();
  for_each_table([&](const TableShard& table) {
    table.add_hashes(report);
    report.tables.push_back(table.report());
  });
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)),
                          make_header(MessageType::hash_report, shard_.server().value, Clock(0)),
                          to_binary(report));
}

}  // namespace varscope
