#include "ps/staged_answers.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace varscope {

std::size_t StagedAnswers::bytes_for(const BucketPlan& plan, ServerId server, int n_workers,
                                     std::size_t max_bytes) {
  const auto n = static_cast<std::size_t>(n_workers);
  std::size_t all = 0, largest = 0;
  for (const BucketId id : plan.of_server(server)) {
    for (int chunk = 0; chunk < plan[id].n_wire_chunks(); ++chunk) {
      const std::size_t taken =
          BufferPool::class_of(static_cast<std::size_t>(plan[id].wire_chunk(chunk).n_bytes));
      all += taken;
      largest = std::max(largest, taken);
    }
  }
  return n * std::max(largest, std::min(2 * all, max_bytes / n));
}

bool StagedAnswers::try_send(WorkerId to, BucketId bucket, int chunk, const std::byte* bucket_values,
                             WireForm form) {
  const WireChunk part = plan_[bucket].wire_chunk(chunk);
  const auto n_bytes = static_cast<std::size_t>(wire_bytes(plan_[bucket], Flow::values, form, part));
  if (in_use_[to] > 0 && in_use_[to] + BufferPool::class_of(n_bytes) > max_bytes_) return false;
  send_copy(to, bucket, chunk,
            form == WireForm::encoded ? encoded(bucket, chunk, bucket_values + part.begin)
                                      : copy(bucket, chunk, bucket_values));
  return true;
}

StagedAnswers::Copy StagedAnswers::copy(BucketId bucket, int chunk, const std::byte* bucket_values) {
  const WireChunk part = plan_[bucket].wire_chunk(chunk);
  const auto n_bytes = static_cast<std::size_t>(part.n_bytes);
  Copy copy{pool_.take(n_bytes), n_bytes};
  std::memcpy(copy.bytes.get(), bucket_values + part.begin, n_bytes);
  return copy;
}

// `values`: of the chunk.
StagedAnswers::Copy StagedAnswers::encoded(BucketId bucket, int chunk, const std::byte* values) {
  const WireChunk part = plan_[bucket].wire_chunk(chunk);
  const auto n_bytes =
      static_cast<std::size_t>(wire_bytes(plan_[bucket], Flow::values, WireForm::encoded, part));
  Copy copy{pool_.take(n_bytes), n_bytes};
  encode_chunk(plan_[bucket], part, {values, static_cast<std::size_t>(part.n_bytes)},
               {copy.bytes.get(), n_bytes});
  return copy;
}

void StagedAnswers::send(WorkerId to, BucketId bucket, int chunk, Copy copy, WireForm form) {
  if (form == WireForm::full) return send_copy(to, bucket, chunk, std::move(copy));
  send_copy(to, bucket, chunk, encoded(bucket, chunk, copy.bytes.get()));
  pool_.give(std::move(copy.bytes), copy.n_bytes);
}

void StagedAnswers::send_copy(WorkerId to, BucketId bucket_id, int chunk, Copy copy) {
  const Bucket& bucket = plan_[bucket_id];
  in_use_[to] += BufferPool::class_of(copy.n_bytes);
  const std::span<const std::byte> bytes(copy.bytes.get(), copy.n_bytes);
  leaving_.emplace(std::tuple(to, bucket_id, chunk), std::move(copy));
  codec_.send_as_is(Flow::values, cluster_.rank_of(to), bucket, chunk, to.value, bytes);
}

// Of two copies of one chunk for one worker, which were sent in their order, the first to leave is the first.
void StagedAnswers::on_sent(const Completion& completion) {
  const auto [what, bucket, worker, chunk] = completion.key;
  const auto found = leaving_.lower_bound({WorkerId(worker), BucketId(bucket), chunk});
  const std::size_t n_bytes = found->second.n_bytes;
  pool_.give(std::move(found->second.bytes), n_bytes);
  leaving_.erase(found);
  in_use_[WorkerId(worker)] -= BufferPool::class_of(n_bytes);
}

}  // namespace varscope
