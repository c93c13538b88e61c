#include "checkpoint/tools/linked_bytes.h"

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

// The files of a checkpoint, with the sizes that its manifest says; 0 of those that it does not list (itself,
// manifest.json, what evaluations and pins have left).
std::map<std::string, std::uint64_t> files_of(Fs& fs, const CheckpointEntry& entry) {
  std::map<std::string, std::uint64_t> listed, found;
  if (entry.manifest) {
    for (const FileRecord& f : entry.manifest->files) listed[f.name] = f.size;
  }
  try {
    for (const std::string& name : fs.list(entry.path)) {
      if (fs.is_directory(join_path(entry.path, name))) continue;  // not ours
      const auto it = listed.find(name);
      found[name] = it == listed.end() ? 0 : it->second;
    }
  } catch (const Error&) {  // the caller wants a figure, and look_at() has said what cannot be read
    return listed;
  }
  return found;
}

}  // namespace

FreedBytes freed_bytes(Fs& fs, const std::vector<const CheckpointEntry*>& removed) {
  struct Names {
    std::uint64_t size = 0, n_all = 0, n_removed = 0;
  };
  std::map<std::pair<std::uint64_t, std::uint64_t>, Names> files;
  FreedBytes bytes;
  for (const CheckpointEntry* entry : removed) {
    for (const auto& [name, size] : files_of(fs, *entry)) {
      const std::optional<FileIdentity> file = fs.identify(join_path(entry->path, name));
      if (!file) {
        bytes.freed += size;
        continue;
      }
      Names& names = files[file->key()];
      names.size = file->n_bytes;
      names.n_all = file->n_names;
      ++names.n_removed;
    }
  }
  for (const auto& [key, names] : files)
    (names.n_removed >= names.n_all ? bytes.freed : bytes.stay) += names.size;
  return bytes;
}

}  // namespace varscope
