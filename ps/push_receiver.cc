#include "ps/push_receiver.h"

#include <utility>

namespace varscope {

PushReceiver::PushReceiver(Transport& transport, const BucketPlan& plan, const ClusterMap& cluster,
                           std::size_t max_bytes)
    : codec_(transport),
      plan_(plan),
      cluster_(cluster),
      max_bytes_(max_bytes / static_cast<std::size_t>(cluster.n_workers())),
      lanes_(cluster.n_workers()) {}

void PushReceiver::announce(WorkerId worker, BucketId bucket, WireForm form) {
  lanes_[worker].announced.push_back({bucket, form});
  post(worker);
}

// Posts receives as long as there are chunks to come, and memory.
void PushReceiver::post(WorkerId worker) {
  Lane& lane = lanes_[worker];
  while (!lane.announced.empty()) {
    Push& push = lane.announced.front();
    const Bucket& bucket = plan_[push.bucket];
    const WireChunk part = bucket.wire_chunk(push.next_chunk);
    const auto n_bytes = static_cast<std::size_t>(part.n_bytes);
    std::size_t taken = BufferPool::class_of(n_bytes);
    if (push.form == WireForm::encoded) {
      taken += BufferPool::class_of(
          static_cast<std::size_t>(wire_bytes(bucket, Flow::gradients, push.form, part)));
    }
    if (lane.in_use > 0 && lane.in_use + taken > max_bytes_) return;
    lane.in_use += taken;
    AlignedBytes buffer = pool_.take(n_bytes);
    const Piece piece{buffer.get(), n_bytes};
    posted_.emplace(std::tuple(worker, push.bucket, push.next_chunk), Posted{std::move(buffer), taken});
    codec_.receive(Flow::gradients, cluster_.rank_of(worker), bucket, push.next_chunk, worker.value,
                   std::span(&piece, 1), push.form);
    if (++push.next_chunk == bucket.n_wire_chunks()) lane.announced.pop_front();
  }
}

PushReceiver::Chunk PushReceiver::on_received(const Completion& completion) {
  const auto [what, bucket, worker, chunk] = completion.key;
  codec_.arrived(plan_[BucketId(bucket)], completion);
  const Posted& posted = posted_.at({WorkerId(worker), BucketId(bucket), chunk});
  return {WorkerId(worker), BucketId(bucket), chunk, posted.gradient.get()};
}

void PushReceiver::release(const Chunk& chunk) {
  const auto found = posted_.find({chunk.worker, chunk.bucket, chunk.chunk});
  const auto n_bytes = static_cast<std::size_t>(plan_[chunk.bucket].wire_chunk(chunk.chunk).n_bytes);
  pool_.give(std::move(found->second.gradient), n_bytes);
  lanes_[chunk.worker].in_use -= found->second.taken;
  posted_.erase(found);
  post(chunk.worker);
}

}  // namespace varscope
