#pragma once

#include <cstdint>

#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"

namespace varscope {

// The data of dense variables that all workers together send and receive in a step of BSP, as TransportStats
// count them: bytes without headers. Rows of tables are not in it.
struct StepTraffic {
  std::int64_t up = 0;       // gradients
  std::int64_t down = 0;     // values
  std::int64_t full_up = 0;  // the same of a step without compression
  std::int64_t full_down = 0;
};

// `plan` is of the cluster's servers. Compressed gradients are counted encoded; those of other steps are
// `full_up` bytes (Compression::last_full_step(), FlushRule).
StepTraffic step_traffic(const BucketPlan& plan, const ClusterMap& cluster);

}  // namespace varscope
