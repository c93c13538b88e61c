#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/config/source_keys.h"

namespace varscope {

// What the cells of a table's column are, before anybody has said what they mean.
struct ColumnProfile {
  static constexpr std::size_t kMostCounted = 10'000;  // different cells

  std::string name;          // of the header, or "column 3"
  std::int64_t n = 0;        // cells, with missing ones
  std::int64_t missing = 0;  // empty, NA, nan, null
  std::int64_t numbers = 0;
  bool is_whole = true;                      // all numbers are integers
  bool counts_up = true;                     // each is the one before plus 1, as row numbers are
  double least = 0, greatest = 0, mean = 0;  // of the numbers; mean and deviation by Welford's method
  double squares = 0;                        // of the distances from the mean, their sum
  std::map<std::string, std::int64_t, std::less<>> counts =
      {};                 // how often each cell occurs, up to kMostCounted
  double last = 0;        // of the numbers
  bool has_more = false;  // different cells than are counted

  bool is_number() const { return numbers > 0 && numbers + missing == n; }
  double deviation() const;
  // Most frequent first, of equal ones by bytes.
  std::vector<std::pair<std::string, std::int64_t>> frequent() const;
  void add(std::string_view cell);
};

struct TableProfile {
  std::vector<ColumnProfile> columns;
  std::int64_t rows = 0;      // with as many cells as there are columns
  std::int64_t left_out = 0;  // others
};

// Reads all files once, in constant memory but for the counts. Throws Error(data) for what cannot be read,
// Error(config) for keys that make no sense.
TableProfile profile_table(std::span<const std::filesystem::path> files, char delimiter,
                           const ConfigNode& header);

// The delimiter of a file in whose first line nothing is said of it: the most frequent of , tab ; |.
char guess_delimiter(const std::filesystem::path& file);

}  // namespace varscope
