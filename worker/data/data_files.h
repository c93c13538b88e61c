#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "common/config/data_source.h"

namespace varscope {

// A file that samples come from, as it was read.
struct DataFile {
  std::string name;
  std::int64_t n_bytes = 0;
  Digest digest;
  bool operator==(const DataFile&) const = default;
};

// Reads all of it. Throws Error(data) for one that cannot be read.
DataFile read_data_file(const std::filesystem::path& file);

// The plain files that a source names, in their order; of patterns all that match.
std::vector<std::filesystem::path> named_files(const DataSourceConfig& source);

}  // namespace varscope
