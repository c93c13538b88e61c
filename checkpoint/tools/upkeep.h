#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/directory/retention.h"
#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// What changes a directory of checkpoints by hand: `varscope checkpoint rollback|pin|prune`. Each takes the
// directory's LOCK, and throws Error(checkpoint) when a job has it, when the directory does not exist, or
// when there is no such checkpoint (the message lists those that are there). `out` gets what was done.

// Makes the checkpoint of this step the newest: verifies every byte of it, records the rollback in LINEAGE,
// sets newer checkpoints aside as superseded-step-..., and renews LATEST. After a crash in between, the same
// call completes it. Throws Error(checkpoint) when the checkpoint is damaged; then nothing was changed.
void rollback_tool(Fs& fs, const std::string& dir, std::int64_t step, ToolFormat format, std::string& out);

enum class PinChange : std::uint8_t { pin, unpin };
// Makes or removes the file PINNED in the checkpoint: retention and prune never remove a pinned one. Doing it
// twice is fine.
void pin_tool(Fs& fs, const std::string& dir, std::int64_t step, PinChange change, ToolFormat format,
              std::string& out);

enum class PruneMode : std::uint8_t { remove, dry_run };
// Removes what a job whose retention is `policy` would; a dry run only tells, and why the others stay.
// REQUIRES policy.keep > 0.
void prune_tool(Fs& fs, const std::string& dir, const RetentionPolicy& policy, PruneMode mode,
                ToolFormat format, std::string& out);

}  // namespace varscope
