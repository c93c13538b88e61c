#pragma once

#include <string>

#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// The checkpoint that a path means: itself, or the newest whole one of a directory of checkpoints or of a
// run, with a warning for each newer one that is not whole. Throws Error(checkpoint) when there is none, or
// when none can be used.
FoundCheckpoint find_checkpoint(Fs& fs, const std::string& path);

// The same for the command line: prints the warnings.
std::string checkpoint_at(Fs& fs, const std::string& path);

}  // namespace varscope
