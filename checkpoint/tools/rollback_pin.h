#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// `varscope checkpoint rollback` and `pin`. Each takes the directory's LOCK, and throws Error(checkpoint)
// when a job has it, when the directory does not exist, or when there is no such checkpoint (the message
// lists those that are there). `out` gets what was done.

// Makes the checkpoint of this step the newest: verifies every byte of it, records the rollback in LINEAGE,
// sets newer checkpoints aside as superseded-step-..., and renews LATEST. After a crash in between, the same
// call completes it. Throws Error(checkpoint) when the checkpoint is damaged; then nothing was changed.
void rollback_tool(Fs& fs, const std::string& dir, std::int64_t step, ToolFormat format, std::string& out);

enum class PinChange : std::uint8_t { pin, unpin };
// Makes or removes the file PINNED in the checkpoint: retention and prune never remove a pinned one. Doing it
// twice is fine.
void pin_tool(Fs& fs, const std::string& dir, std::int64_t step, PinChange change, ToolFormat format,
              std::string& out);

}  // namespace varscope
