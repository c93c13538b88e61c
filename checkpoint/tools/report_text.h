#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace varscope {

// How a tool reports: for people, or one JSON object for programs.
enum class ToolFormat : std::uint8_t { text, json };

// Columns padded to their widest cell; the last is not padded.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

// "2026-11-23 02:35:47Z"
std::string utc_text(std::int64_t unix_time);

// Indented, with a final newline. Text that is no UTF-8 is replaced, NaN and infinity become null.
std::string json_text(const nlohmann::json& json);

}  // namespace varscope
