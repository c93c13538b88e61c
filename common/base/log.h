#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace varscope {

// Developers' log, on standard error: off unless the environment variable VARSCOPE_LOG is debug, info or
// warn. `who` begins each line ("rank 2"). What users must read does not go through it. Call once per
// process; spdlog is thread-safe.
void start_log(const std::string& who);

}  // namespace varscope
