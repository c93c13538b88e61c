#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace varscope {

// What one record of a stream is.
enum class RecordRules : std::uint8_t {
  lines,  // a line
  csv     // a line, or what quotes join of several (RFC 4180, as CsvReader reads it)
};

// Cuts a stream of bytes, which come in pieces of any size, into records. A record ends with a line feed. The
// bytes of a record are not changed, but a byte order mark in front of the first one is left out. Memory: one
// record. Not thread-safe.
class RecordCutter {
 public:
  static constexpr std::size_t kMostRecordBytes = std::size_t{1} << 24;  // as CsvReader's

  // `delimiter` stands between two cells; of RecordRules::csv only.
  explicit RecordCutter(RecordRules rules, char delimiter = ',') : rules_(rules), delimiter_(delimiter) {}

  // Calls `take` with each record that ends in `bytes`, its line feed included; the view lasts until `take`
  // returns. When `take` returns false the rest of `bytes` is left alone. Returns false where a record is
  // longer than kMostRecordBytes: the stream cannot be read on.
  bool feed(std::string_view bytes, const std::function<bool(std::string_view)>& take);

  // What has come since the last record's end.
  std::string_view rest() const { return rest_; }
  // The rest ends within a quoted cell, so that it is no record even at the stream's end.
  bool is_quote_open() const { return at_ == At::quoted; }
  // The next byte begins a stream anew.
  void restart();

 private:
  enum class At : std::uint8_t { cell_start, plain, quoted, quote, behind_quote };  // of the last byte
  bool skip_mark(std::string_view& bytes);
  bool ends_record(std::string_view line);
  void pass(char c);

  RecordRules rules_;
  char delimiter_;
  At at_ = At::cell_start;
  bool skips_mark_ = true;  // at the stream's beginning
  std::size_t n_mark_ = 0;  // bytes of a byte order mark that were there
  std::string rest_;
};

}  // namespace varscope
