#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/directory/retention.h"
#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

enum class PruneMode : std::uint8_t { remove, dry_run };
// `varscope checkpoint prune`: removes what a job whose retention is `policy` would; a dry run only tells
// that, and why the others stay. `out` gets what was done. Takes the directory's LOCK. Throws
// Error(checkpoint) when a job has it, when the directory does not exist, when one that would stay as the
// newest is damaged, and when no checkpoint has the metric that the best are kept by; then nothing was
// removed. REQUIRES: policy.keep > 0.
void prune_tool(Fs& fs, const std::string& dir, const RetentionPolicy& policy, PruneMode mode,
                ToolFormat format, std::string& out);

}  // namespace varscope
