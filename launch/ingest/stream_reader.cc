#include "launch/ingest/stream_reader.h"

#include <fmt/format.h>

#include "common/base/text.h"
#include "worker/data/csv_reader.h"

namespace varscope {
namespace {

constexpr std::string_view kNameWord = "STREAM ";

std::string_view without_line_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

StreamReader::StreamReader(RecordLog& log, RecordSink& sink, const Rules& rules, OnName on_name)
    : log_(log),
      sink_(sink),
      cutter_(rules.cutter),
      has_header_(rules.has_header),
      skips_headers_(rules.has_header && rules.skips_headers),
      on_name_(std::move(on_name)),
      part_(on_name_ ? Part::name : Part::header) {}

std::string StreamReader::feed(std::string_view bytes) {
  const bool fits = cutter_.feed(bytes, [this](std::string_view record) { return take(record); });
  if (!problem_.empty() || fits) return problem_;
  problem_ = fmt::format("record {} is longer than {}: are records lines that end with a line feed{}",
                         with_commas(static_cast<std::int64_t>(n_records_ + 1)),
                         bytes_text(static_cast<std::int64_t>(RecordCutter::kMostRecordBytes)),
                         cutter_.is_quote_open() ? ", and is a quote left open?" : "?");
  return problem_;
}

std::string StreamReader::finish() {
  if (n_rest() == 0) return "";
  if (cutter_.is_quote_open()) {
    return fmt::format(
        "record {} has a quote that is not closed by the end of the stream; close it, or write it twice",
        with_commas(static_cast<std::int64_t>(n_records_ + 1)));
  }
  return feed("\n");
}

// Returns whether the stream may go on.
bool StreamReader::take(std::string_view record) {
  if (part_ == Part::name) {
    part_ = Part::header;
    if (record.starts_with(kNameWord)) return take_name(record);
  }
  if (part_ == Part::header) {
    part_ = Part::records;
    if (has_header_) return take_header(record);
  }
  if (skips_headers_ && without_line_end(record) == without_line_end(log_.header())) return true;
  ++n_records_;
  sink_.add(name_, record);
  return true;
}

bool StreamReader::take_name(std::string_view line) {
  const std::string name(without_line_end(line).substr(kNameWord.size()));
  if (!is_stream_name(name)) {
    problem_ = fmt::format("{} is no name of a stream: 1 to 128 letters, digits, '.', '_', '-' and ':'",
                           shown_cell(name));
    return false;
  }
  Answer answer = on_name_(name);
  problem_ = std::move(answer.problem);
  if (!problem_.empty()) return false;
  name_ = name;
  n_records_ = answer.durable;
  cutter_.restart();  // a byte order mark may stand here
  return true;
}

bool StreamReader::take_header(std::string_view line) {
  if (log_.take_header(line)) return true;
  problem_ = fmt::format(
      "the header is {}, and the files of {} begin with {}; send the same header, or write to another "
      "directory",
      shown_cell(without_line_end(line)), log_.dir(), shown_cell(without_line_end(log_.header())));
  return false;
}

}  // namespace varscope
