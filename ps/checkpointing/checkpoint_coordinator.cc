#include "ps/checkpointing/checkpoint_coordinator.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/transport/transport.h"

namespace varscope {

CheckpointCoordinator::CheckpointCoordinator(Fs& fs, std::string dir, const CheckpointConfig& config,
                                             Manifest base, std::string start_id,
                                             std::vector<ServerId> writers, Clock first,
                                             RunObserver& observer, const std::string& resumed_from,
                                             const std::vector<std::string>& lineage)
    : fs_(fs),
      dir_(std::move(dir)),
      config_(config),
      base_(std::move(base)),
      start_id_(std::move(start_id)),
      writers_(std::move(writers)),
      observer_(observer),
      directory_(fs, dir_) {
  directory_.lock(base_.run_id);
  directory_.sweep();
  const std::string own = join_path(dir_, step_name(first.value));
  const std::string path = resumed_from.empty() ? own : resumed_from;
  if (std::filesystem::weakly_canonical(path) == std::filesystem::weakly_canonical(own)) {
    directory_.go_back_to(first.value, "resume");
  } else {
    directory_.go_on_from(path, first.value, base_.run_id);
  }
  for (const std::string& line : lineage) directory_.record(line);
  // What the run knew of its quality when it stopped.
  std::string unreadable;
  if (auto evaluation = read_evaluation(fs_, path, &unreadable)) evaluations_[evaluation->step] = *evaluation;
  warnings_ = directory_.warnings();
  if (!unreadable.empty()) warnings_.push_back(std::move(unreadable));
}

CheckpointCoordinator::~CheckpointCoordinator() {
  if (commit_.valid()) commit_.wait();
  if (recording_.valid()) recording_.wait();
}

bool CheckpointCoordinator::idle() const {
  return !pending_ && (!given_up_ || now_ns() > given_up_->until_ns);
}

std::optional<SaveBase> CheckpointCoordinator::save_base() const {
  const auto is_table = [](const VariableSpec& v) { return v.is_table(); };
  if (!config_.incremental || std::ranges::none_of(base_.variables.variables(), is_table))
    return std::nullopt;
  SaveBase base{pending_->id, "", 0, n_committed_};
  if (pending_->rows == Rows::all || !last_committed_) return base;
  base.base_id = last_id_;
  base.base_step = last_committed_->value;
  return base;
}

bool CheckpointCoordinator::begin(Clock clock, std::int64_t retry, Rows rows) {
  pending_ =
      Pending{clock, checkpoint_id(clock, start_id_, retry), now_ns(), {}, 0, false, {}, "", false, rows};
  pending_->outcomes.resize(writers_.size());
  try {
    directory_.begin(pending_->id);
    pending_->n_due = writers_.size();
    return true;
  } catch (const Error& e) {
    give_up(e.what());
    return false;
  }
}

void CheckpointCoordinator::set_states(Clock clock, const IdVector<WorkerId, std::string>& worker_states,
                                       const std::string& coordinator_state) {
  if (!pending_ || pending_->clock != clock) return;
  pending_->worker_states = worker_states;
  pending_->coordinator_state = coordinator_state;
  pending_->have_states = true;
}

void CheckpointCoordinator::on_outcome(ShardOutcome outcome) {
  if (given_up_ && outcome.checkpoint_id == given_up_->id && --given_up_->n_due == 0) {
    directory_.abandon(given_up_->id);  // again: somebody may have made a file while it was being removed
    given_up_.reset();
  }
  // A server that was given up on may still report: its save is over.
  if (!pending_ || outcome.checkpoint_id != pending_->id) return;
  if (pending_->n_due > 0) --pending_->n_due;
  stall_s_ += static_cast<double>(outcome.stall_ns) * 1e-9 / static_cast<double>(writers_.size());
  if (!outcome.error.empty()) return give_up(outcome.error);
  const auto found = std::find(writers_.begin(), writers_.end(), ServerId(outcome.report.server));
  if (found == writers_.end()) {
    fail(ErrorKind::protocol, "server {} reports a shard, but owns no slice", outcome.report.server);
  }
  pending_->outcomes[static_cast<std::size_t>(found - writers_.begin())] = std::move(outcome);
}

void CheckpointCoordinator::on_evaluation(EvaluationRecord record) {
  evaluations_[record.step] = record;
  to_record_.push_back(std::move(record));
}

// The newest known one of this step or before; older ones are of no use any more.
std::optional<EvaluationRecord> CheckpointCoordinator::evaluation_of(std::int64_t step) {
  auto after = evaluations_.upper_bound(step);
  if (after == evaluations_.begin()) return std::nullopt;
  const auto found = std::prev(after);
  evaluations_.erase(evaluations_.begin(), found);
  return found->second;
}

// True while the disk thread records: committed checkpoints are its own until then.
bool CheckpointCoordinator::is_recording() {
  if (!recording_.valid()) return false;
  if (recording_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return true;
  for (const std::string& warning : recording_.get()) observer_.on_warning(warning);
  return false;
}

void CheckpointCoordinator::start_recording() {
  recording_ = std::async(std::launch::async, [this, records = std::exchange(to_record_, {})] {
    std::vector<std::string> warnings;
    try {
      for (const EvaluationRecord& record : records) directory_.record_evaluation(record);
    } catch (const Error& e) {
      warnings.push_back(
          fmt::format("the metrics of the evaluation after step {} are not with its checkpoint: {}",
                      records.back().step, e.what()));
    }
    if (config_.keep_best) retain(warnings);
    return warnings;
  });
}

// On the disk thread. The checkpoint is committed: whatever fails now does it no harm.
void CheckpointCoordinator::retain(std::vector<std::string>& warnings) {
  try {
    directory_.retain(retention_of(config_));
    warnings.insert(warnings.end(), directory_.warnings().begin(), directory_.warnings().end());
  } catch (const Error& e) {
    warnings.push_back(fmt::format("older checkpoints could not be removed: {}", e.what()));
  }
}

void CheckpointCoordinator::tick() {
  for (const std::string& warning : std::exchange(warnings_, {})) observer_.on_warning(warning);
  const bool is_committing = pending_ && pending_->committing;
  bool is_busy = is_recording();
  if (!is_committing && !is_busy && !to_record_.empty()) {
    start_recording();
    is_busy = true;
  }
  if (!pending_) return;
  if (is_committing) {
    if (commit_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) finish_commit();
    return;
  }
  if (is_complete() && !is_busy) start_commit();
}

bool CheckpointCoordinator::is_complete() const {
  return pending_->have_states && std::all_of(pending_->outcomes.begin(), pending_->outcomes.end(),
                                              [](const auto& o) { return o.has_value(); });
}

// A complete one may still wait until an evaluation has been recorded.
bool CheckpointCoordinator::is_overdue() const {
  return pending_ && !pending_->committing && !is_complete() &&
         static_cast<double>(now_ns() - pending_->started_ns) * 1e-9 > time_limit(config_.timeout_s);
}

// Whoever is stuck keeps others waiting: a server the workers, and a worker all servers. All are named.
void CheckpointCoordinator::give_up_overdue(const std::string& silent_workers, Blame blame) {
  std::string who;
  if (const std::string servers = silent_servers(); !servers.empty()) who = "no report from " + servers;
  if (!pending_->have_states && !silent_workers.empty())
    who += (who.empty() ? "" : " and ") + ("no step report from " + silent_workers);
  if (blame == Blame::workers) --failures_in_a_row_;
  give_up(fmt::format("{} within {:g} s (checkpoint.timeout_s)", who, config_.timeout_s));
}

std::string CheckpointCoordinator::silent_servers() const {
  std::string names;
  for (std::size_t i = 0; i < writers_.size(); ++i) {
    if (!pending_->outcomes[i])
      names += fmt::format("{}server {}", names.empty() ? "" : ", ", writers_[i].value);
  }
  return names;
}

void CheckpointCoordinator::start_commit() {
  pending_->committing = true;
  Manifest manifest = base_;
  manifest.id = pending_->id;
  manifest.step = pending_->clock.value;
  manifest.coordinator_state = pending_->coordinator_state;
  for (const auto& outcome : pending_->outcomes) {
    if (manifest.worker_clocks.empty()) manifest.worker_clocks = outcome->report.worker_clocks;
    if (manifest.worker_clocks != outcome->report.worker_clocks || manifest.step != outcome->report.step) {
      return give_up(fmt::format("server {} cut at step {}, not {}", outcome->report.server,
                                 outcome->report.step, manifest.step));
    }
    add_report(manifest, outcome->report);
  }
  if (discards_not_finite_ && !manifest.not_finite.empty()) {
    discarded_ = Discarded{pending_->clock, std::move(manifest.not_finite)};
    pending_->committing = false;
    return drop_from(pending_->clock);
  }
  const std::optional<EvaluationRecord> evaluation = evaluation_of(manifest.step);
  commit_ =
      std::async(std::launch::async, [this, manifest = std::move(manifest), states = pending_->worker_states,
                                      id = pending_->id, evaluation]() mutable {
        for (WorkerId w : states.ids()) {
          manifest.files.push_back(write_blob(fs_, temporary_path(dir_, id), worker_state_name(w.value),
                                              seal(kWorkerStateMagic, states[w])));
        }
        if (evaluation) write_evaluation(fs_, temporary_path(dir_, id), *evaluation);
        Committed committed{directory_.commit(id, manifest), directory_.warnings()};
        retain(committed.warnings);
        return committed;
      });
}

void CheckpointCoordinator::finish_commit() {
  Committed committed;
  try {
    committed = commit_.get();
  } catch (const Error& e) {
    return give_up(e.what());
  }
  CheckpointSummary summary{
      pending_->clock, committed.path, 0, 0, 0, static_cast<double>(now_ns() - pending_->started_ns) * 1e-9};
  for (const auto& outcome : pending_->outcomes) {
    summary.bytes += static_cast<std::int64_t>(outcome->report.file.size);
    if (!outcome->report.row_files.empty())  // not those that are linked
      summary.bytes += static_cast<std::int64_t>(outcome->report.row_files.front().size);
    summary.stall_s = std::max(summary.stall_s, static_cast<double>(outcome->stall_ns) * 1e-9);
    summary.copy_s = std::max(summary.copy_s, static_cast<double>(outcome->copy_ns) * 1e-9);
  }
  for (const auto& outcome : pending_->outcomes) {
    if (outcome->warning.empty() || !told_.insert(outcome->warning).second) continue;
    observer_.on_warning(
        fmt::format("the checkpoint of step {} has all rows of server {}, not only those that have "
                    "changed (checkpoint.incremental): {}",
                    pending_->clock.value, outcome->report.server, outcome->warning));
  }
  last_committed_ = pending_->clock;
  last_id_ = pending_->id;
  pending_.reset();
  ++n_committed_;
  failures_in_a_row_ = 0;
  observer_.on_checkpoint(summary);
  for (const std::string& warning : committed.warnings) observer_.on_warning(warning);
}

std::string CheckpointCoordinator::path_of(Clock step) const {
  std::string path = join_path(dir_, step_name(step.value));
  return fs_.exists(join_path(path, kManifestName)) ? path : "";
}

void CheckpointCoordinator::drop_from(Clock clock) {
  if (!pending_ || pending_->committing || pending_->clock < clock) return;
  directory_.abandon(pending_->id);
  pending_.reset();
}

void CheckpointCoordinator::give_up(const std::string& why) {
  const Clock clock = pending_->clock;
  directory_.abandon(pending_->id);
  given_up_.reset();
  if (pending_->n_due > 0) {
    given_up_ = GivenUp{pending_->id, now_ns() + ns_of(time_limit(config_.timeout_s)), pending_->n_due};
    given_up_step_ = clock;
  }
  pending_.reset();
  ++n_failed_;
  observer_.on_checkpoint_failed(clock, why);
  if (++failures_in_a_row_ >= config_.max_failures) {
    fail(ErrorKind::io,
         "{} checkpoints in a row have failed (checkpoint.max_failures); the last, of step {}: {}",
         failures_in_a_row_, clock.value, why);
  }
}

}  // namespace varscope
