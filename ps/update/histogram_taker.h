#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "common/placement/bucket_plan.h"
#include "common/transport/histogram_report.h"
#include "ps/store/parameter_shard.h"

namespace varscope {

// Takes the histograms of what a server has, in every n-th step: of gradients while their chunks pass, of
// values when a bucket has them all. Reads only: no bit of the run depends on it. One thread; borrows
// plan and shard.
class HistogramTaker {
 public:
  // REQUIRES: every_steps > 0.
  HistogramTaker(const BucketPlan& plan, ParameterShard& shard, std::int64_t every_steps)
      : plan_(plan), shard_(shard), every_steps_(every_steps) {}

  bool is_due(Clock clock) const { return clock.value % every_steps_ == 0; }
  // `sum` is the mean gradient of the bucket's elements [begin, begin + n). Of buckets that are not
  // trained it is something else, and is left out.
  void add_gradient(BucketId id, std::int64_t begin, std::int64_t n, const std::byte* sum);
  // The bucket has the values after the step: its variables, in messages' worths. Gradients start anew.
  std::vector<HistogramReport> take(BucketId id);

 private:
  // A histogram has 40 KiB at most: a report is far below what a message may have.
  static constexpr std::size_t kMostVariables = 256;

  const BucketPlan& plan_;
  ParameterShard& shard_;
  std::int64_t every_steps_;
  std::map<std::pair<BucketId, int>, Histogram> gradients_;  // by bucket and variable, of the step under way
};

}  // namespace varscope
