#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "common/config/data_source.h"

namespace varscope {

// f(key, text) for each file, folder and pattern that a source names: the keys with Rule::is_path. f may
// change the text.
void for_each_path(DataSourceConfig& source, const std::function<void(const KeyInfo&, std::string&)>& f);

enum class MissingFile : std::uint8_t { is_error, stays, in_last_folder };

// The source with each relative file, folder and pattern (the keys with Rule::is_path) put under the first
// of `folders` that has it, a pattern under the first where it matches something. Absolute ones stay as
// they are. One that is in no folder: Error(data) that names the key and all places, or it stays, or is put
// under the last.
DataSourceConfig find_files(DataSourceConfig source, std::span<const std::filesystem::path> folders,
                            MissingFile missing);

}  // namespace varscope
