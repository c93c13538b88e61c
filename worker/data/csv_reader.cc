#include "worker/data/csv_reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 18;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_blank(char c) { return c == ' ' || c == '\t'; }

// Digits with or without a point, at most 15 of them: the digits as an integer and the power of ten are both
// doubles, so that their quotient is the double next to the number (Clinger, "How to read floating point
// numbers accurately", PLDI 1990). Nothing for other forms, which from_chars knows.
std::optional<double> plain_decimal(std::string_view text) {
  constexpr std::size_t kMostDigits = 15;
  constexpr std::array kPowers = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const bool is_negative = text.starts_with('-');
  if (is_negative) text.remove_prefix(1);
  if (text.size() > kMostDigits + 1) return std::nullopt;
  std::uint64_t digits = 0;
  std::size_t n = 0, decimals = 0;
  bool has_point = false;
  for (const char c : text) {
    if (c == '.' && !has_point) {
      has_point = true;
      continue;
    }
    const auto digit = static_cast<unsigned char>(c - '0');
    if (digit > 9) return std::nullopt;
    digits = digits * 10 + digit;
    ++n;
    decimals += has_point ? 1 : 0;
  }
  if (n == 0 || n > kMostDigits) return std::nullopt;
  const double value = static_cast<double>(digits) / kPowers.at(decimals);
  return is_negative ? -value : value;
}

}  // namespace

std::string TextPlace::str() const {
  return column > 0 ? fmt::format("{}:{}:{}", file, line, column) : fmt::format("{}:{}", file, line);
}

std::string_view trimmed_cell(std::string_view cell) {
  while (!cell.empty() && is_blank(cell.front())) cell.remove_prefix(1);
  while (!cell.empty() && is_blank(cell.back())) cell.remove_suffix(1);
  return cell;
}

std::optional<double> number_in(std::string_view text) {
  text = trimmed_cell(text);
  if (text.starts_with("+-")) return std::nullopt;
  if (text.starts_with('+')) text.remove_prefix(1);
  if (const std::optional<double> plain = plain_decimal(text)) return plain;
  // Of the other forms that from_chars takes, "inf" and "nan" begin with a letter.
  const std::size_t first = text.starts_with('-') ? 1 : 0;
  if (first >= text.size() || (text[first] != '.' && (text[first] < '0' || text[first] > '9')))
    return std::nullopt;
  double value = 0;
  const char* begin = &text.front();
  const char* end = begin + text.size();
  const auto [at, error] = std::from_chars(begin, end, value);
  if (at != end || error == std::errc::invalid_argument) return std::nullopt;
  // Out of range: too small is 0, too large is no number of ours.
  if (error == std::errc::result_out_of_range) {
    const std::size_t exponent = text.find_first_of("eE");
    const bool is_small = exponent != std::string_view::npos && text.substr(exponent + 1).starts_with('-');
    if (!is_small) return std::nullopt;
    return 0.0;
  }
  return value;
}

