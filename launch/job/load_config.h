#pragma once

#include <string>
#include <vector>

#include "common/config/job_config.h"

namespace varscope {

// Reads, overrides and checks a config, in which paths are expanded (common/config/paths.h); an override is
// "train.epochs=3", as --set takes it. Throws Error(config).
JobConfig load_config(const std::string& file, const std::vector<std::string>& overrides = {});

}  // namespace varscope
