#include "ps/coordinator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/base/serialize.h"
#include "common/placement/cluster.h"
#include "common/placement/row_plan.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

WorkerId sender_of(const Message& message, const ClusterMap& cluster) {
  const auto worker = cluster.worker_at(message.from);
  if (!worker || worker->value != message.header.sender) {
    fail(ErrorKind::protocol, "rank {} sent a {} as worker {}", message.from.value,
         to_string(type_of(message.header)), message.header.sender);
  }
  return *worker;
}

}  // namespace

Coordinator::Coordinator(const Parts& parts)
    : transport_(parts.transport),
      cluster_(parts.cluster),
      train_(parts.train),
      checkpoint_(parts.checkpoint),
      checkpoints_(parts.checkpoints),
      observer_(parts.observer),
      state_(parts.state),
      evaluation_(parts.evaluation),
      current_(parts.train.first),
      final_states_(parts.cluster.n_workers()),
      histograms_(parts.plan, parts.variables),
      hash_(parts.variables),
      on_nan_(parts.on_nan),
      completed_(parts.train.first),
      stop_(parts.stop),
      stream_(parts.stream),
      states_of_last_(parts.cluster.n_workers()),
      record_(parts.record),
      replay_(parts.replay),
      last_save_ns_(now_ns()) {
  if (checkpoints_ != nullptr && on_nan_ == OnNan::stop) checkpoints_->discard_not_finite();
  const RowPlan rows = RowPlan::make(parts.variables, cluster_.n_servers());
  for (ServerId s : cluster_.servers.ids()) {
    const std::vector<BucketId> buckets = parts.plan.of_server(s);
    bool is_owner = !buckets.empty();
    bool is_pushed =
        std::any_of(buckets.begin(), buckets.end(), [&](BucketId b) { return parts.plan[b].is_pushed(); });
    for (const RowPlan::Table& table : rows.tables()) {
      is_owner = is_owner || table.has_parts[s];
      is_pushed = is_pushed || (table.has_parts[s] && table.trainable);
    }
    if (is_owner) owners_.push_back(s);
    (is_pushed ? cut_by_push_ : cut_by_message_).push_back(s);
  }
  if (parts.rule.has_backups()) {
    quorum_.emplace(StepQuorum::Parts{cluster_.n_workers(), static_cast<int>(parts.rule.backups),
                                      train_.first, parts.samples, replay_});
  }
  if (parts.rule.is_bsp()) return;
  dealer_.emplace(parts.rule, cluster_, train_.first, replay_);
  ledger_.emplace(
      ConsistencyLedger::Parts{cluster_, parts.rule, train_.first, cut_by_push_, parts.late_ticket_s});
}

void Coordinator::start() {
  if (stop_) state_.stop = stop_->state();
  if (dealer_ && current_ >= train_.last) is_ended_ = true;  // nothing is left to do, but for an evaluation
  if ((stop_ || quorum_) && train_.evaluates_first) {
    awaited_ = train_.first;
  } else if (stop_ && stop_->is_over()) {
    end_early();
  } else if (!dealer_) {
    let_compute(Clock(train_.first.value + 1));
    release_due();
  }
}

// The values stay those of the step before.
void Coordinator::end_early() {
  if (current_ >= train_.last) return;
  train_.last = current_;
  ended_by_ = "train.stop";
  ended_why_ = fmt::format("{} has not become better in {} evaluations (train.stop)", stop_->rule().metric,
                           stop_->state().n_since);
  if (dealer_) {
    is_ended_ = true;
    return deal();
  }
  MessageHeader go = make_header(MessageType::go, 0, Clock(current_.value + 1));
  go.flags = kFlagEnd;
  for (Rank worker : cluster_.workers) transport_.send_message(worker, go);
}

// Lets the workers push step `clock`. The decision to cut travels with the go, and from there with every
// push, so that all servers cut at the same step without another round of messages.
void Coordinator::release(Clock clock) {
  if (clock > train_.last || waits_for_data(clock) || must_wait_for_gradients(clock)) return;
  // The values that an evaluation may find to be the best are saved whatever is being written now.
  if (stop_ && is_evaluated(clock) && checkpoints_ != nullptr && !checkpoints_->idle()) {
    delayed_ = clock;
    return;
  }
  current_ = clock;
  if (is_stopping_ && clock < train_.last && may_stop_after(clock)) {
    is_stopped_ = true;
    train_.last = clock;
  }
  current_is_cut_ = begin_cut(clock);
  if (dealer_) return open_step(clock);
  open_.push_back({clock,
                   std::vector<std::optional<StepReport>>(static_cast<std::size_t>(cluster_.n_workers())),
                   quorum_ ? quorum_->chosen()->count() : cluster_.n_workers(), current_is_cut_});
  MessageHeader go = make_header(MessageType::go, 0, clock);
  go.flags = (current_is_cut_ ? kFlagCut : 0) | (is_stopped_ ? kFlagStop : 0);
  if (quorum_) return send_counted_go(go);
  for (Rank worker : cluster_.workers) transport_.send_message(worker, go);
}

