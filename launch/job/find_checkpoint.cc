#include "launch/job/find_checkpoint.h"

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/manifest.h"
#include "launch/observe/output.h"

namespace varscope {

FoundCheckpoint find_checkpoint(Fs& fs, const std::string& path) {
  if (fs.exists(join_path(path, kManifestName))) return {path, {}};
  const std::string below = join_path(path, "checkpoints");  // a run's directory was named
  const bool is_run = list_checkpoints(fs, path).empty() && !list_checkpoints(fs, below).empty();
  return newest_checkpoint(fs, is_run ? below : path);
}

std::string checkpoint_at(Fs& fs, const std::string& path) {
  FoundCheckpoint found = find_checkpoint(fs, path);
  warn(found.warnings);
  return std::move(found.path);
}

}  // namespace varscope
