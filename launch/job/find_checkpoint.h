#pragma once

#include <string>

#include "checkpoint/storage/fs.h"

namespace varscope {

// The checkpoint that a path of the command line means: itself, or the newest whole one of a directory of
// checkpoints, with a warning about each newer one that is not whole. Throws Error(checkpoint).
std::string checkpoint_at(Fs& fs, const std::string& path);

}  // namespace varscope
