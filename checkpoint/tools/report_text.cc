#include "checkpoint/tools/report_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>

namespace varscope {

std::string text_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      text += c + 1 < row.size() ? fmt::format("{:<{}}  ", row[c], widths[c]) : row[c] + "\n";
    }
  }
  return text;
}

std::string utc_text(std::int64_t unix_time) {
  const std::time_t t = unix_time;
  std::tm parts{};
  std::array<char, 64> text{};
  if (::gmtime_r(&t, &parts) == nullptr) return std::to_string(unix_time);
  const std::size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%SZ", &parts);
  return {text.data(), n};
}

std::string json_text(const nlohmann::json& json) {
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace varscope
