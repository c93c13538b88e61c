#pragma once

#include <filesystem>
#include <vector>

#include "common/base/error.h"
#include "common/config/job_config.h"

namespace varscope {

// Of the file that the config was read from; empty for a config that is no file here (of a checkpoint).
std::filesystem::path config_folder(const JobConfig& job);
// Where the config's relative paths of data are searched, in this order.
std::vector<std::filesystem::path> data_folders(const JobConfig& job);

// Throws the error with the place in the config before its text: that of the source at `path`, unless the
// text begins with one, as of a key that was bound without a file's name (":3:14: ").
[[noreturn]] void throw_at_source(const JobConfig& job, const char* path, const Error& error);

// What `work` returns; its errors are thrown as above.
template <class Work>
auto at_source(const JobConfig& job, const char* path, Work work) {
  try {
    return work();
  } catch (const Error& e) {
    throw_at_source(job, path, e);
  }
}

}  // namespace varscope
