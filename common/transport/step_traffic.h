#pragma once

#include <cstdint>

#include "common/config/step_rule.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"

namespace varscope {

// The data of dense variables that all workers together send and receive in a step, as TransportStats count
// them: bytes without headers. Rows of tables are not in it, nor are samples that a step lacks. Outside BSP a
// push is answered once here: where all come together its answer is an ack, and they read anew; and where an
// answer was too old a worker asks again.
struct StepTraffic {
  std::int64_t up = 0;       // gradients
  std::int64_t down = 0;     // values
  std::int64_t full_up = 0;  // the same of a step without compression
  std::int64_t full_down = 0;
};

// `plan` is of the cluster's servers, and made for the rule. Compressed gradients are counted encoded; those
// of other steps are `full_up` bytes (Compression::last_full_step(), FlushRule).
StepTraffic step_traffic(const BucketPlan& plan, const ClusterMap& cluster, const StepRule& rule = {});

}  // namespace varscope
