#include "ps/checkpointing/restore.h"

#include <map>
#include <utility>
#include <vector>

#include "checkpoint/format/boxes.h"
#include "checkpoint/restore/dense_rows.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/restore_rows.h"

namespace varscope {

namespace {

CheckpointReader open(Fs& fs, const RestoreSource& source) {
  return source.manifest != nullptr ? CheckpointReader::open(fs, source.path, *source.manifest)
                                    : CheckpointReader::open(fs, source.path);
}

// Slices of dense variables that a table's rows go to, by the names of both.
using RowsOfDense = std::map<std::pair<std::string, std::string>, std::vector<DenseBox>>;

}  // namespace

void restore_shard(ParameterShard& shard, Fs& fs, const RestoreSource& source) {
  CheckpointReader reader = open(fs, source);
  // A variable's slices follow each other: what it is called is looked up once.
  const VariableSpec* current = nullptr;
  std::optional<VariableSpec> saved;
  bool is_of_rows = false;
  RowsOfDense rows;
  shard.for_each_slice(
      [&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice, TensorView out) {
        if (std::exchange(current, &v) != &v) {
          saved = source.saved_as ? source.saved_as(v) : v;
          is_of_rows = saved && find_table(reader.manifest(), saved->full_name()) != nullptr;
        }
        if (!saved || (!source.resumed && !slot.empty())) return;
        if (!is_of_rows) return reader.read(*saved, slot, slice.box, out);
        rows[{v.full_name(), saved->full_name()}].push_back({in_whole(v, slice.box), out});
      });
  for (const auto& [names, boxes] : rows)
    read_table_as_dense(reader, names.second, names.first, source.seed, boxes);
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
      const auto take = [&](std::uint64_t id, const std::byte* values) { table->restore_values(id, values); };
      const bool is_table = find_table(reader.manifest(), saved->name) != nullptr;
      (is_table ? restore_row_values : read_dense_as_rows)(reader, table->table(), saved->name,
                                                           table->server(), take);
    }
  }
}

}  // namespace varscope
