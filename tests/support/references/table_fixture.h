#pragma once

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/format/row_file.h"
#include "common/base/row_id.h"
#include "tests/support/references/checkpoint_fixture.h"

// Checkpoints with sparse tables, for tests.
namespace varscope::testing {

inline VariableSpec make_table(std::string name, DType dtype, std::int64_t units, TableSpec spec) {
  VariableSpec v = make_variable(std::move(name), dtype, {0, units});
  v.table = spec;
  v.initializer = Initializer::uniform(-1, 1);
  return v;
}

// The rows of one table, and its waiting ids, by mix_row_id(): whole records.
struct TableRows {
  VariableSpec variable;
  RowLayout layout;
  std::map<std::uint64_t, std::vector<std::byte>> rows, waiting;

  TableRows(VariableSpec v, std::vector<RowSlot> slots)
      : variable(std::move(v)), layout(variable.dtype, variable.shape[1], std::move(slots)) {}

  std::byte* add(std::uint64_t id, std::uint32_t last = 1, std::uint32_t count = 1) {
    std::vector<std::byte>& row = rows[mix_row_id(id)];
    row.assign(layout.row_bytes(), std::byte{0});
    RowLayout::set_id(row.data(), id);
    RowLayout::set_last(row.data(), last);
    RowLayout::set_count(row.data(), count);
    return row.data();
  }
  void add_waiting(std::uint64_t id, std::uint32_t last, std::uint32_t count) {
    std::vector<std::byte>& record = waiting[mix_row_id(id)];
    record.assign(PartRows::kWaitingBytes, std::byte{0});
    RowLayout::set_id(record.data(), id);
    RowLayout::set_last(record.data(), last);
    RowLayout::set_count(record.data(), count);
  }
  // A number of the values and slots, which are one behind the other.
  template <class T>
  void set(std::uint64_t id, std::size_t element, T value) {
    std::memcpy(rows.at(mix_row_id(id)).data() + RowLayout::kValuesAt + element * sizeof(T), &value,
                sizeof(T));
  }
  // n rows of a seed, finite: ids of 64 random bits.
  void fill(int n, unsigned seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < n; ++i) {
      const std::uint64_t id = random();
      std::byte* row = add(id, static_cast<std::uint32_t>(random() % 9), static_cast<std::uint32_t>(i));
      std::size_t end = RowLayout::kValuesAt + layout.value_bytes();
      for (std::size_t s = 0; s < layout.slots().size(); ++s) end += layout.slot_bytes(s);
      for (std::size_t at = RowLayout::kValuesAt; at < end; ++at)
        row[at] = static_cast<std::byte>(random() & 0x3f);
    }
  }
  std::vector<std::byte> part(int part) const {
    std::vector<std::byte> all;
    for (const auto& [mixed, row] : rows) {
      if (row_part(mixed, variable.table->parts) == part) all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  }
  // All that a save has of a part.
  void read(int p, PartRows& out) const {
    out.clear();
    out.rows = part(p);
    for (const auto& [mixed, record] : waiting) {
      if (row_part(mixed, variable.table->parts) == p)
        out.waiting.insert(out.waiting.end(), record.begin(), record.end());
    }
  }
  RowHashSum sum(int part) const {
    RowHashSum sum;
    for (const auto& [mixed, row] : rows) {
      if (row_part(mixed, variable.table->parts) == part)
        sum.add(RowLayout::id_of(row.data()), {row.data() + RowLayout::kValuesAt, layout.value_bytes()});
    }
    return sum;
  }
  RowFileTable of_server(int server, int n_servers) const {
    RowFileTable table{variable.name, *variable.table, layout, {}};
    for (int p = 0; p < variable.table->parts; ++p) {
      if (variable.owner(p, n_servers).value == server) table.parts.push_back(p);
    }
    return table;
  }
};

// Dense variables beside tables.
struct TableModel {
  Model dense;
  std::vector<TableRows> tables;

