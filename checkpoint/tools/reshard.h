#pragma once

#include <string>

#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// `varscope checkpoint reshard`: writes the state of a checkpoint into `dir` as the shards that a job with
// `servers` servers would write: same step, time, run, clocks, workers' states, slices, rows and values hash.
// Takes the lock of `dir`, which may be the directory of the checkpoint itself: then the original is set
// aside. Every byte is verified. `out` gets what was written. Throws Error(checkpoint) when the checkpoint is
// damaged or a job writes in `dir`, Error(io).
void reshard_tool(Fs& fs, const std::string& path, const std::string& dir, int servers, ToolFormat format,
                  std::string& out);

}  // namespace varscope
