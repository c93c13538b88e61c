#pragma once

#include <string>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// The directory that `varscope checkpoint <tool>` changes, locked. Throws Error(checkpoint) when it does not
// exist (nobody makes one by a mistyped name), and when a job has it.
CheckpointDirectory locked_directory(Fs& fs, const std::string& dir, const char* tool);

}  // namespace varscope
