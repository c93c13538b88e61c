#pragma once

#include <string>
#include <vector>

#include "checkpoint/fs.h"

namespace varscope {

// Lines "varscope: warning: ..." on standard error, each whole.
void warn(const std::vector<std::string>& warnings);

// The checkpoint that a path of the command line means: itself, or the newest whole one of a directory of
// checkpoints, with a warning about each newer one that is not whole. Throws Error(checkpoint).
std::string checkpoint_at(Fs& fs, const std::string& path);

}  // namespace varscope
