#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/transport/push_details.h"
#include "ps/push_receiver.h"
#include "ps/record/record_units.h"
#include "ps/row_exchange.h"
#include "ps/staged_answers.h"
#include "ps/staleness_watch.h"
#include "ps/step_protocol.h"
#include "ps/ticket_count.h"
#include "ps/update/updater.h"

namespace varscope {

// SSP (Ho et al., NIPS 2013) and ASP: each push is applied by itself, chunk by chunk as it comes, for its
// share of a step, and is answered with what its worker's next ticket may be computed with (StepRule). An
// answer holds the worker's own pushes. A chunk is a run of whole slices, received, applied and copied for an
// answer as a whole: a slice in an answer is of one version; two slices may be of two. See
// docs/consistency.md. With Parts::replay both in the order of a recorded run instead: nothing is limited by
// memory then, as the order decides who waits.
//
// Compressed gradients come encoded, and are decoded before they are applied. Where workers keep back what
// that loses (CodecType), each flushes it to every bucket of such variables when all come together, at the
// steps of Parts::flush: a step is over in a bucket only when all have. A flush is no ticket, and counts for
// none. One thread; borrows everything it is given.
class PushSteps final : public StepProtocol, private RowGate {
 public:
  // REQUIRES a plan of ChunkRule::whole_slices.
  explicit PushSteps(const Parts& parts);
  PushSteps(const PushSteps&) = delete;
  PushSteps& operator=(const PushSteps&) = delete;

  void on_push(WorkerId worker, const Message& push) override;
  void on_pull(WorkerId worker, const MessageHeader& pull) override;
  void on_rows_wanted(WorkerId worker, const MessageHeader& wanted) override;
  void on_rows_push(WorkerId worker, const Message& push) override;
  // The workers take norms themselves.
  void on_norms(const Message& message) override;
  void on_completion(const Completion& completion) override;
  bool work() override { return false; }
  bool is_behind(Clock clock) const override;
  void on_cut(Clock clock) override;
  void go_on_after(Clock clock) override;
  StalenessReport staleness() const override { return watch_.report(); }

 private:
  // What has been applied to a chunk, or a table.
  struct Unit {
    static constexpr Clock kNoFlush{std::numeric_limits<std::int64_t>::max()};
    TicketCount tickets;
    // The last step of which, and of all before, everything is in.
    Clock low() const { return std::min(tickets.low(), Clock(flush.value - 1)); }
    std::int64_t leaves = 0;  // of all steps, those without samples too
    double applied = 0;       // steps, as the sum of shares
    std::int64_t pushes = 0;  // since the start
    Clock flush = kNoFlush;   // the next step after which workers flush what compression has kept back
    int n_flushed = 0;        // workers that have, after that step
  };
  struct Ticket {
    Clock step;
    int leaf_begin = 0;
    PushDetails details;
    std::int64_t read_at = 0;  // of rows: Unit::pushes that the answer to its request held
    bool is_flush = false;     // none: what compression has kept back before all came together at `step`
  };
  // What asks for values: a push for its answer, a worker for which that was too old, or all, who have come
  // together.
  enum class Reads : std::uint8_t { push, again, drained };
  struct Stream {  // of one bucket and worker
    bool is_pushing = false;
    Ticket ticket;
    bool is_acked = false;       // the answer is an ack
    std::vector<bool> applied;   // chunks of this push
    int n_missing = 0;           // of these
    std::optional<Clock> reads;  // the ticket's step that an answer is due for
    Reads reads_for = Reads::push;
    WireForm form = WireForm::full;     // of that answer
    int next_chunk = 0;                 // of that answer
    Clock seen{0};                      // what all its chunks so far hold
    std::vector<std::int64_t> read_at;  // Unit::pushes that each chunk of the last answer held
    // What the chunks of an answer held whose step was not known: their lead counts when the push comes that
    // was computed with them. -1: none is due.
    std::vector<std::int64_t> lead_due;
    StalenessWatch::Timer timer;
  };
  struct BucketState {
    IdVector<WorkerId, Stream> streams;
    std::vector<Unit> units;
    Clock low{0};     // of all units
    int n_above = 0;  // units beyond that
  };
  // Where a recorded run is replayed: what is not in its order yet, of a unit.
  struct Copy {  // made when it was, for a worker that may not have asked yet
    StagedAnswers::Copy values;
    Clock holds;
  };
  struct Turn {
    std::map<WorkerId, std::byte*> early;  // pushes that have come; null: of no samples, or of rows
    struct Answers {                       // that have not left
      std::deque<Copy> answered, drained;  // what tickets are computed with; what all read together
      bool ends_with_drain = false;        // what the last push is answered with, nobody computes with
    };
    std::map<WorkerId, Answers> answers;
  };
  struct Held {  // until a cut is over
    Message message;
    std::int64_t since_ns;
  };
  // push_steps_replay.cc
  void play(const Bucket& bucket, int chunk);
  void play_early(const Bucket& bucket, int chunk, WorkerId worker, std::byte* gradient);
  void apply_early(const Bucket& bucket, int chunk, WorkerId worker);
  enum class Answer : std::uint8_t { sent, due, free };
  Answer answer_in_order(const Bucket& bucket, int chunk, WorkerId worker);
  void copy_for(const Bucket& bucket, int chunk, const RecordEvent& event);
  void play_rows(TableId id);
  void pass_cut(Unit& state, int unit, std::uint64_t hash, const std::string& what);
  std::uint64_t hash_of(const Bucket& bucket, int chunk) const;
  std::uint64_t hash_of(TableId id) const;

