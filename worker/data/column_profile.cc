#include "worker/data/column_profile.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/error.h"
#include "worker/data/csv_reader.h"
#include "worker/data/gzip_file.h"

namespace varscope {

double ColumnProfile::deviation() const {
  return numbers == 0 ? 0 : std::sqrt(squares / static_cast<double>(numbers));
}

std::vector<std::pair<std::string, std::int64_t>> ColumnProfile::frequent() const {
  std::vector<std::pair<std::string, std::int64_t>> all(counts.begin(), counts.end());
  std::ranges::sort(all, [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  return all;
}

void ColumnProfile::add(std::string_view text) {
  const std::string_view cell = trimmed_cell(text);
  ++n;
  if (is_missing_cell(cell)) {
    ++missing;
    counts_up = false;
    return;
  }
  if (const auto found = counts.find(cell); found != counts.end()) {
    ++found->second;
  } else if (counts.size() < kMostCounted) {
    counts.emplace(cell, 1);
  } else {
    has_more = true;
  }
  const std::optional<double> value = number_in(cell);
  counts_up = counts_up && value && (n == 1 || *value == last + 1);
  if (!value) return;
  last = *value;
  least = numbers == 0 ? *value : std::min(least, *value);
  greatest = numbers == 0 ? *value : std::max(greatest, *value);
  is_whole = is_whole && std::floor(*value) == *value;
  ++numbers;
  const double distance = *value - mean;
  mean += distance / static_cast<double>(numbers);
  squares += distance * (*value - mean);
}

TableProfile profile_table(std::span<const std::filesystem::path> files, char delimiter,
                           const ConfigNode& header) {
  TableProfile table;
  const bool has_header = header.is_scalar() && header.scalar == "true";
  for (const ConfigNode& name : header.items) table.columns.push_back({.name = name.scalar});
  for (const auto& file : files) {
    CsvReader reader(file, delimiter);
    CsvRecord record;
    bool is_first = has_header;
    while (reader.next(record)) {
      if (is_first || table.columns.empty()) {
        const bool make = table.columns.empty();
        for (std::size_t i = 0; make && i < record.cells.size(); ++i) {
          table.columns.push_back({.name = has_header ? std::string(trimmed_cell(record.cells[i]))
                                                      : fmt::format("column {}", i)});
        }
        if (std::exchange(is_first, false)) continue;
      }
      if (!record.problem.empty() || record.cells.size() != table.columns.size()) {
        ++table.left_out;
        continue;
      }
      ++table.rows;
      for (std::size_t i = 0; i < table.columns.size(); ++i) table.columns[i].add(record.cells[i]);
    }
  }
  return table;
}

char guess_delimiter(const std::filesystem::path& file) {
  GzipReader reader(file);
  std::vector<std::uint8_t> start(1 << 16);
  const std::size_t n = reader.read(start);
  const auto end = std::find(start.begin(), start.begin() + static_cast<std::ptrdiff_t>(n), '\n');
  char best = ',';
  for (const char c : {'\t', ';', '|'}) {
    if (std::count(start.begin(), end, c) > std::count(start.begin(), end, best)) best = c;
  }
  return best;
}

}  // namespace varscope
