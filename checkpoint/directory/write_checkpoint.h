#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/format/row_file.h"
#include "checkpoint/format/shard.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// Fills `out`, which has the bytes of the tensor's box. Throws what is wrong with the source.
using FillTensor = std::function<void(const ShardTensor&, std::span<std::byte> out)>;

// A checkpoint that no cluster writes: what `begin`, the servers and `commit` do, in one process.
struct NewCheckpoint {
  Manifest manifest;                 // without id, files, tensors and the hash of the values
  std::vector<ShardTensor> tensors;  // data.data stays null; each goes to the server that owns its slice
  std::vector<std::pair<std::string, std::string>> files;  // others, name and bytes
  std::optional<EvaluationRecord> evaluation = {};
  std::vector<RowFileTable> tables = {};  // without parts: each goes to the server that owns it
};
// Writes and commits it under the lock that `directory` holds; one slice, or one part of a table, at a time
// is in memory. `read` gives the rows of tables (index in checkpoint.tables): of server 0, then of the next,
// so that parts are in order within a server only. Returns its path. Whatever fails, nothing is left
// behind.
std::string write_checkpoint(Fs& fs, CheckpointDirectory& directory, NewCheckpoint checkpoint,
                             const FillTensor& fill, const ReadPart& read = {});

}  // namespace varscope
