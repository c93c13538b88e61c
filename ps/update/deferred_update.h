#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/base/ids.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/placement/norm_plan.h"
#include "ps/store/parameter_shard.h"
#include "ps/update/norm_exchange.h"
#include "ps/update/updater.h"

namespace varscope {

// The part of a step that must wait for norms over slices of other servers (docs/data_path.md, "Deferred
// steps"). Two waits, each of which exists only where the config and the variables ask for it:
//   gradients  optimizer.clip by norm: the sums of all trained buckets are kept in a gradient memory; when
//              the norms are known they are scaled and applied. The rows of tables take part: whoever has
//              their pushes keeps these, gives sums of squares, and asks for the factors
//   values     constraints by norm: the values of buckets with such a variable are held back after the update
//              until the norms of the new values are known, and are scaled
// Work is done in tasks of at most a wire chunk or a slice, so that the server goes on polling in between.
//
// Not thread-safe; owns the gradient memory; borrows the rest.
class DeferredUpdate {
 public:
  // A wire chunk whose values are those after the step.
  struct FinalChunk {
    BucketId bucket;
    int chunk;
  };
  DeferredUpdate(Transport& transport, const ClusterMap& cluster, const BucketPlan& plan,
                 const Optimizer& optimizer, ParameterShard& shard, Updater& updater, FiniteWatch& watch);
  DeferredUpdate(const DeferredUpdate&) = delete;
  DeferredUpdate& operator=(const DeferredUpdate&) = delete;

  // Whether sums of the bucket go to keep() instead of being applied.
  bool keeps_gradient(BucketId id) const { return state_of(id).gradient != nullptr; }
  // Whether the bucket's new values come out of work(), not of its chunks' updates.
  bool defers(BucketId id) const { return keeps_gradient(id) || !state_of(id).held_slices.empty(); }
  void keep(BucketId id, int chunk, const std::byte* sum);
  // All chunks of the bucket have been kept, or updated. REQUIRES defers(id).
  void round_ended(BucketId id);
  // Whether the gradients of rows of trained tables wait too.
  bool keeps_rows() const { return !gradients_.plan.empty(); }
  // The sums of squares of the summed row gradients of a table in step `step`, by part; those of parts that
  // are on other servers do not matter. Once for each trained table and step. REQUIRES keeps_rows().
  void give_row_squares(int variable, std::span<const double> sums, Clock step);
  // Tables whose gradients are to be multiplied by `scale` and applied now, one by one.
  struct RowUpdate {
    int variable;
    double scale;
  };
  std::optional<RowUpdate> next_row_update();
  // Takes norm_sums (server 0 only) and norm_scales. Throws Error(protocol).
  void on_message(const Message& message);
  // Does one task; false when there is none. Appends the chunks that are final now, in order; a bucket's last
  // chunk comes last.
  bool work(std::vector<FinalChunk>& final_chunks);

  // What a server keeps of these buckets' gradients; for `varscope plan`.
  static std::int64_t gradient_bytes(const BucketPlan& plan, const ClipConfig& clip, ServerId server);

 private:
  struct Wait {  // one kind of norm
    Wait(const NormPlan& norms, Transport& transport, const ClusterMap& cluster, const ParameterShard& shard,
         NormKind kind, FiniteWatch& watch);
    NormPlan plan;
    NormExchange exchange;
    std::optional<NormReducer> reducer;  // server 0 only
    std::int64_t n_terms = 0;            // of this server
    std::int64_t n_left = 0;             // terms without sums in this step
  };
  struct BucketState {
    AlignedBytes gradient;         // null: not kept
    std::vector<int> held_slices;  // indices of the slices with a norm constraint
    std::size_t rescaled = 0;      // of them, in this step
  };
  enum class Work : std::uint8_t { square, update, sum_groups, rescale };
  struct Task {
    Work work;
    BucketId bucket;
    int index;  // of the slice; update: of the chunk
  };

  const BucketState& state_of(BucketId id) const { return buckets_[id]; }
  BucketState& state_of(BucketId id) { return buckets_[id]; }
  Clock step_of(BucketId id) const { return Clock(shard_.clock(id).value + 1); }
  void add_sum_tasks(BucketId id);
  void start_updates();
  void start_rescaling();
  void square(const Bucket& bucket, const BucketSlice& slice);
  void update(const Bucket& bucket, int chunk, std::vector<FinalChunk>& final_chunks);
  void sum_groups(const Bucket& bucket, const BucketSlice& slice);
  void rescale(const Bucket& bucket, const BucketSlice& slice, std::vector<FinalChunk>& final_chunks);
  static void terms_are_done(Wait& wait, std::int64_t n, Clock step);
  void term_is_done(Wait& wait, BucketId bucket) { terms_are_done(wait, 1, step_of(bucket)); }

  const BucketPlan& plan_;
  ParameterShard& shard_;
  Updater& updater_;
  FiniteWatch& watch_;
  IdVector<BucketId, BucketState> buckets_;
  Wait gradients_;
  Wait values_;
  std::deque<Task> tasks_;
  std::vector<int> tables_;  // trained, with parts here; by variable
  std::deque<RowUpdate> row_updates_;
};

}  // namespace varscope
