#include "launch/find_checkpoint.h"

#include <cstdio>

#include "checkpoint/manifest.h"
#include "checkpoint/reader.h"

namespace varscope {

void warn(const std::vector<std::string>& warnings) {
  for (const std::string& w : warnings) std::fputs(("varscope: warning: " + w + "\n").c_str(), stderr);
}

std::string checkpoint_at(Fs& fs, const std::string& path) {
  if (fs.exists(join_path(path, kManifestName))) return path;
  FoundCheckpoint found = newest_checkpoint(fs, path);
  warn(found.warnings);
  return std::move(found.path);
}

}  // namespace varscope
