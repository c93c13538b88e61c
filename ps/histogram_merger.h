#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "common/base/ids.h"
#include "common/placement/bucket_plan.h"
#include "common/transport/histogram_report.h"
#include "ps/observe/run_observer.h"

namespace varscope {

// Server 0's part of histograms: joins what all servers report of a step to one histogram for each variable,
// parts of a partitioned variable under the name of the whole. Steps may overlap: a server may be late with
// its report of one when another has those of the next. Not thread-safe; borrows the table.
class HistogramMerger {
 public:
  HistogramMerger(const BucketPlan& plan, const VariableTable& variables);

  // One message. The step's histograms when it was the last. Throws Error(protocol) for a variable that the
  // bucket does not have, or has reported, and for counts that make no sense.
  std::optional<HistogramSummary> add(Rank from, BucketId bucket, Clock clock, HistogramReport report);

 private:
  using Key = std::pair<BucketId, int>;                        // bucket, variable
  using Step = std::map<Key, std::optional<SliceHistograms>>;  // in this order they are added up

  HistogramSummary join(Clock clock, const Step& step) const;

  const VariableTable& variables_;
  Step expected_;
  struct Open {
    Step step;
    std::size_t n_missing;
  };
  std::map<Clock, Open> open_;
};

}  // namespace varscope
