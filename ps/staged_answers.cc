#include "ps/staged_answers.h"

#include <cstring>
#include <utility>

namespace varscope {

bool StagedAnswers::try_send(WorkerId to, BucketId bucket, int chunk, const std::byte* bucket_values) {
  const auto n_bytes = static_cast<std::size_t>(plan_[bucket].wire_chunk(chunk).n_bytes);
  if (in_use_[to] > 0 && in_use_[to] + BufferPool::class_of(n_bytes) > max_bytes_) return false;
  send(to, bucket, chunk, copy(bucket, chunk, bucket_values));
  return true;
}

AlignedBytes StagedAnswers::copy(BucketId bucket, int chunk, const std::byte* bucket_values) {
  const WireChunk part = plan_[bucket].wire_chunk(chunk);
  const auto n_bytes = static_cast<std::size_t>(part.n_bytes);
  AlignedBytes copy = pool_.take(n_bytes);
  std::memcpy(copy.get(), bucket_values + part.begin, n_bytes);
  return copy;
}

void StagedAnswers::send(WorkerId to, BucketId bucket_id, int chunk, AlignedBytes copy) {
  const Bucket& bucket = plan_[bucket_id];
  const auto n_bytes = static_cast<std::size_t>(bucket.wire_chunk(chunk).n_bytes);
  in_use_[to] += BufferPool::class_of(n_bytes);
  const ConstPiece piece{copy.get(), n_bytes};
  leaving_.emplace(std::tuple(to, bucket_id, chunk), std::move(copy));
  codec_.send(Flow::values, cluster_.rank_of(to), bucket, chunk, to.value, std::span(&piece, 1));
}

// Of two copies of one chunk for one worker, which were sent in their order, the first to leave is the first.
void StagedAnswers::on_sent(const Completion& completion) {
  const auto [what, bucket, worker, chunk] = completion.key;
  const auto found = leaving_.lower_bound({WorkerId(worker), BucketId(bucket), chunk});
  const auto n_bytes = static_cast<std::size_t>(plan_[BucketId(bucket)].wire_chunk(chunk).n_bytes);
  pool_.give(std::move(found->second), n_bytes);
  leaving_.erase(found);
  in_use_[WorkerId(worker)] -= BufferPool::class_of(n_bytes);
}

}  // namespace varscope
