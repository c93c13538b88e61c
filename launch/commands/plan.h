#pragma once

#include <cstdint>
#include <string>

#include "common/config/job_config.h"
#include "worker/layers/layer.h"

namespace varscope {

enum class PlanDetail : std::uint8_t {
  summary,
  slices
};  // slices: also a line per slice, with its box and server

// `varscope plan`: what a job would look like on `n_servers` and `n_workers`, without running it: scope tree,
// shapes, bytes, slices and their servers, load per server, bytes and messages per step, memory per rank.
// Reads data sets for their shape only. Throws Error(config, data).
std::string plan_text(const JobConfig& job, int n_servers, int n_workers, PlanDetail detail,
                      const LayerRegistry& layers);

}  // namespace varscope
