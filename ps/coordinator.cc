#include "ps/coordinator.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/base/serialize.h"
#include "common/base/text.h"
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

// What checkpoints keep of an evaluation: "loss", and each metric that is a number, by name.
EvaluationRecord record_of(const EvalSummary& eval) {
  EvaluationRecord record{eval.clock.value, {}};
  if (eval.sums.samples > 0) record.values["loss"] = eval.sums.loss / eval.sums.total();
  for (const MetricValue& v : eval.metrics) {
    if (v.matrix.empty()) record.values[v.name] = v.value;
  }
  return record;
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

void Coordinator::release_unless_not_finite(Clock clock) {
  if (on_nan_ == OnNan::warn || !(inquiry_ || not_finite_since_)) release(clock);
}

void Coordinator::inquire(NotFiniteStep step) {
  if (not_finite_since_ || inquiry_) return;
  inquiry_ = Inquiry{std::move(step), owners_.size()};
  MessageHeader header = make_header(MessageType::finite_request, 0, Clock(inquiry_->step.step));
  for (ServerId s : owners_) transport_.send_message(cluster_.rank_of(s), header);
  if (owners_.empty()) finish_inquiry();
}

void Coordinator::on_finite_report(const Message& message) {
  auto report = from_binary<FiniteReport>(message.body, "a report of what is not finite");
  if (!cluster_.server_at(message.from) || (report.is_answer && !inquiry_) ||
      (!report.is_answer && report.findings.empty())) {
    fail(ErrorKind::protocol, "rank {} sent a {} that is not due", message.from.value,
         to_string(type_of(message.header)));
  }
  if (!report.is_answer) {
    const std::int64_t clock = report.findings.front().clock;
    // Of a step under way the losses are not known yet, nor what else may be found of one before it.
    if (clock > completed_.value) {
      suspected_ = std::min(suspected_.value_or(Clock(clock)), Clock(clock));
    } else {
      inquire({.step = clock});
    }
    return;
  }
  std::ranges::move(report.findings, std::back_inserter(inquiry_->step.findings));
  inquiry_->step.n_more += report.n_more;
  if (--inquiry_->n_due == 0) finish_inquiry();
}

// The earliest step counts: what later ones made follows from it.
void Coordinator::finish_inquiry() {
  NotFiniteStep step = std::exchange(inquiry_, std::nullopt)->step;
  const std::int64_t asked = step.step;
  for (const NotFiniteFinding& f : step.findings) step.step = std::min(step.step, f.clock);
  if (step.step < asked) step.loss = step.test_loss = "";
  if (std::erase_if(step.findings, [&](const NotFiniteFinding& f) { return f.clock != step.step; }) > 0)
    step.n_more = 0;
  if (step.findings.empty() && step.loss.empty() && step.test_loss.empty()) return;
  step.is_first = step.step == train_.first.value && !step.findings.empty();
  NotFiniteSummary summary{Clock(step.step), text_of(step), {}, on_nan_ == OnNan::stop};
  for (const NotFiniteFinding& f : step.findings) {
    if (!f.variable.empty()) summary.variables.push_back(f.variable);
  }
  std::ranges::sort(summary.variables);
  const auto same = std::ranges::unique(summary.variables);
  summary.variables.erase(same.begin(), same.end());
  not_finite_since_ = summary.clock;
  if (summary.ends) {
    failure_ = summary.what;
    if (checkpoints_ != nullptr) checkpoints_->drop_from(summary.clock);
  }
  observer_.on_not_finite(summary);
}

// What the updates have not shown: a save has looked at every byte.
void Coordinator::look_at_discarded_save() {
  const std::optional<CheckpointCoordinator::Discarded> save = checkpoints_->take_discarded();
  if (!save || not_finite_since_ || inquiry_) return;
  NotFiniteStep step{.step = save->clock.value};
  for (const NotFiniteTensor& t : save->tensors)
    step.findings.push_back(
        {NotFiniteFinding::Where::value, step.step, t.variable, t.slot, t.first_element, t.what});
  inquiry_ = Inquiry{std::move(step), 0};
  finish_inquiry();
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

void Coordinator::on_eval_report(const Message& message) {
  sender_of(message, cluster_);
  const auto report = from_binary<EvalReport>(message.body, "an evaluation report");
  const Clock clock(message.header.clock);
  auto found =
      std::find_if(evaluations_.begin(), evaluations_.end(), [&](const auto& e) { return e.clock == clock; });
  // Of a worker without batches, after all others: it says nothing.
  if (found == evaluations_.end() && report.batches.empty() && evaluated_ && clock <= *evaluated_) return;
  if (found == evaluations_.end()) {
    if (report.n_batches < 0 || report.n_batches > (1 << 24)) {
      fail(ErrorKind::protocol, "rank {} reports an evaluation of {} batches", message.from.value,
           report.n_batches);
    }
    const auto n = static_cast<std::size_t>(report.n_batches);
    evaluations_.push_back({clock, std::vector<std::optional<Evaluation::Batch>>(n), n});
    found = std::prev(evaluations_.end());
  }
  if (report.sums.size() != report.batches.size() || report.reals.size() != report.batches.size() ||
      (!found->counts.empty() && !report.counts.empty() && found->counts.size() != report.counts.size())) {
    fail(ErrorKind::protocol,
         "rank {} reports {} evaluation batches with {} sums, {} real and {} integer metrics",
         message.from.value, report.batches.size(), report.sums.size(), report.reals.size(),
         report.counts.size());
  }
  found->counts.resize(std::max(found->counts.size(), report.counts.size()), 0);
  for (std::size_t i = 0; i < report.counts.size(); ++i) found->counts[i] += report.counts[i];
  found->scores.merge(report.scores);
  for (std::size_t i = 0; i < report.batches.size(); ++i) {
    const auto batch = static_cast<std::size_t>(report.batches[i]);
    if (batch >= found->batches.size() || found->batches[batch]) {
      fail(ErrorKind::protocol, "rank {} reports evaluation batch {} of {}, or twice", message.from.value,
           batch, found->batches.size());
    }
    found->batches[batch] = {report.sums[i], report.reals[i]};
    --found->missing;
  }
  if (found->missing > 0) return;
  const Evaluation evaluation = std::move(*found);
  evaluations_.erase(found);
  finish_evaluation(evaluation);
}

void Coordinator::finish_evaluation(const Evaluation& evaluation) {
  const std::int64_t per_epoch = train_.steps_per_epoch;
  const std::int64_t epoch = per_epoch > 0 ? (evaluation.clock.value + per_epoch - 1) / per_epoch : 1;
  EvalSummary summary{evaluation.clock, epoch, {}, {}};
  std::vector<double> reals;
  for (const auto& batch : evaluation.batches) {  // in order, whoever evaluated it
    summary.sums += batch->sums;
    merge_reals(evaluation_, reals, batch->reals);
  }
  summary.metrics = metric_values(evaluation_, summary.sums, evaluation.counts, reals, evaluation.scores);
  observer_.on_eval(summary);
  EvaluationRecord record = record_of(summary);
  if (stream_) record.values.merge(stream_->metrics(evaluation_.has_accuracy));
  if (checkpoints_ != nullptr) checkpoints_->on_evaluation(record);
  if (!std::isfinite(summary.sums.loss))
    inquire({.step = evaluation.clock.value, .test_loss = not_finite_text(summary.sums.loss)});
  if (stop_) {
    const auto value = record.values.find(stop_->rule().metric);
    stop_->add(record.step, value != record.values.end() ? value->second : std::nan(""));
    state_.stop = stop_->state();
  }
  evaluated_ = evaluation.clock;
  if (awaited_ == evaluated_) go_on_after_evaluation();
}

void Coordinator::go_on_after_evaluation() {
  awaited_.reset();
  if (stop_ && stop_->is_over()) return end_early();
  let_compute(Clock(current_.value + 1));
  dealer_ ? deal() : release_due();
}

// What the last updates made, no worker's loss has shown.
void Coordinator::begin_final_save() {
  phase_ = Phase::final_save;
  inquire({.step = current_.value});
}

void Coordinator::send_to(const std::vector<ServerId>& servers, MessageType type, std::int64_t retry) {
  MessageHeader header = make_header(type, 0, current_);
  header.sequence = retry;
  for (ServerId s : servers) transport_.send_message(cluster_.rank_of(s), header);
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
