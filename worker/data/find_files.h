#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "common/config/data_source.h"

namespace varscope {

enum class MissingFile : std::uint8_t { is_error, stays, in_last_folder };

// The source with each relative file, folder and pattern (the keys with Rule::is_path) put under the first
// of `folders` that has it, a pattern under the first where it matches something. Absolute ones stay as
// they are. One that is in no folder: Error(data) that names the key and all places, or it stays, or is put
// under the last.
DataSourceConfig find_files(DataSourceConfig source, std::span<const std::filesystem::path> folders,
                            MissingFile missing);

}  // namespace varscope
