#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/config/flush_rule.h"
#include "common/config/job_config.h"
#include "common/metrics/metric.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/transport/reports.h"
#include "common/transport/run_requests.h"
#include "common/transport/transport.h"
#include "common/transport/wire.h"
#include "ps/checkpointing/checkpoint_coordinator.h"
#include "ps/consistency_ledger.h"
#include "ps/coordinator_state.h"
#include "ps/early_stop.h"
#include "ps/histogram_merger.h"
#include "ps/not_finite_text.h"
#include "ps/observe/run_observer.h"
#include "ps/record/recorded_order.h"
#include "ps/record/step_record.h"
#include "ps/residual_watch.h"
#include "ps/step_quorum.h"
#include "ps/stream/stream_control.h"
#include "ps/ticket_dealer.h"

namespace varscope {

// Where in the data a run is; the same on every rank.
struct TrainPlan {
  Clock first;                       // of the values the run starts from: the next step is first + 1
  Clock last;                        // the run ends after this step
  std::int64_t steps_per_epoch = 1;  // 0: there are no epochs
  std::int64_t evaluates_every =
      0;                         // steps between two evaluations, besides that after the last step; 0: none
  bool evaluates_first = false;  // the values of `first`, before the first step
  FlushRule flush = {};          // which steps may be cut
};

// Server 0's control plane: collects the workers' step reports, lets the next step go (the step barrier of
// BSP; with backup workers the first gradients make a step, see StepQuorum) or, where pushes are applied one
// by one, deals out the tickets of the steps that are open; decides which steps are cut for a checkpoint,
// sums losses and evaluations in a fixed order, and ends the run. It never touches values or gradients. At
// the first loss or value that is not finite it asks all servers what they have found by then, so that what
// it says does not depend on who was first; with OnNan::stop no further step is let go, and once a save that
// is under way has ended, tick() throws Error(not_finite). Messages only; driven by the server's loop; not
// thread-safe.
class Coordinator {
 public:
  struct Parts {
    Transport& transport;
    const ClusterMap& cluster;
    const BucketPlan& plan;
    const VariableTable& variables;
    TrainPlan train;
    CheckpointConfig checkpoint;
    CheckpointCoordinator* checkpoints;  // null: none
    RunObserver& observer;
    CoordinatorState state = {};
    EvaluationSpec evaluation = {};  // of the metrics that the workers' evaluations sum up
    OnNan on_nan = OnNan::stop;
    std::optional<EarlyStop> stop = {};
    std::optional<StreamControl> stream = {};  // where a directory is followed
    StepRule rule = {};
    double late_ticket_s = 10;                // ConsistencyLedger::Parts::late_s
    TicketRecord* record = nullptr;           // of what is dealt; null: none
    const RecordedTickets* replay = nullptr;  // what is to be dealt again; null: as workers ask
    StepQuorum::Samples samples = {};         // with backup workers
  };
  explicit Coordinator(const Parts& parts);

  void start();
  // Takes step_report, eval_report, finished, shard_report, hash_report, finite_report, histograms,
  // staleness and request; outside BSP ticket_request and drained too, with backup workers gradient_done;
  // others throw Error(protocol).
  void on_message(const Message& message);
  void tick();
  // Somebody asks for kRequestSave or kRequestStop (bits); obeyed at the next step that is let go.
  void on_request(std::uint32_t what);

 private:
  enum class Phase : std::uint8_t { training, final_save, hashing, done };
  struct Evaluation {
    Clock clock;
    struct Batch {
      BatchSums sums;
      std::vector<double> reals;
    };
    std::vector<std::optional<Batch>> batches;
    std::size_t missing = 0;
    std::vector<std::int64_t> counts = {};
    ScoreCounts scores = ScoreCounts();
  };
  // What is being found out about a step that has ended: all servers have been asked.
  struct Inquiry {
    NotFiniteStep step;
    std::size_t n_due = 0;
  };
  // A step that has been let go, or may be dealt, and is not over.
  struct OpenStep {
    Clock clock;
    std::vector<std::optional<StepReport>> reports;  // by worker, or by ticket
    int n_missing = 0;
    bool is_cut = false;
    std::vector<std::optional<WorkerId>> holders =
        std::vector<std::optional<WorkerId>>(reports.size());  // who was given it
  };
  // coordinator_backups.cc
  void on_gradient_done(WorkerId worker, const Message& message);
  bool must_wait_for_gradients(Clock clock);
  void send_counted_go(MessageHeader go);
  void let_compute(Clock clock);
  bool counts(WorkerId worker) const { return !quorum_ || quorum_->counted().has(worker); }
  bool waits_for_evaluation(Clock clock) const {
    return (stop_ || quorum_) && is_evaluated(clock) && clock < train_.last;
  }
  // coordinator_tickets.cc
  bool drains_after(Clock clock) const;
  void open_step(Clock clock);
  bool may_open() const;
  void on_ticket_request(WorkerId worker);
  void deal();
  void send_ticket(WorkerId worker, const TicketDealer::Ticket& ticket);
  OpenStep& open_step_of(Clock clock);
  void on_ticket_report(WorkerId worker, const Message& message);
  void complete_ticketed(OpenStep& step);
  static void fill_in_states(IdVector<WorkerId, std::string>& states);
  void on_drained(WorkerId worker, Clock clock);
  std::string workers_with_tickets(Clock clock) const;
  void on_staleness(const Message& message);
  void tell_consistency();

