#include "launch/ingest/record_cutter.h"

#include <algorithm>
#include <utility>

namespace varscope {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

void RecordCutter::restart() {
  rest_.clear();
  at_ = At::cell_start;
  skips_mark_ = true;
  n_mark_ = 0;
}

bool RecordCutter::feed(std::string_view bytes, const std::function<bool(std::string_view)>& take) {
  while (!bytes.empty()) {
    if (skips_mark_ && !skip_mark(bytes)) return true;
    const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), bytes.size() - 1) + 1);
    if (rest_.size() + line.size() > kMostRecordBytes) return false;
    bytes.remove_prefix(line.size());
    if (!ends_record(line)) {
      rest_ += line;
      continue;
    }
    bool goes_on = false;
    if (rest_.empty()) {
      goes_on = take(line);
    } else {
      const std::string record = std::exchange(rest_, {}).append(line);
      goes_on = take(record);
    }
    if (!goes_on) return true;
  }
  return true;
}

// Returns whether anything is left behind what may be a mark.
bool RecordCutter::skip_mark(std::string_view& bytes) {
  while (!bytes.empty() && n_mark_ < kByteOrderMark.size() && bytes.front() == kByteOrderMark[n_mark_]) {
    bytes.remove_prefix(1);
    ++n_mark_;
  }
  if (bytes.empty()) return false;
  skips_mark_ = false;
  if (n_mark_ < kByteOrderMark.size()) {  // it was something else
    rest_ = kByteOrderMark.substr(0, n_mark_);
    for (const char c : rest_) pass(c);
  }
  return true;
}

// Whether a record ends with this line, or piece of one.
bool RecordCutter::ends_record(std::string_view line) {
  const bool is_whole = line.back() == '\n';
  if (rules_ == RecordRules::lines) return is_whole;
  // Without quotes only the end of a piece would matter, and a whole line has none.
  const bool has_quotes = at_ == At::quoted || at_ == At::quote || line.find('"') != std::string_view::npos;
  if (has_quotes || !is_whole) {
    for (const char c : line) pass(c);
  } else {
    at_ = At::cell_start;
  }
  return is_whole && at_ != At::quoted;
}

void RecordCutter::pass(char c) {
  if (at_ == At::quoted) {
    if (c == '"') at_ = At::quote;
  } else if (c == '\n' || c == delimiter_) {
    at_ = At::cell_start;
  } else if (c == '"' && (at_ == At::quote || at_ == At::cell_start)) {
    at_ = At::quoted;
  } else if (at_ == At::quote) {
    at_ = At::behind_quote;
  } else if (at_ == At::cell_start && c != ' ') {
    at_ = At::plain;
  }
}

}  // namespace varscope
