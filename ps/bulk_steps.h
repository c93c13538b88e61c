#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/transport/counted_workers.h"
#include "common/transport/wire_codec.h"
#include "ps/aggregator.h"
#include "ps/row_exchange.h"
#include "ps/shared_answers.h"
#include "ps/step_protocol.h"
#include "ps/update/deferred_update.h"
#include "ps/update/histogram_taker.h"
#include "ps/update/updater.h"

namespace varscope {

// BSP (Valiant, CACM 1990): sums the pushes of all workers in the canonical order, applies the optimizer wire
// chunk by wire chunk, and answers each with its new value as soon as it has one; where norms are needed,
// DeferredUpdate says when. With a delay (StepRule) pushes of later steps wait until their bucket's round has
// ended; nothing else differs. With backup workers (Chen et al. 2016) the pushes of a step are those of the
// workers that they name; who is not among them asks for the values. See docs/data_path.md. One thread;
// borrows everything it is given.
class BulkSteps final : public StepProtocol {
 public:
  explicit BulkSteps(const Parts& parts);
  BulkSteps(const BulkSteps&) = delete;
  BulkSteps& operator=(const BulkSteps&) = delete;

  void on_push(WorkerId worker, const Message& push) override;
  void on_pull(WorkerId worker, const MessageHeader& pull) override;
  void on_rows_wanted(WorkerId worker, const MessageHeader& wanted) override;
  void on_rows_push(WorkerId worker, const Message& push) override;
  void on_norms(const Message& message) override { deferred_.on_message(message); }
  void on_completion(const Completion& completion) override;
  bool work() override;
  bool is_behind(Clock clock) const override;
  // No worker pushes a step before it has all values of the one before, or of the cut: nothing is ever held.
  void go_on_after(Clock) override {}

 private:
  struct BucketState {
    int sends_in_flight = 0;
    bool in_round = false;
    std::uint32_t flags = 0;
    std::vector<bool> applied = {};                            // chunks of this round
    int n_answered = 0;                                        // all chunks below this
    std::vector<std::pair<WorkerId, MessageHeader>> deferred;  // pushes that wait for our own sends, and
                                                               // of later steps
  };
  void take_counted(WorkerId worker, const Message& push, std::string_view details);
  void announce(WorkerId worker, const MessageHeader& push);
  void announce_deferred(BucketId id);
  void scale_sum(const Aggregator::ReadyChunk& chunk) const;
  void apply(const Aggregator::ReadyChunk& chunk);
  void answer(BucketId id, int chunk);
  void answer_in_order(BucketId id, int chunk);
  void send_value_header(BucketId id, Clock clock, Rank to, WireForm form);
  void send_value_chunk(BucketId id, int chunk, std::span<const Rank> to, WireForm form);
  void send_own_chunk(const Bucket& bucket, int chunk, Rank to, WireForm form);
  void finish_round(BucketId id);
  void on_whole_table(const std::optional<RowExchange::Whole>& whole);
  void apply_whole_tables();
  void apply_table(TableId id, double scale);
  bool apply_scaled_table();
  void finish_unit(Clock clock, std::uint32_t flags);
  void check_order(WorkerId worker, const MessageHeader& push, std::string_view what) const;
  void report_histograms(BucketId id, Clock clock);
  BucketState& state_of(BucketId id) { return buckets_[id]; }

  Parts parts_;
  Transport& transport_;
  ParameterShard& shard_;
  WireCodec codec_;
  Aggregator aggregator_;
  Updater updater_;
  DeferredUpdate deferred_;
  std::optional<HistogramTaker> histograms_;
  std::optional<RowExchange> rows_;
  IdVector<BucketId, BucketState> buckets_;
  IdVector<WorkerId, std::int64_t> sequence_;  // its last push
  std::vector<std::pair<WorkerId, MessageHeader>> held_pulls_;
  std::vector<Rank> answered_;           // whose pushes are answered: all workers, or those that count
  std::optional<SharedAnswers> shared_;  // with backup workers
  CountedPush counting_;                 // the same: what the pushes of a step say
  Clock counting_step_{-1};              // that step
  int n_pushed_ = 0;                     // buckets and tables
  std::optional<Clock> ended_;           // the last step that all of them have applied; nothing: none has any
  std::deque<int> n_finished_;           // of the steps after it: how many have applied it
  std::vector<DeferredUpdate::FinalChunk> final_chunks_;
};

}  // namespace varscope
