#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/gzip_file.h"

namespace varscope {

// Where a record or a cell stands, for messages: "a.csv:3:7". Lines and columns count from 1; a column is in
// bytes.
struct TextPlace {
  std::string file;
  std::int64_t line = 0;
  std::int64_t column = 0;  // 0: the line as a whole
  std::string str() const;
};

// A line, or what quotes join of several, cut into cells. Views last until the next one is read.
struct CsvRecord {
  std::vector<std::string_view> cells;
  std::vector<std::int64_t> columns;  // where each cell begins in its line
  std::int64_t line = 0;              // where the record begins
  std::string problem;                // why the cells are not to be trusted: text behind a quote, a NUL, a CR
  std::int64_t problem_column = 0;
};

// Reads comma separated text, plain or gzip, front to back, in constant memory: RFC 4180 with any one-byte
// delimiter. A cell that begins with a quote, after spaces or not, ends with one; "" inside is a quote, and
// delimiters and line ends inside count as text. Lines end with LF or CRLF; the last one may have no end. A
// byte order mark at the beginning is read over, and so are blank lines. Not thread-safe.
class CsvReader {
 public:
  // Throws Error(data) for a file that cannot be read.
  CsvReader(const std::filesystem::path& file, char delimiter);
  // False at the end of the file. A record with a problem is told by `problem`; the reader goes on behind
  // its line. Throws Error(data) for what all that follows is hurt by: damaged gzip data, a quote that is not
  // closed, a record of more than kMostRecordBytes.
  bool next(CsvRecord& record);
  const std::string& name() const { return name_; }
  std::uint64_t n_read() const { return file_.n_read(); }  // bytes of the file
  TextPlace place(const CsvRecord& record, std::size_t cell) const;

  static constexpr std::size_t kMostRecordBytes = std::size_t{1} << 24;

 private:
  bool next_line(std::string& line);  // without its end
  void cut(CsvRecord& record);
  std::size_t behind_spaces(std::size_t at) const;

  std::string name_;
  char delimiter_;
  GzipReader file_;
  std::vector<std::uint8_t> block_;
  std::size_t at_ = 0, end_ = 0;
  std::int64_t line_ = 0;  // lines that have been read
  std::string record_;     // the text of the record
  struct Cut {
    bool is_copied;
    std::size_t begin, size;  // in cells_, or in record_
  };
  std::vector<Cut> cuts_;  // of the record
  std::string cells_;      // unquoted cells that differ from their text
};

// Without the spaces and tabs around it.
std::string_view trimmed_cell(std::string_view cell);

// A number as people write it, spaces around it allowed: 1, -2.5e3, +1. Nothing for anything else, such as
// nan, inf and hexadecimal.
std::optional<double> number_in(std::string_view text);

// Whether a cell says that there is no value: empty, NA, N/A, nan, null, None, in their usual cases.
bool is_missing_cell(std::string_view cell);

// For messages: at most 40 bytes of a cell, without line ends and control characters, in quotes.
std::string shown_cell(std::string_view text);

}  // namespace varscope
