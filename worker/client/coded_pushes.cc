#include "worker/client/coded_pushes.h"

#include <utility>

#include "common/transport/wire_codec.h"

namespace varscope {

bool goes_encoded(const Bucket& bucket, Clock step, const FlushRule& flush, std::int64_t planned) {
  if (!codec_of(bucket, Flow::gradients)) return false;
  const bool sends_residuals = bucket.compression.has_residual() && flush.part_sent(step) > 0;
  return step.value > bucket.compression.last_full_step(planned) && !sends_residuals;
}

double residual_part(Clock step, const FlushRule& flush) {
  const double part = flush.part_sent(step);
  return part > 0 ? part : 1;
}

void CodedPushes::push(const Bucket& bucket, Clock step, const PushOfTicket& push) {
  GradientCoder& coder = parts_.coder;
  if (push.details.share == 0 || !coder.handles(bucket)) return parts_.client.push(bucket.id, step, push);
  const bool takes_rest = coder.set_share(bucket, push.details.share);
  if (takes_rest && goes_encoded(bucket, step, parts_.flush, parts_.planned)) {
    coder.encode(bucket, 0, 0, step);
    return parts_.client.push(bucket.id, step, push, coder);
  }
  // A worker that has more tickets of the step takes one part along all the same.
  if (takes_rest && std::exchange(part_of_[bucket.id], step) != step)
    coder.add_residual(bucket, 0, 0, residual_part(step, parts_.flush));
  parts_.client.push(bucket.id, step, push);
}

void CodedPushes::push_rest(Clock clock) {
  const auto is_kept = [](const Bucket& b) { return b.is_pushed() && b.compression.has_residual(); };
  const IdVector<BucketId, Bucket>& buckets = parts_.client.plan().buckets();
  for (const Bucket& bucket : buckets) {
    if (is_kept(bucket)) parts_.client.push_residual(bucket.id, clock, parts_.coder);
  }
  parts_.client.wait_all();
  for (const Bucket& bucket : buckets) {
    if (is_kept(bucket)) parts_.coder.clear_residual(bucket);
  }
}

}  // namespace varscope
