#include "launch/job/find_checkpoint.h"

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/manifest.h"
#include "launch/observe/output.h"

namespace varscope {

FoundCheckpoint find_checkpoint(Fs& fs, const std::string& path) {
  if (fs.exists(join_path(path, kManifestName))) return {path, {}};
  return newest_checkpoint(fs, directory_of_checkpoints(fs, path));
}

std::string checkpoint_at(Fs& fs, const std::string& path) {
  FoundCheckpoint found = find_checkpoint(fs, path);
  warn(found.warnings);
  return std::move(found.path);
}

}  // namespace varscope
