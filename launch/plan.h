#pragma once

#include <string>

#include "common/config/job_config.h"

namespace varscope {

// `varscope plan`: what a job would look like on `n_servers` and `n_workers`, without running it: scope tree,
// shapes, bytes, slices and their servers, load per server, bytes and messages per step, memory per rank.
// Reads data sets for their shape only. Throws Error(config, data).
std::string plan_text(const JobConfig& job, int n_servers, int n_workers);

}  // namespace varscope
