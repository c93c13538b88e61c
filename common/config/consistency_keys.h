#pragma once

#include "common/config/job_config.h"

namespace varscope {

// Whether cluster.consistency and the keys that belong to some of its modes go together: cluster.staleness,
// cluster.dealing, cluster.delay, cluster.record, optimizer.staleness_discount, data.train.follow. A key that
// another mode has may be written with its default, as a dump does. Throws Error(config) at the key. What the
// model decides is in launch/job/step_rules.h.
void check_consistency_keys(const JobConfig& config);

}  // namespace varscope
