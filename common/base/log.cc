#include "common/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>

#include <cstdlib>

namespace varscope {

void start_log(const std::string& who) {
  const char* level = std::getenv("VARSCOPE_LOG");
  auto logger = std::make_shared<spdlog::logger>(who, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%H:%M:%S.%f [%n] %v");
  logger->set_level(level == nullptr ? spdlog::level::off : spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace varscope