// What comes after a step of a record has been done only where the recorded run came together after it.
bool Coordinator::may_stop_after(Clock clock) const {
  if (follows_order()) return replay_->is_drained(clock);
  return train_.flush.may_cut(clock);
}

void Coordinator::on_message(const Message& message) {
  switch (type_of(message.header)) {
    case MessageType::step_report:
      return dealer_ ? on_ticket_report(sender_of(message, cluster_), message)
                     : on_step_report(sender_of(message, cluster_), message);
    case MessageType::gradient_done:
      return on_gradient_done(sender_of(message, cluster_), message);
    case MessageType::ticket_request:
      return on_ticket_request(sender_of(message, cluster_));
    case MessageType::drained:
      return on_drained(sender_of(message, cluster_), Clock(message.header.clock));
    case MessageType::eval_report:
      sender_of(message, cluster_);
      return on_eval_report(message);
    case MessageType::finished:
      final_states_[sender_of(message, cluster_)] = message.body;
      if (++n_finished_ == cluster_.n_workers()) begin_final_save();
      return;
    case MessageType::shard_report:
      if (checkpoints_ != nullptr)
        checkpoints_->on_outcome(from_binary<ShardOutcome>(message.body, "a shard's outcome"));
      return;
    case MessageType::request:
      return on_request(message.header.flags);
    case MessageType::hash_report:
      return on_hash_report(message);
    case MessageType::finite_report:
      return on_finite_report(message);
    case MessageType::histograms:
      return on_histograms(message);
    case MessageType::staleness:
      return on_staleness(message);
    default:
      fail(ErrorKind::protocol, "rank {} sent the coordinator a {}", message.from.value,
           to_string(type_of(message.header)));
  }
}

// Lets go all steps whose values are there as far as they read them: of BSP the next one, with a delay some.
void Coordinator::release_due() {
  while (current_ < train_.last && !delayed_ && !awaited_) {
    const Clock next(current_.value + 1);
    if (train_.flush.read_by(next, train_.first) > completed_) return;
    release_unless_not_finite(next);
    if (current_ != next) return;
  }
}

// A worker reports its steps in their order.
void Coordinator::on_step_report(WorkerId worker, const Message& message) {
  const auto at = static_cast<std::size_t>(worker.value);
  const auto step = std::ranges::find_if(open_, [at](const OpenStep& s) { return !s.reports[at]; });
  if (step == open_.end() || message.header.clock != step->clock.value || !counts(worker)) {
    fail(ErrorKind::protocol, "worker {} reports step {} while step {} is under way", worker.value,
         message.header.clock, step == open_.end() ? current_.value : step->clock.value);
  }
  if (message.header.flags != 0) on_request(message.header.flags);
  std::optional<StepReport>& report = step->reports[at];
  report = from_binary<StepReport>(message.body, "a step report");
  if (report->leaves.size() != static_cast<std::size_t>(cluster_.leaves_of(worker).size())) {
    fail(ErrorKind::protocol, "worker {} reports {} logical workers", worker.value, report->leaves.size());
  }
  if (--step->n_missing == 0) complete_step();
}

// The first of those that are open.
void Coordinator::complete_step() {
  OpenStep step = std::move(open_.front());
  open_.pop_front();
  std::vector<StepReport> reports;
  IdVector<WorkerId, std::string> states(cluster_.n_workers());
  for (WorkerId w : states.ids()) {  // in worker order, that is in the order of the logical workers
    std::optional<StepReport>& report = step.reports[static_cast<std::size_t>(w.value)];
    if (!report) continue;  // it does not count
    states[w] = std::move(report->state);
    reports.push_back(std::move(*report));
  }
  if (quorum_ && step.is_cut) fill_in_states(states);
  complete_step(step.clock, reports, states, step.is_cut);
  // It may have ended before: a worker without test batches reports the step when it likes.
  if (awaited_ && evaluated_ == awaited_) return go_on_after_evaluation();
  release_due();
}

// `reports`: in the order of the logical workers.
void Coordinator::complete_step(Clock clock, const std::vector<StepReport>& reports,
                                const IdVector<WorkerId, std::string>& states, bool is_cut) {
  StepSummary step{clock, 1, {}, {}};
  if (quorum_) step.dropped = quorum_->dropped();
  if (train_.steps_per_epoch > 0) step.epoch = (clock.value - 1) / train_.steps_per_epoch + 1;
  for (const StepReport& report : reports) {
    for (const BatchSums& leaf : report.leaves) step.sums += leaf;
    step.times += report.times;
    step.compression += report.compression;
  }
  note_compression(clock, step.compression);
  completed_ = clock;
  times_ += step.times;
  state_.epoch += step.sums;
  if (stream_) {
    stream_->complete(clock, step.sums);
    step.stream = stream_->due_summary(clock);
    states_of_last_ = states;
  }
  observer_.on_step(step);
  if (train_.steps_per_epoch > 0 && clock.value % train_.steps_per_epoch == 0) {
    observer_.on_epoch({clock, step.epoch, state_.epoch});
    state_.epoch = {};
  }
  if (is_cut) {
    keep_progress();
    checkpoints_->set_states(clock, states, state_text());
    if (!dealer_) send_to(cut_by_message_, MessageType::cut);
    if (quorum_ && record_ != nullptr) record_->begin(clock, cut_id_);
  }
  const bool is_finite = std::isfinite(step.sums.loss);
  const bool is_suspected = suspected_ && *suspected_ <= clock;
  if (is_suspected) suspected_.reset();
  if (!is_finite || is_suspected)
    inquire({.step = clock.value, .loss = is_finite ? "" : not_finite_text(step.sums.loss)});
  if (waits_for_evaluation(clock)) awaited_ = clock;
}

