#pragma once

#include <cstdint>
#include <string>

#include "common/config/job_config.h"
#include "worker/layers/layer.h"

namespace varscope {

struct GradcheckOptions {
  std::int64_t samples = 4;
  std::int64_t elements = 20;  // of each variable, drawn at random
  double tolerance = 1e-5;
};

// What `varscope gradcheck` does: builds the training graph in float64, compares d loss / d variable with
// central differences on the first samples, and writes a line for each variable to `out`. A little noise is
// added to the first values, which often put a relu exactly at its kink. Returns ExitCode::ok, or
// ExitCode::difference when a relative difference is above the tolerance. Throws Error(config, data).
int check_gradients(JobConfig job, const GradcheckOptions& options, const LayerRegistry& layers,
                    std::string& out);

}  // namespace varscope
