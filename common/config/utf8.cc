#include "common/config/utf8.h"

#include <cstdint>

#include "common/config/config_node.h"

namespace varscope {

namespace {

// Bytes of the well-formed UTF-8 sequence at `at`, or 0. Rejects overlong forms, surrogates and what is above
// U+10FFFF.
std::size_t sequence_length(std::string_view bytes, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[at + i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t n = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || bytes.size() - at < n) return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
  const bool outside = (lead == 0xED && byte(1) >= 0xA0) || (lead == 0xF4 && byte(1) >= 0x90);
  return overlong || outside ? 0 : n;
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t n = sequence_length(bytes, at);
    if (n == 0) return false;
    at += n;
  }
  return true;
}

void check_text(std::string_view bytes, const std::string& origin) {
  Mark mark{.line = 1, .column = 1, .origin = {}};
  for (std::size_t at = 0; at < bytes.size();) {
    const auto byte = static_cast<std::uint8_t>(bytes[at]);
    const std::size_t n = sequence_length(bytes, at);
    if (n == 0) fail_at(mark, origin, "", fmt::format("not UTF-8 text (byte 0x{:02X})", byte));
    if ((byte < 0x20 && byte != '\n' && byte != '\r' && byte != '\t') || byte == 0x7F) {
      fail_at(mark, origin, "", fmt::format("not a text file (control character 0x{:02X})", byte));
    }
    if (byte == '\n') {
      mark.line += 1;
      mark.column = 1;
    } else {
      mark.column += static_cast<std::int32_t>(n);
    }
    at += n;
  }
}

}  // namespace varscope
