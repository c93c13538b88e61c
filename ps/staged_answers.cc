#include "ps/staged_answers.h"

#include <cstring>
#include <utility>

namespace varscope {

bool StagedAnswers::try_send(WorkerId to, BucketId bucket_id, int chunk, const std::byte* bucket_values) {
  const Bucket& bucket = plan_[bucket_id];
  const WireChunk part = bucket.wire_chunk(chunk);
  const auto n_bytes = static_cast<std::size_t>(part.n_bytes);
  const std::size_t taken = BufferPool::class_of(n_bytes);
  if (in_use_[to] > 0 && in_use_[to] + taken > max_bytes_) return false;
  in_use_[to] += taken;
  AlignedBytes copy = pool_.take(n_bytes);
  std::memcpy(copy.get(), bucket_values + part.begin, n_bytes);
  const ConstPiece piece{copy.get(), n_bytes};
  leaving_.emplace(std::tuple(to, bucket_id, chunk), std::move(copy));
  codec_.send(Flow::values, cluster_.rank_of(to), bucket, chunk, to.value, std::span(&piece, 1));
  return true;
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
