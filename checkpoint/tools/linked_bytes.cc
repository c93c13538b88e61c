#include "checkpoint/tools/linked_bytes.h"

#include <map>
#include <optional>
#include <utility>

namespace varscope {

FreedBytes freed_bytes(Fs& fs, const std::vector<const CheckpointEntry*>& removed) {
  struct Names {
    std::uint64_t size = 0, n_all = 0, n_removed = 0;
  };
  std::map<std::pair<std::uint64_t, std::uint64_t>, Names> files;
  FreedBytes bytes;
  for (const CheckpointEntry* entry : removed) {
    if (!entry->manifest) continue;
    for (const FileRecord& f : entry->manifest->files) {
      const std::optional<FileIdentity> file = fs.identify(join_path(entry->path, f.name));
      if (!file) {
        bytes.freed += f.size;
        continue;
      }
      Names& names = files[file->key()];
      names.size = f.size;
      names.n_all = file->n_names;
      ++names.n_removed;
    }
  }
  for (const auto& [key, names] : files)
    (names.n_removed >= names.n_all ? bytes.freed : bytes.stay) += names.size;
  return bytes;
}

}  // namespace varscope
