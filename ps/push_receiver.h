#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <tuple>

#include "common/base/buffer_pool.h"
#include "common/base/ids.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/transport/wire_codec.h"

namespace varscope {

// Receives pushes that are applied one by one, chunk by chunk, each chunk whole. Every worker has an equal
// part of the memory, and one chunk at least, so that none waits for another's data. Its pushes are received
// in the order of their announcements. Encoded gradients are decoded to float32.
//
// Owns the buffers; borrows the rest. One thread.
class PushReceiver {
 public:
  struct Chunk {  // that has come: until release()
    WorkerId worker;
    BucketId bucket;
    int chunk;
    std::byte* gradient;
  };
  // `max_bytes`: of all workers' buffers.
  PushReceiver(Transport& transport, const BucketPlan& plan, const ClusterMap& cluster,
               std::size_t max_bytes);

  // `form`: in which its gradients come. REQUIRES that the bucket has it.
  void announce(WorkerId worker, BucketId bucket, WireForm form);
  // One posted receive has completed. Throws Error(protocol) for a chunk that is not whole.
  Chunk on_received(const Completion& completion);
  // The chunk's memory is free again.
  void release(const Chunk& chunk);

 private:
  struct Push {
    BucketId bucket;
    WireForm form;
    int next_chunk = 0;  // to post a receive for
  };
  struct Posted {
    AlignedBytes gradient;
    std::size_t taken = 0;  // of the worker's memory
  };
  struct Lane {  // of one worker
    std::deque<Push> announced;
    std::size_t in_use = 0;  // bytes
  };
  void post(WorkerId worker);

  WireCodec codec_;
  const BucketPlan& plan_;
  const ClusterMap& cluster_;
  std::size_t max_bytes_;  // of one worker
  IdVector<WorkerId, Lane> lanes_;
  std::map<std::tuple<WorkerId, BucketId, int>, Posted> posted_;
  BufferPool pool_;
};

}  // namespace varscope