  TableModel(std::vector<VariableSpec> variables, std::vector<TableRows> rows, unsigned seed)
      : dense(with_tables(std::move(variables), rows), {"m"}, seed), tables(std::move(rows)) {}

  static VariableTable with_tables(std::vector<VariableSpec> variables, const std::vector<TableRows>& rows) {
    for (const TableRows& t : rows) variables.push_back(t.variable);
    return VariableTable(std::move(variables));
  }
};

// A dense variable and two tables: int64 ids, 3 float32 units and two slots; uint64 ids, 2 float64 units, one
// part, without slots.
inline TableModel two_tables(unsigned seed, int n_rows = 200) {
  TableRows users(make_table("user/embeddings", DType::float32, 3, {IdType::int64, 16}),
                  {{"m", 3}, {"n", 1}});
  TableRows items(make_table("item/embeddings", DType::float64, 2, {IdType::uint64, 1}), {});
  users.fill(n_rows, seed + 1);
  items.fill(n_rows / 10, seed + 2);
  return {{make_variable("w", DType::float32, {4, 3})}, {users, items}, seed};
}

// What server `server` of `n` writes.
inline ShardReport write_part(Fs& fs, const std::string& dir, const TableModel& model, std::int64_t step,
                              int server, int n, const std::string& id) {
  ShardReport report = write_part(fs, dir, model.dense, step, server, n, id);
  std::vector<RowFileTable> tables;
  for (const TableRows& t : model.tables) tables.push_back(t.of_server(server, n));
  add_row_file(report, write_row_file(fs, dir, {server, n, step, id}, tables,
                                      [&](std::size_t table, int part, PartRows& rows) {
                                        model.tables[table].read(part, rows);
                                      }));
  return report;
}

// The whole of a save; throws what failed, without cleaning up.
inline std::string save(Fs& fs, CheckpointDirectory& directory, const TableModel& model, std::int64_t step,
                        int servers, const std::string& id) {
  const std::string tmp = directory.begin(id);
  Manifest manifest = make_manifest(model.dense, step, servers);
  for (int server = 0; server < servers; ++server)
    add_report(manifest, write_part(fs, tmp, model, step, server, servers, id));
  manifest.files.push_back(write_blob(fs, tmp, worker_state_name(0), "position of worker 0"));
  manifest.files.push_back(write_blob(fs, tmp, worker_state_name(1), ""));
  return directory.commit(id, manifest);
}

// A directory with one committed checkpoint.
struct SavedTables {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory{fs, dir.path()};
  std::string path;
  SavedTables(const TableModel& model, int servers, std::int64_t step = 5) {
    directory.lock("run");
    path = save(fs, directory, model, step, servers, "id-" + std::to_string(step));
  }
};

// The hash that a checkpoint of this model must have.
inline Digest values_hash_of(const TableModel& model) {
  ValuesHash hash(model.dense.table);
  for (const VariableSpec& v : model.dense.table.variables()) {
    const auto& boxes = model.dense.boxes.at(v.name);
    for (std::size_t i = 0; i < boxes.size(); ++i)
      hash.add(v.name, static_cast<std::int64_t>(i), digest_of(cut_out(model.dense.value(v.name), boxes[i])));
  }
  for (const TableRows& t : model.tables) {
    for (int p = 0; p < t.variable.table->parts; ++p) {
      if (!t.part(p).empty()) hash.add(t.variable.name, p, t.sum(p).digest());
    }
  }
  return hash.finish();
}

inline void expect_rows(CheckpointReader& reader, const TableModel& model) {
  ASSERT_EQ(reader.tables().size(), model.tables.size());
  std::vector<std::byte> rows;
  for (const TableRows& t : model.tables) {
    EXPECT_EQ(reader.row_layout(t.variable.name), t.layout);
    for (int p = 0; p < t.variable.table->parts; ++p) {
      reader.read_rows(t.variable.name, p, rows);
      EXPECT_EQ(rows, t.part(p)) << t.variable.name << " part " << p;
    }
  }
}

}  // namespace varscope::testing
