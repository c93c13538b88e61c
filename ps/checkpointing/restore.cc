#include "ps/checkpointing/restore.h"

#include <utility>

#include "checkpoint/restore/reader.h"

namespace varscope {

void restore_shard(ParameterShard& shard, Fs& fs, const RestoreSource& source) {
  CheckpointReader reader = source.manifest != nullptr
                                ? CheckpointReader::open(fs, source.path, *source.manifest)
                                : CheckpointReader::open(fs, source.path);
  // A variable's slices follow each other: what it is called is looked up once.
  const VariableSpec* current = nullptr;
  std::optional<VariableSpec> saved;
  shard.for_each_slice(
      [&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice, TensorView out) {
        if (std::exchange(current, &v) != &v) saved = source.saved_as ? source.saved_as(v) : v;
        if (saved && (source.resumed || slot.empty())) reader.read(*saved, slot, slice.box, out);
      });
  if (!source.resumed) return shard.start_slots();
  for (BucketId b : shard.buckets()) shard.set_clock(b, *source.resumed);
}

}  // namespace varscope
