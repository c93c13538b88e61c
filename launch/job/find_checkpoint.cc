#include "launch/job/find_checkpoint.h"

#include "checkpoint/format/manifest.h"
#include "checkpoint/restore/reader.h"
#include "launch/observe/output.h"

namespace varscope {

std::string checkpoint_at(Fs& fs, const std::string& path) {
  if (fs.exists(join_path(path, kManifestName))) return path;
  FoundCheckpoint found = newest_checkpoint(fs, path);
  warn(found.warnings);
  return std::move(found.path);
}

}  // namespace varscope
