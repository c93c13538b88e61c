// The trainer's part of compressed gradients: docs/compression.md.
#include "worker/train/trainer.h"

namespace varscope {

// Whether the gradients of a step leave encoded. The config decides, so that all workers agree beforehand.
bool Trainer::goes_encoded(const Bucket& bucket, Clock clock) const {
  if (!is_coded(bucket)) return false;
  const bool is_planned = parts_.job.follow() == nullptr || parts_.job.train.max_steps > 0;
  const std::int64_t last_full = bucket.compression.last_full_step(is_planned ? parts_.last.value : 0);
  const bool is_flush = bucket.compression.has_residual() && parts_.flush.is_flush(clock);
  return clock.value > last_full && !is_flush;
}

// The gradient of one logical worker is complete, and is in its buffer.
void Trainer::code_gradient(const Bucket& bucket, std::size_t logical_worker, Clock clock) {
  const int buffer = parts_.memory.buffer_of(parts_.sum_plan.leaves[logical_worker].buffer, clock);
  if (goes_encoded(bucket, clock)) {
    coder_.encode(bucket, logical_worker, buffer, clock);
  } else {
    coder_.add_residual(bucket, logical_worker, buffer);
  }
}

}  // namespace varscope