  bool holds(const Message& message) const;
  void take(WorkerId worker, const Message& message);
  void handle(WorkerId worker, const Message& message);
  void push(WorkerId worker, const Message& message);
  void pull(WorkerId worker, const MessageHeader& pull);
  void rows_push(WorkerId worker, const Message& message);
  Ticket ticket_of(WorkerId worker, const Message& push) const;
  Ticket flush_of(WorkerId worker, const Bucket& bucket, const Message& push) const;
  WireForm form_of(WorkerId worker, const Bucket& bucket, const MessageHeader& push) const;
  std::int64_t number_of(WorkerId worker, const Ticket& ticket) const;
  UpdateStep count(Unit& unit, WorkerId worker, const Ticket& ticket, std::int64_t read_at,
                   std::string_view what);
  UpdateStep flush(Unit& unit, const Ticket& ticket);
  void apply(const Bucket& bucket, WorkerId worker, int chunk, std::byte* gradient);
  void end_chunk(const Bucket& bucket, WorkerId worker);
  void answer(const Bucket& bucket, WorkerId worker);
  void record_push(int unit, WorkerId worker, const Ticket& ticket);
  void record_answer(int unit, WorkerId worker, const Stream& stream);
  void take_rows(const std::optional<RowExchange::Whole>& whole);
  void apply_rows(TableId id, WorkerId worker);
  bool may_read_chunk(const Bucket& bucket, Stream& stream, int chunk);
  void on_wanted(TableId table, WorkerId worker) override;
  bool may_read(TableId table, WorkerId worker, Clock request) override;
  std::int64_t on_read(TableId table, WorkerId worker, Clock request, std::size_t n_bytes) override;

  Parts parts_;
  ParameterShard& shard_;
  Updater updater_;
  PushReceiver receiver_;
  StagedAnswers answers_;
  std::optional<RowExchange> rows_;
  IdVector<BucketId, BucketState> buckets_;
  IdVector<TableId, Unit> tables_;
  IdVector<TableId, IdVector<WorkerId, Ticket>> row_tickets_;
  IdVector<TableId, IdVector<WorkerId, StalenessWatch::Timer>> row_timers_;
  StalenessWatch watch_;
  IdVector<WorkerId, std::int64_t> sequence_;  // its last push
  IdVector<WorkerId, std::deque<Held>> held_;
  std::int64_t held_ns_ = 0;                       // that what is being handled was held
  IdVector<WorkerId, std::set<BucketId>> unsent_;  // answers that wait for memory
  Clock cut_done_;                                 // the last cut that is over
  RecordUnits units_;
  std::vector<Turn> turns_;  // by unit; of a replay only
};

}  // namespace varscope
