#pragma once

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace varscope::testing {

// The lines of a run's metrics.jsonl with this event, in their order. One that is still being written is left
// out.
inline std::vector<nlohmann::json> metrics_lines(const std::string& run_dir, const std::string& event) {
  std::ifstream in(run_dir + "/metrics.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) {
    nlohmann::json parsed = nlohmann::json::parse(line, nullptr, false);
    if (!parsed.is_discarded() && parsed["event"] == event) lines.push_back(std::move(parsed));
  }
  return lines;
}

}  // namespace varscope::testing