  void release(Clock clock);
  void release_due();
  void release_unless_not_finite(Clock clock);
  void end_early();
  bool is_evaluated(Clock clock) const {
    return train_.evaluates_every > 0 && clock.value % train_.evaluates_every == 0;
  }
  void inquire(NotFiniteStep step);
  void on_finite_report(const Message& message);
  void finish_inquiry();
  void look_at_discarded_save();
  bool waits_for_data(Clock clock);
  void tick_stream();
  void end_stream();
  void save_idle();
  void keep_progress();
  bool cut_is_due(Clock clock) const;
  Clock next_cut() const;
  std::string steps_until_cut() const;
  std::string step_of_next_cut() const;
  bool begin_cut(Clock clock);
  bool begin_save(Clock clock, std::int64_t retry, CheckpointCoordinator::Rows rows);
  bool saves_at_end() const { return checkpoint_.at_end || is_stopped_ || is_asked_at_end_; }
  // A replay in which a server's order of pushes is given.
  bool follows_order() const { return replay_ != nullptr && dealer_.has_value(); }
  bool may_stop_after(Clock clock) const;
  void on_step_report(WorkerId worker, const Message& message);
  void complete_step();
  void complete_step(Clock clock, const std::vector<StepReport>& reports,
                     const IdVector<WorkerId, std::string>& states, bool is_cut);
  void note_compression(Clock clock, const CompressionReport& step);
  void give_overdue_save_up();
  void tell_given_up();
  void on_eval_report(const Message& message);
  void finish_evaluation(const Evaluation& evaluation);
  void go_on_after_evaluation();
  void on_histograms(const Message& message);
  void on_hash_report(const Message& message);
  void begin_final_save();
  void request_hashes();
  std::string state_text() const;
  std::string silent_workers() const;  // that have not reported the step under way
  void send_to(const std::vector<ServerId>& servers, MessageType type, std::int64_t retry = 0);

  Transport& transport_;
  const ClusterMap& cluster_;
  std::vector<ServerId> owners_;  // servers that own slices, or parts of tables
  // How servers learn of a cut: by the pushes of their slices, or, where none are pushed, by message.
  std::vector<ServerId> cut_by_push_, cut_by_message_;
  TrainPlan train_;
  CheckpointConfig checkpoint_;
  CheckpointCoordinator* checkpoints_;
  RunObserver& observer_;
  CoordinatorState state_;
  EvaluationSpec evaluation_;
  Phase phase_ = Phase::training;
  Clock current_;  // the step that has been let go
  bool current_is_cut_ = false;
  IdVector<WorkerId, std::string> final_states_;
  int n_finished_ = 0;
  std::int64_t final_tries_ = 0;
  std::vector<Evaluation> evaluations_;
  WorkerTimes times_;
  CompressionReport compression_;  // FinishSummary's
  ResidualWatch residuals_;
  HistogramMerger histograms_;
  ValuesHash hash_;
  int hash_reports_ = 0;
  std::vector<TableReport> tables_;  // sums of those reports, in the order of the plan
  OnNan on_nan_;
  Clock completed_;                 // the last step that all workers have reported
  std::optional<Clock> suspected_;  // the first step under way in which a server has found something
  std::optional<Inquiry> inquiry_;
  std::optional<Clock> not_finite_since_;
  std::string failure_;  // ends the run as soon as no save is under way
  std::optional<EarlyStop> stop_;
  std::optional<StreamControl> stream_;
  std::optional<Clock> starved_;                    // the step that no file has come for
  std::int64_t idle_since_ns_ = 0;                  // since then, or since the last try to save
  bool is_idle_save_ = false;                       // the save under way is of a step that ended before
  std::int64_t idle_tries_ = 0;                     // saves of these, each of which needs a name
  IdVector<WorkerId, std::string> states_of_last_;  // of the workers, after the last step of a stream
  std::optional<StepQuorum> quorum_;                // with backup workers
  std::optional<Clock> due_;                        // to be let go once enough workers have a gradient
  std::optional<TicketDealer> dealer_;              // null: BSP
  TicketRecord* record_;
  const RecordedTickets* replay_;
  std::optional<ConsistencyLedger> ledger_;  // where there is a dealer
  std::deque<OpenStep> open_;                // in their order
  std::vector<WorkerId> asking_;             // for a ticket, in their order
  std::vector<Clock> cuts_;                  // of steps since the start
  std::string cut_id_;                       // of the last save that was begun
  std::optional<Clock> drain_;               // no step after this one is opened until it is over
  int n_drained_ = 0;                        // workers that say so
  int n_reading_ = 0;             // workers that have come together, and read before anybody gets a ticket
  bool is_ended_ = false;         // there are no more tickets
  std::optional<Clock> awaited_;  // the evaluation that decides whether training goes on, or has to end first
  std::optional<Clock> evaluated_;  // the last evaluation that has ended
  std::optional<Clock> delayed_;    // to be let go once the save under way has ended
  std::string ended_why_, ended_by_;
  bool is_queued_ = false;  // a cut, for the first step at which nothing is being written
  bool is_stopping_ = false;
  bool is_asked_at_end_ = false;  // by a signal, when the last step was under way already
  bool is_stopped_ = false;       // before the last step that was planned
  int skipped_ = 0;
  int queued_ = 0;
  std::int64_t last_save_ns_;
};

}  // namespace varscope
