#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/base/ids.h"
#include "common/placement/bucket_plan.h"
#include "ps/store/parameter_shard.h"
#include "ps/update/finite_watch.h"
#include "ps/update/optimizer.h"

namespace varscope {

// What a server does with the sum of a step, or with a push by itself, for a run of one bucket's elements,
// where no element depends on another:
//   moving average   v = decay^q v + (1 - decay^q) sample, q the share of the step (UpdateStep)
//   trained          clip by value, the optimizer, then non_neg
// Then `watch` looks at what was made, where it is not finite. Norms are another matter: see
// DeferredUpdate. One thread; borrows everything.
class Updater {
 public:
  Updater(const BucketPlan& plan, const Optimizer& optimizer, ParameterShard& shard, FiniteWatch& watch);

  // Updates elements [begin, begin + n) of the bucket in the shard. `sum` is their sum over the global batch,
  // or of a push the mean over its own samples, and may be overwritten. `step` is what is being applied.
  // Throws Error(argument) for a share or a factor of the rate out of range, before anything has changed.
  void update(BucketId id, std::int64_t begin, std::int64_t n, std::byte* sum, const UpdateStep& step);

 private:
  void force_non_negative(const Bucket& bucket, std::int64_t begin, std::int64_t n);

  const BucketPlan& plan_;
  const Optimizer& optimizer_;
  ParameterShard& shard_;
  FiniteWatch& watch_;
  IdVector<BucketId, bool> has_non_neg_;
};

// Calls f(slice, begin, n) for the part of each of the bucket's slices that meets elements [begin, begin + n)
// of the bucket; begin and n of f count the bucket's elements too.
template <class F>
void for_each_slice_in(const Bucket& bucket, std::int64_t begin, std::int64_t n, F&& f) {
  const std::int64_t end = begin + n;
  auto it = std::partition_point(bucket.slices.begin(), bucket.slices.end(), [&](const BucketSlice& s) {
    return s.bucket_begin + s.n_elements <= begin;
  });
  for (; it != bucket.slices.end() && it->bucket_begin < end; ++it) {
    const std::int64_t from = std::max(begin, it->bucket_begin);
    f(*it, from, std::min(end, it->bucket_begin + it->n_elements) - from);
  }
}

}  // namespace varscope
