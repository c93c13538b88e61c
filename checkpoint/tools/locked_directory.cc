#include "checkpoint/tools/locked_directory.h"

#include "common/base/error.h"

namespace varscope {

CheckpointDirectory locked_directory(Fs& fs, const std::string& dir, const char* tool) {
  if (!fs.is_directory(dir)) fail(ErrorKind::checkpoint, "there is no checkpoint directory {}", dir);
  CheckpointDirectory directory(fs, dir);
  directory.lock(fmt::format("(varscope checkpoint {})", tool));
  return directory;
}

}  // namespace varscope
