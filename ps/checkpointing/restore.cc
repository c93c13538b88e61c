#include "ps/checkpointing/restore.h"

#include <utility>

#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/restore_rows.h"

namespace varscope {

namespace {

CheckpointReader open(Fs& fs, const RestoreSource& source) {
  return source.manifest != nullptr ? CheckpointReader::open(fs, source.path, *source.manifest)
                                    : CheckpointReader::open(fs, source.path);
}

}  // namespace

void restore_shard(ParameterShard& shard, Fs& fs, const RestoreSource& source) {
  CheckpointReader reader = open(fs, source);
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

void restore_tables(TableShards& tables, Fs& fs, const RestoreSource& source) {
  if (tables.empty()) return;
  CheckpointReader reader = open(fs, source);
  for (const auto& table : tables) {
    if (source.resumed) table->set_clock(*source.resumed);
    const VariableSpec& v = table->variable();
    const std::optional<VariableSpec> saved = source.saved_as ? source.saved_as(v) : v;
    if (!saved) continue;
    if (source.resumed) {
      restore_rows(reader, table->table(), saved->name, table->server(), [&](int part, const PartRows& rows) {
        table->restore(part, rows.rows);
        if (!rows.waiting.empty()) table->restore_waiting(part, rows.waiting);
      });
    } else {
      restore_row_values(
          reader, table->table(), saved->name, table->server(),
          [&](std::uint64_t id, const std::byte* values) { table->restore_values(id, values); });
    }
  }
}

}  // namespace varscope
