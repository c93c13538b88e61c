#pragma once

#include <functional>
#include <optional>
#include <string>

#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/fs.h"
#include "ps/store/parameter_shard.h"
#include "ps/tables/table_shards.h"

namespace varscope {

// What a server takes from a checkpoint, and from where in it.
struct RestoreSource {
  std::string path;  // of the checkpoint
  // A run that goes on takes slots too, and its clocks become this; one that only starts from these values
  // takes nothing but values, and all slots start anew beside them.
  std::optional<Clock> resumed = {};
  // The variable as the checkpoint has it (its name, perhaps its part); nothing: it keeps what it has. Null:
  // every variable under its own name.
  std::function<std::optional<VariableSpec>(const VariableSpec&)> saved_as = {};
  const Manifest* manifest = nullptr;  // of the checkpoint, where it has been decoded before
};

// Reads the shard's slices, whichever servers wrote them. REQUIRES: what is taken is there and fits; a plan
// (checkpoint/restore/restore_plan.h, warm_start.h) has told the user all that does not. Throws
// Error(checkpoint, io).
void restore_shard(ParameterShard& shard, Fs& fs, const RestoreSource& source);
// The same of tables, which are empty before: their rows, whichever servers wrote them, and of a run that
// goes on the ids that wait for theirs. What the checkpoint does not have stays absent.
void restore_tables(TableShards& tables, Fs& fs, const RestoreSource& source);

}  // namespace varscope
