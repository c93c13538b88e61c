#include "launch/job/find_checkpoint.h"

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/manifest.h"
#include "common/base/error.h"
#include "launch/observe/output.h"

namespace varscope {

FoundCheckpoint find_checkpoint(Fs& fs, const std::string& path) {
  if (fs.exists(join_path(path, kManifestName))) return {path, {}};
  if (list_checkpoints(fs, path).empty()) {
    fail(ErrorKind::checkpoint,
         "{} {}; name a checkpoint, or a directory of checkpoints that a run has written", path,
         fs.exists(path) ? "holds no checkpoint" : "does not exist");
  }
  return newest_checkpoint(fs, path);
}

std::string checkpoint_at(Fs& fs, const std::string& path) {
  FoundCheckpoint found = find_checkpoint(fs, path);
  warn(found.warnings);
  return std::move(found.path);
}

}  // namespace varscope
