#pragma once

#include <string>
#include <string_view>

namespace varscope {

// Throws Error(config) with line and column when the bytes are not text: not UTF-8, or control characters
// (NUL, escape, ...) other than tab and line ends. A byte order mark of UTF-8 is allowed.
void check_text(std::string_view bytes, const std::string& origin);

// Whether the bytes are well-formed UTF-8, control characters among them or not.
bool is_utf8(std::string_view bytes);

}  // namespace varscope
