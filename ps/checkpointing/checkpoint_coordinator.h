#pragma once

#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/format/manifest.h"
#include "common/base/ids.h"
#include "common/base/types.h"
#include "common/config/job_config.h"
#include "ps/checkpointing/save_base.h"
#include "ps/checkpointing/shard_checkpointer.h"
#include "ps/observe/run_observer.h"

namespace varscope {

// Server 0's part of a save: makes the temporary directory, collects what servers and workers report, commits
// on a disk thread, applies retention; gives a save up on any error or when its time is over. One save at a
// time; after `max_failures` in a row it throws Error(io). Used by the coordinator's thread; one disk thread
// at a time, which commits or records an evaluation.
class CheckpointCoordinator {
 public:
  // `base` has everything that is the same for all checkpoints of this run; all servers are `writers`. Takes
  // the directory's lock, sweeps it, and sets checkpoints of steps after `first` aside, as LINEAGE then says:
  // the run goes another way from here. `resumed_from`: the checkpoint's path, where it is none of `dir`;
  // then those that a later resume would take for this run's own go aside, too. `lineage`: lines to record.
  CheckpointCoordinator(Fs& fs, std::string dir, const CheckpointConfig& config, Manifest base,
                        std::string start_id, std::vector<ServerId> writers, Clock first,
                        RunObserver& observer, const std::string& resumed_from = "",
                        const std::vector<std::string>& lineage = {});
  ~CheckpointCoordinator();
  CheckpointCoordinator(const CheckpointCoordinator&) = delete;
  CheckpointCoordinator& operator=(const CheckpointCoordinator&) = delete;

  // False while a save is under way, and while servers still write their part of one that was given up: they
  // would refuse the next. Not longer than checkpoint.timeout_s after it was given up.
  bool idle() const;
  // A save under way, or an evaluation to be recorded.
  bool has_pending_work() const { return !idle() || !to_record_.empty() || recording_.valid(); }
  std::optional<Clock> last_committed() const { return last_committed_; }

  // What a save has of tables with checkpoint.incremental: what has changed since the newest committed save
  // of this start, where there is one, or all of it.
  enum class Rows : std::uint8_t { changed, all };
  // Opens a save of the state after step `clock`. REQUIRES idle(). False when it failed at once (reported).
  // `retry` counts the tries of one step, from 0.
  bool begin(Clock clock, std::int64_t retry = 0, Rows rows = Rows::changed);
  // What all servers are to be told before they cut for the save under way; nothing where it has no rows, or
  // always all of them. REQUIRES: begin() has just returned true.
  std::optional<SaveBase> save_base() const;
  // Text archives, as they are after step `clock`. Of another step than the save under way has, which may be
  // the case once that of `clock` has been given up: of no use.
  void set_states(Clock clock, const IdVector<WorkerId, std::string>& worker_states,
                  const std::string& coordinator_state);
  void on_outcome(ShardOutcome outcome);
  // The evaluation of the values after a step; recorded with checkpoints of that step and later ones, before
  // they are committed or, on a disk thread, afterwards.
  void on_evaluation(EvaluationRecord record);
  void tick();
  // True when reports are still missing after checkpoint.timeout_s: then give_up_overdue() is due, with the
  // workers that have not reported the step ("worker 1, worker 2", or empty).
  bool is_overdue() const;
  // `Blame::workers`: who is slow has gradients to compute before servers can cut, so nothing is wrong with
  // the disk: it is no failure in a row (checkpoint.max_failures).
  enum class Blame : std::uint8_t { anybody, workers };
  void give_up_overdue(const std::string& silent_workers, Blame blame = Blame::anybody);
  // The step of a save that has been given up, for whatever reason, while servers had it still to cut or to
  // write: once.
  std::optional<Clock> take_given_up() { return std::exchange(given_up_step_, std::nullopt); }

  // From now on a save that turns out not to be finite is not committed: it is removed, and
  // take_discarded() tells.
  void discard_not_finite() { discards_not_finite_ = true; }
  struct Discarded {
    Clock clock;
    std::vector<NotFiniteTensor> tensors;
  };
  std::optional<Discarded> take_discarded() { return std::exchange(discarded_, std::nullopt); }
  // The run ends: a save under way of this step or a later one is of no use.
  void drop_from(Clock clock);

  // Of the committed checkpoint of a step; empty where there is none.
  std::string path_of(Clock step) const;
  int committed() const { return n_committed_; }
  int failed() const { return n_failed_; }
  double stall_s() const { return stall_s_; }
  const std::string& id() const { return pending_->id; }

 private:
  struct Pending {
    Clock clock;
    std::string id;
    std::int64_t started_ns;
    std::vector<std::optional<ShardOutcome>> outcomes;  // by position in writers_
    std::size_t n_due = 0;                              // servers that will still report, well or badly
    bool have_states = false;
    IdVector<WorkerId, std::string> worker_states;
    std::string coordinator_state;
    bool committing = false;
    Rows rows = Rows::all;
  };
  void start_commit();
  std::optional<EvaluationRecord> evaluation_of(std::int64_t step);
  bool is_recording();
  void start_recording();
  void retain(std::vector<std::string>& warnings);
  void finish_commit();
  void give_up(const std::string& why);
  bool is_complete() const;
  std::string silent_servers() const;

  Fs& fs_;
  std::string dir_;
  CheckpointConfig config_;
  Manifest base_;
  std::string start_id_;
  std::vector<ServerId> writers_;
  RunObserver& observer_;
  CheckpointDirectory directory_;
  struct GivenUp {
    std::string id;
    std::int64_t until_ns;
    std::size_t n_due;
  };
  std::optional<Pending> pending_;
  struct Committed {
    std::string path;
    std::vector<std::string> warnings;
  };
  std::future<Committed> commit_;                         // throws what the commit threw
  std::map<std::int64_t, EvaluationRecord> evaluations_;  // by step, that a save may still need
  std::vector<EvaluationRecord> to_record_;          // with checkpoints that may have been committed before
  std::future<std::vector<std::string>> recording_;  // warnings
  std::vector<std::string> warnings_;  // of the start, when nobody listens yet: for the first tick()
  std::optional<GivenUp> given_up_;    // while servers are still at it
  std::optional<Clock> given_up_step_;
  std::optional<Clock> last_committed_;
  std::string last_id_;         // of that
  std::set<std::string> told_;  // warnings of servers
  bool discards_not_finite_ = false;
  std::optional<Discarded> discarded_;
  int n_committed_ = 0;
  int n_failed_ = 0;
  int failures_in_a_row_ = 0;
  double stall_s_ = 0;
};

}  // namespace varscope
