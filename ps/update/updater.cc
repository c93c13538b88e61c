#include "ps/update/updater.h"

#include "common/base/error.h"
#include "ps/update/update_kernels.h"

namespace varscope {
namespace {

template <class T>
T* as(std::byte* memory) {
  return reinterpret_cast<T*>(memory);
}

}  // namespace

Updater::Updater(const BucketPlan& plan, const Optimizer& optimizer, ParameterShard& shard,
                 FiniteWatch& watch)
    : plan_(plan), optimizer_(optimizer), shard_(shard), watch_(watch), has_non_neg_(plan.size()) {
  for (const Bucket& bucket : plan.buckets()) {
    has_non_neg_[bucket.id] =
        bucket.trainable && std::ranges::any_of(bucket.slices, [&](const BucketSlice& s) {
          return shard.variable(s.variable).constraint.kind == Constraint::Kind::non_neg;
        });
  }
}

void Updater::update(BucketId id, std::int64_t begin, std::int64_t n, std::byte* sum,
                     const UpdateStep& step) {
  check_update_step(step);
  const Bucket& bucket = plan_[id];
  const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
  shard_.before_write(id, begin * item, n * item);
  const std::int64_t at = begin * item;
  std::byte* value = shard_.value(id) + at;
  if (!bucket.trainable) {
    const MovingMean mean = moving_mean(bucket.average_decay, step.share);
    bool is_finite = true;
    with_real(bucket.dtype, [&]<class T>(T) {
      is_finite = kernels::average(as<T>(value), as<T>(sum), static_cast<T>(mean.decay),
                                   static_cast<T>(mean.rest), n);
    });
    if (!is_finite) watch_.look(id, begin, n, step.clock);
    return;
  }
  const ClipConfig& clip = optimizer_.config().clip;
  if (clip.type == ClipType::value) {
    with_real(bucket.dtype, [&]<class T>(T) { kernels::clamp(as<T>(sum), static_cast<T>(clip.limit), n); });
  }
  std::vector<std::byte*> slots = shard_.slots(id);
  for (std::byte*& slot : slots) slot += at;
  const bool is_finite = optimizer_.update(bucket.dtype, value, sum, slots, n, step);
  if (has_non_neg_[id]) force_non_negative(bucket, begin, n);
  if (!is_finite) watch_.look(id, begin, n, step.clock);
}

void Updater::force_non_negative(const Bucket& bucket, std::int64_t begin, std::int64_t n) {
  const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
  for_each_slice_in(bucket, begin, n, [&](const BucketSlice& slice, std::int64_t from, std::int64_t count) {
    if (shard_.variable(slice.variable).constraint.kind != Constraint::Kind::non_neg) return;
    std::byte* value = shard_.value(bucket.id) + from * item;
    with_real(bucket.dtype, [&]<class T>(T) { kernels::non_negative(as<T>(value), count); });
  });
}

}  // namespace varscope
