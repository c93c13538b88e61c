#include "launch/job/data_places.h"

#include <string>
#include <system_error>

#include "worker/data/source_registry.h"

namespace varscope {

std::filesystem::path config_folder(const JobConfig& job) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(job.file, ignored)) return {};
  const std::filesystem::path folder = std::filesystem::path(job.file).parent_path();
  return folder.empty() ? "." : folder;
}

std::vector<std::filesystem::path> data_folders(const JobConfig& job) {
  std::vector<std::filesystem::path> folders{data_root()};
  if (const auto folder = config_folder(job); !folder.empty()) folders.insert(folders.begin(), folder);
  return folders;
}

void throw_at_source(const JobConfig& job, const char* path, const Error& error) {
  const ConfigNode* node = job.root.find_path(path);
  std::string position = node == nullptr ? job.file + ": " : position_of(node->mark, job.file),
              text = error.what();
  if (const std::size_t end = text.find(": "); text.starts_with(':') && end != std::string::npos) {
    position = job.file + text.substr(0, end + 2);
    text.erase(0, end + 2);
  }
  throw Error(error.kind(), fmt::format("{}{}: {}", position, path, text), error.where());
}

}  // namespace varscope
