#include "ps/update/histogram_taker.h"

#include <utility>

#include "ps/update/updater.h"

namespace varscope {

void HistogramTaker::add_gradient(BucketId id, std::int64_t begin, std::int64_t n, const std::byte* sum) {
  const Bucket& bucket = plan_[id];
  if (!bucket.trainable) return;
  const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
  for_each_slice_in(bucket, begin, n, [&](const BucketSlice& slice, std::int64_t from, std::int64_t count) {
    gradients_[{id, slice.variable}].add(bucket.dtype, sum + (from - begin) * item, count);
  });
}

std::vector<HistogramReport> HistogramTaker::take(BucketId id) {
  const Bucket& bucket = plan_[id];
  const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
  std::map<int, SliceHistograms> variables;
  for (const BucketSlice& slice : bucket.slices) {
    SliceHistograms& of = variables[slice.variable];
    of.variable = slice.variable;
    of.values.add(bucket.dtype, shard_.value(id) + slice.bucket_begin * item, slice.n_elements);
  }
  std::vector<HistogramReport> reports;
  for (auto& [variable, histograms] : variables) {
    if (const auto gradient = gradients_.find({id, variable}); gradient != gradients_.end())
      histograms.gradient = std::exchange(gradient->second, {});
    if (reports.empty() || reports.back().variables.size() == kMostVariables) reports.emplace_back();
    reports.back().variables.push_back(std::move(histograms));
  }
  return reports;
}

}  // namespace varscope
