// The trainer's part of compressed gradients: docs/compression.md.
#include "worker/train/trainer.h"

namespace varscope {

std::int64_t Trainer::planned_steps(const Parts& parts) {
  // Not `last`: a replay of a run may end earlier.
  const bool is_planned = parts.job.follow() == nullptr || parts.job.train.max_steps > 0;
  return is_planned ? parts.flush.last.value : 0;
}

// BSP: whether a leaf's gradient of the step leaves encoded; all workers agree beforehand.
bool Trainer::leaf_goes_encoded(const Bucket& bucket, Clock clock) const {
  return is_coded_by_leaf(bucket) && goes_encoded(bucket, clock, parts_.flush, planned_steps(parts_));
}

// Once for each line of metrics: at its step, or where that goes up in full at the last one before that does
// not.
bool Trainer::measures_norms(Clock clock) const {
  const std::int64_t every = parts_.job.train.log_every_steps;
  const FlushRule& flush = parts_.flush;
  if (every == 0 || !flush.has_residuals || flush.part_sent(clock) > 0) return false;
  if (clock.value % every == 0) return true;
  const Clock next(clock.value + 1);
  return flush.part_sent(next) > 0 && flush.next_flush(next).value / every > clock.value / every;
}

// The gradient of one logical worker is complete, and is in its buffer.
void Trainer::code_gradient(const Bucket& bucket, std::size_t logical_worker, Clock clock) {
  const int buffer = parts_.memory.buffer_of(parts_.sum_plan.leaves[logical_worker].buffer, clock);
  if (leaf_goes_encoded(bucket, clock)) {
    coder_.encode(bucket, logical_worker, buffer, clock);
  } else {
    coder_.add_residual(bucket, logical_worker, buffer, residual_part(clock, parts_.flush));
  }
}

}  // namespace varscope
