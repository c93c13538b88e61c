#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <tuple>

#include "common/base/buffer_pool.h"
#include "common/base/ids.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/transport/wire_codec.h"

namespace varscope {

// Sends values from copies, so that updates go on while they leave. A copy has the form in which it travels.
// Every worker has an equal part of the memory, and one chunk at least: one that does not take its answers
// holds nobody else up. Owns the copies; borrows the rest. One thread.
class StagedAnswers {
 public:
  // What a server needs at most for all workers, within `max_bytes`: for each two copies of all values of the
  // server, the answer to a push and to a request after it, or as much as its part holds.
  static std::size_t bytes_for(const BucketPlan& plan, ServerId server, int n_workers, std::size_t max_bytes);

  StagedAnswers(Transport& transport, const BucketPlan& plan, const ClusterMap& cluster,
                std::size_t max_bytes)
      : codec_(transport),
        plan_(plan),
        cluster_(cluster),
        max_bytes_(max_bytes / static_cast<std::size_t>(cluster.n_workers())),
        in_use_(cluster.n_workers(), 0) {}

  // A chunk's values as they were when it was made, in full.
  struct Copy {
    AlignedBytes bytes;
    std::size_t n_bytes = 0;
  };
  // Copies the chunk's values, encoded where `form` says so, and sends them. False when the worker has no
  // memory left: later, after an on_sent() of it.
  bool try_send(WorkerId to, BucketId bucket, int chunk, const std::byte* bucket_values, WireForm form);
  void on_sent(const Completion& completion);
  // The same in two: a copy that is sent when it is asked for. It counts against no limit until then, nor
  // waits for one.
  Copy copy(BucketId bucket, int chunk, const std::byte* bucket_values);
  void send(WorkerId to, BucketId bucket, int chunk, Copy copy, WireForm form);

 private:
  Copy encoded(BucketId bucket, int chunk, const std::byte* values);
  void send_copy(WorkerId to, BucketId bucket, int chunk, Copy copy);

  WireCodec codec_;
  const BucketPlan& plan_;
  const ClusterMap& cluster_;
  std::size_t max_bytes_;                                             // of one worker
  std::multimap<std::tuple<WorkerId, BucketId, int>, Copy> leaving_;  // in the form in which they travel
  BufferPool pool_;
  IdVector<WorkerId, std::size_t> in_use_;
};

}  // namespace varscope