bool is_missing_cell(std::string_view cell) {
  constexpr std::array kNothing = {"", "NA", "N/A", "na", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None"};
  return std::ranges::find(kNothing, trimmed_cell(cell)) != kNothing.end();
}

std::string shown_cell(std::string_view text) {
  constexpr std::size_t kMost = 40;
  std::string shown(text.substr(0, kMost));
  std::ranges::replace_if(
      shown, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return fmt::format("\"{}{}\"", shown, text.size() > kMost ? "..." : "");
}

CsvReader::CsvReader(const std::filesystem::path& file, char delimiter)
    : name_(file.string()), delimiter_(delimiter), file_(file), block_(kBlockBytes) {}

TextPlace CsvReader::place(const CsvRecord& record, std::size_t cell) const {
  return {name_, record.line, cell < record.columns.size() ? record.columns[cell] : 0};
}

bool CsvReader::next_line(std::string& line) {
  bool any = false;
  while (true) {
    if (at_ == end_) {
      end_ = file_.read(block_);
      at_ = 0;
      if (end_ == 0) break;
    }
    any = true;
    const auto* begin = block_.data() + at_;
    const auto* found = static_cast<const std::uint8_t*>(std::memchr(begin, '\n', end_ - at_));
    const std::size_t n = found == nullptr ? end_ - at_ : static_cast<std::size_t>(found - begin);
    if (line.size() + n > kMostRecordBytes) {
      fail(ErrorKind::data,
           "{}:{}: a record of more than {} bytes: is it text in lines, and is a quote left open?", name_,
           line_ + 1, kMostRecordBytes);
    }
    line.append(reinterpret_cast<const char*>(begin), n);  // NOLINT(*-reinterpret-cast): bytes of text
    at_ += n;
    if (found == nullptr) continue;
    ++at_;
    break;
  }
  if (any) ++line_;
  if (any && line_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  if (any && line_ == 1 && (line.starts_with("\xff\xfe") || line.starts_with("\xfe\xff")))
    fail(ErrorKind::data, "{}: is text in UTF-16; save it as UTF-8", name_);
  return any;
}

// Of the record's text; spaces that delimit cells stay.
std::size_t CsvReader::behind_spaces(std::size_t at) const {
  if (delimiter_ == ' ' || at >= record_.size() || record_[at] != ' ') return at;
  return std::min(record_.find_first_not_of(' ', at), record_.size());
}

bool CsvReader::next(CsvRecord& record) {
  do {
    record_.clear();
    if (!next_line(record_)) return false;
    record.line = line_;
  } while (record_.empty() || record_ == "\r");
  cut(record);
  return true;
}

// Goes over the record once; what lies in quotes across lines makes it longer on the way.
void CsvReader::cut(CsvRecord& record) {
  record.cells.clear();
  record.columns.clear();
  record.problem.clear();
  cells_.clear();
  cuts_.clear();
  const auto problem = [&](std::string text, std::size_t at) {
    if (!record.problem.empty()) return;
    record.problem = std::move(text);
    record.problem_column = static_cast<std::int64_t>(at) + 1;
  };
  std::size_t at = 0, line_begin = 0;
  while (true) {
    const std::size_t begin = at;
    record.columns.push_back(static_cast<std::int64_t>(begin - line_begin) + 1);
    const std::size_t first = behind_spaces(at);
    if (first == record_.size() || record_[first] != '"' || delimiter_ == '\0') {
      at = std::min(record_.find(delimiter_, at), record_.size());
      std::size_t size = at - begin;
      if (at == record_.size() && size > 0 && record_[at - 1] == '\r') --size;
      cuts_.push_back({false, begin, size});
    } else {
      const std::size_t copy = cells_.size();
      at = first + 1;
      bool is_open = true;
      while (is_open) {
        const std::size_t quote = record_.find('"', at);
        if (quote == std::string::npos) {
          cells_.append(record_, at);
          at = record_.size();
          std::string line;
          const bool is_there = next_line(line);
          if (!is_there || record_.size() + line.size() > kMostRecordBytes) {
            fail(ErrorKind::data, "{}: a quote that is not closed {}; close it, or write it twice",
                 place(record, record.columns.size() - 1).str(),
                 is_there ? fmt::format("within {} bytes", kMostRecordBytes) : "by the end of the file");
          }
          cells_ += '\n';
          record_ += '\n';
          line_begin = at = record_.size();
          record_ += line;
          continue;
        }
        cells_.append(record_, at, quote - at);
        at = quote + 1;
        is_open = at < record_.size() && record_[at] == '"';
        if (is_open) cells_ += record_[at++];
      }
      cuts_.push_back({true, copy, cells_.size() - copy});
      at = behind_spaces(at);
      if (at < record_.size() && record_[at] != delimiter_ &&
          record_.compare(at, std::string::npos, "\r") != 0)
        problem("text behind a closing quote", at - line_begin);
      at = std::min(record_.find(delimiter_, at), record_.size());
    }
    if (at >= record_.size()) break;
    ++at;
  }
  if (const std::size_t nul = record_.find('\0'); nul != std::string::npos)
    problem("a NUL byte: is it text, plain or gzip?", nul);
  const bool has_return = record_.find('\r') + 1 < record_.size();
  for (std::size_t i = 0; i < cuts_.size(); ++i) {
    const Cut& c = cuts_[i];
    record.cells.push_back(std::string_view(c.is_copied ? cells_ : record_).substr(c.begin, c.size));
    const std::size_t stray =
        has_return && !c.is_copied ? record.cells[i].find('\r') : std::string_view::npos;
    if (stray != std::string_view::npos)
      problem("a carriage return (CR) within a line; lines end with LF or CRLF",
              static_cast<std::size_t>(record.columns[i] - 1) + stray);
  }
}

}  // namespace varscope