void Coordinator::note_compression(Clock clock, const CompressionReport& step) {
  if (!step.residuals.empty()) compression_.residuals.clear();  // the newest are kept
  compression_ += step;
  for (const std::string& note : residuals_.add(clock, step)) observer_.on_note(note);
}

void Coordinator::send_to(const std::vector<ServerId>& servers, MessageType type, std::int64_t retry) {
  MessageHeader header = make_header(type, 0, current_);
  header.sequence = retry;
  for (ServerId s : servers) transport_.send_message(cluster_.rank_of(s), header);
}

void Coordinator::tick() {
  if (checkpoints_ != nullptr) {
    checkpoints_->tick();
    if (checkpoints_->is_overdue()) give_overdue_save_up();
    tell_given_up();
    look_at_discarded_save();
  }
  if (!failure_.empty()) {
    if (checkpoints_ == nullptr || !checkpoints_->has_pending_work())
      throw Error(ErrorKind::not_finite, failure_);
    return;
  }
  if (inquiry_) return;
  if (stream_ && phase_ == Phase::training) tick_stream();
  if (delayed_ && checkpoints_->idle()) release(*std::exchange(delayed_, std::nullopt));
  if (phase_ == Phase::training) deal();
  if (ledger_) {
    for (const std::string& note : ledger_->take_notes(now_ns())) observer_.on_note(note);
  }
  if (phase_ != Phase::final_save || (checkpoints_ != nullptr && checkpoints_->has_pending_work())) return;
  const bool save = checkpoints_ != nullptr && saves_at_end() && current_ > train_.first &&
                    checkpoints_->last_committed() != std::optional(current_);
  if (!save) return request_hashes();
  // Nobody trains any more: the state stays as it is until every server has copied it.
  const std::int64_t retry = final_tries_++;
  if (begin_save(current_, retry, CheckpointCoordinator::Rows::all)) {
    keep_progress();
    checkpoints_->set_states(current_, final_states_, state_text());
    send_to(cut_by_push_, MessageType::cut, retry);
    send_to(cut_by_message_, MessageType::cut, retry);
  }
}

void Coordinator::request_hashes() {
  phase_ = Phase::hashing;
  send_to(owners_, MessageType::hash_request);
}

void Coordinator::on_histograms(const Message& message) {
  auto report = from_binary<HistogramReport>(message.body, "a report of histograms");
  const auto all = histograms_.add(message.from, BucketId(message.header.bucket), Clock(message.header.clock),
                                   std::move(report));
  if (all) observer_.on_histograms(*all);
}

void Coordinator::on_hash_report(const Message& message) {
  const auto report = from_binary<HashReport>(message.body, "a hash report");
  if (ledger_) ledger_->on_last(ServerId(message.header.sender), report.staleness);
  for (const auto& e : report.entries) hash_.add(e.variable, e.slice, e.digest);
  for (const TableReport& table : report.tables) {
    const auto known = std::ranges::find(tables_, table.name, &TableReport::name);
    known == tables_.end() ? tables_.push_back(table) : known->add(table);
  }
  if (++hash_reports_ < static_cast<int>(owners_.size())) return;
  phase_ = Phase::done;
  FinishSummary finish{current_, hash_.finish(), times_,  0,           0,
                       0,        skipped_,       queued_, is_stopped_, not_finite_since_};
  finish.ended_why = ended_why_;
  finish.ended_by = ended_by_;
  if (stream_) finish.stream = stream_->summary();
  finish.compression = compression_;
  finish.tables = std::move(tables_);
  if (ledger_) finish.consistency = ledger_->total(now_ns());
  if (quorum_) finish.dropped = quorum_->total();
  if (stop_ && stop_->state().has_best) {
    const StopState& s = stop_->state();
    finish.best = FinishSummary::Best{s.metric, s.best, Clock(s.best_step), ""};
    if (checkpoints_ != nullptr) finish.best->checkpoint = checkpoints_->path_of(Clock(s.best_step));
  }
  if (checkpoints_ != nullptr) {
    finish.checkpoint_stall_s = checkpoints_->stall_s();
    finish.checkpoints = checkpoints_->committed();
    finish.failed_checkpoints = checkpoints_->failed();
  }
  observer_.on_finish(finish);
  MessageHeader shutdown = make_header(MessageType::shutdown, 0, current_);
  shutdown.flags = is_stopped_ ? kFlagStop : 0;
  for (Rank r : cluster_.workers) transport_.send_message(r, shutdown);
  for (Rank r : cluster_.servers) transport_.send_message(r, shutdown);
}

}  // namespace varscope
