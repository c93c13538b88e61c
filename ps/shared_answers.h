#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/buffer_pool.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/transport/wire_codec.h"

namespace varscope {

// Sends values to several workers from one copy, which has the form in which they travel, so that the next
// update does not wait until all have them: where there are backup workers, one that is late with its
// receives holds nobody up. The copies are limited; beyond that the caller sends from the values' own memory,
// and waits. Owns the copies; borrows the rest. One thread.
class SharedAnswers {
 public:
  // What a server needs with so many backup workers: a copy of its pushed values for each worker that may be
  // late, and that of the step under way.
  static std::size_t bytes_for(const BucketPlan& plan, ServerId server, std::int64_t backups);

  // `max_bytes`: of all copies that have not left.
  SharedAnswers(Transport& transport, const BucketPlan& plan, const ClusterMap& cluster,
                std::size_t max_bytes)
      : codec_(transport),
        plan_(plan),
        first_slot_(cluster.n_servers() + cluster.n_workers()),
        max_bytes_(max_bytes) {}

  // False when there is no room: nothing has been sent.
  bool try_send(std::span<const Rank> to, BucketId bucket, int chunk, const std::byte* bucket_values,
                WireForm form);
  // False for a send that is not one of these.
  bool on_sent(const Completion& completion);

  std::size_t bytes_in_use() const { return in_use_; }
  std::size_t most_bytes_in_use() const { return most_in_use_; }

 private:
  struct Copy {
    AlignedBytes bytes;  // in the form in which it travels
    std::size_t n_bytes = 0;
    int n_sends = 0;
  };
  // A number for each send under way, which makes its RequestKey another than all others'.
  int take_slot(int copy);

  WireCodec codec_;
  const BucketPlan& plan_;
  int first_slot_;  // above all ranks: sends from the values' own memory are numbered by these
  std::size_t max_bytes_;
  std::vector<int> copy_of_slot_, free_slots_;
  std::vector<Copy> copies_;
  std::vector<int> free_copies_;
  BufferPool pool_;
  std::size_t in_use_ = 0, most_in_use_ = 0;
};

}  // namespace varscope
