#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "common/base/buffer_pool.h"
#include "common/base/ids.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/canonical_sum.h"
#include "common/placement/cluster.h"
#include "common/transport/counted_workers.h"
#include "common/transport/transport.h"
#include "common/transport/wire_codec.h"

namespace varscope {

// Receives the gradients of one clock, wire chunk by wire chunk, and sums each chunk in the canonical order
// while it is in cache.
//
// A bucket's round opens with the first announced push and ends when its last chunk is summed. A round owns a
// ring of `window` chunk buffers per contribution, all taken at admission: every admitted round can finish by
// itself, whatever the others do, so that the byte limit can hold producers back but never deadlock. Rounds
// over the limit wait in line.
//
// Where gradients come encoded (kFlagEncoded), the contributions are leaves, not the largest tree nodes of
// each worker: what encoding makes of a sum of leaves would depend on who sums them. They are decoded into
// the ring; the sum's order is the same.
//
// Not thread-safe. Throws Error(protocol) on a push that does not fit (wrong size or contributions, twice).
class Aggregator {
 public:
  struct Limits {
    std::size_t max_bytes = std::size_t{32} << 20;  // of ring buffers; one round is always admitted
    int max_window = 8;                             // chunks in flight per contribution
  };
  // A wire chunk whose sum is complete: `sum` (in place, may be overwritten until release_chunk).
  struct ReadyChunk {
    BucketId bucket;
    int chunk;
    std::byte* sum;
  };

  Aggregator(Transport& transport, const BucketPlan& plan, const ClusterMap& cluster, Limits limits);
  Aggregator(Transport& transport, const BucketPlan& plan, const ClusterMap& cluster)
      : Aggregator(transport, plan, cluster, Limits{}) {}

  // From now on rounds sum the gradients of these workers alone: the tree is the same, absent leaves are
  // passed through. REQUIRES: each worker has one leaf; no round is open.
  void count_only(const CountedWorkers& counted) { counted_.emplace(counted, cluster_); }
  // A push of the bucket has been announced. REQUIRES: the bucket is on this server and is pushed, and its
  // previous round has ended.
  void announce(WorkerId worker, const Bucket& bucket, const MessageHeader& push);
  // One posted receive has completed (Flow::gradients). Returns true and fills `ready` when it finishes a
  // chunk.
  bool on_received(const Completion& completion, ReadyChunk& ready);
  // The chunk's sum has been used. Returns true when it was the round's last.
  bool release_chunk(const ReadyChunk& chunk);

  std::size_t bytes_in_use() const { return in_use_; }
  std::size_t most_bytes_in_use() const { return most_in_use_; }

 private:
  struct Stream {  // one worker's push of one bucket: its contributions, interleaved chunk by chunk
    bool announced = false;
    int next_chunk = 0;  // to post a receive for
  };
  // Whose contributions make a sum.
  struct Shares {
    Shares(const std::vector<TreeNode>& all, const ClusterMap& cluster, WireForm form);
    Shares(const CountedWorkers& counted, const ClusterMap& cluster);
    ReductionTree tree;
    IdVector<WorkerId, std::pair<int, int>> of_worker;  // [first, last) contribution of each
  };
  struct Round {
    bool open = false;
    const Shares* shares = nullptr;
    WireForm form = WireForm::full;
    bool admitted = false;
    int window = 1;
    int chunks_done = 0;  // all chunks below this are done
    std::vector<bool> done;
    IdVector<WorkerId, Stream> streams;
    std::vector<AlignedBytes> ring;     // [contribution * window + chunk % window]
    std::vector<std::uint8_t> arrived;  // operands seen, [merge * window + chunk % window]
  };
  const Shares& shares_of(WireForm form) const {
    return counted_ ? *counted_ : form == WireForm::encoded ? leaves_ : nodes_;
  }
  Round& round_of(BucketId id) { return rounds_[id]; }
  std::byte* buffer(Round& round, int contribution, int chunk);
  std::size_t ring_bytes(const Bucket& bucket, const Round& round, int window) const;
  void open(const Bucket& bucket, Round& round, WireForm form);
  bool try_admit(const Bucket& bucket, Round& round);
  void post_receives(const Bucket& bucket, Round& round, WorkerId worker);
  bool merge_upwards(const Bucket& bucket, Round& round, int contribution, int chunk);
  void close(const Bucket& bucket, Round& round);

  WireCodec codec_;
  const BucketPlan& plan_;
  const ClusterMap& cluster_;
  Limits limits_;
  Shares nodes_, leaves_;          // of full and of encoded gradients
  std::optional<Shares> counted_;  // of both, where only some workers count
  IdVector<BucketId, Round> rounds_;
  std::deque<BucketId> waiting_;
  BufferPool pool_;
  std::size_t in_use_ = 0;
  std::size_t most_in_use_ = 0;
};

}  // namespace varscope
