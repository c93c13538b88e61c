// What the tools, a restore's comparison, a warm start and a Saver make of checkpoints with sparse tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

#include "checkpoint/exchange/import_rows.h"
#include "checkpoint/exchange/table_tensors.h"
#include "checkpoint/restore/checkpoint_rows.h"
#include "checkpoint/restore/saver.h"
#include "checkpoint/restore/warm_start.h"
#include "checkpoint/tools/diff.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/prune.h"
#include "checkpoint/tools/reshard.h"
#include "checkpoint/tools/verify.h"
#include "tests/support/references/exported.h"
#include "tests/support/references/safetensors_reader.h"
#include "tests/support/references/table_fixture.h"

namespace varscope {
namespace {

using testing::contents;
using testing::error_of;
using testing::export_to;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::SavedTables;
using testing::slurp;
using testing::TableModel;
using testing::TableRows;
using testing::TempDir;
using testing::two_tables;

using Json = nlohmann::json;

std::uint64_t id_at(const TableRows& t, int n) {
  return RowLayout::id_of(std::next(t.rows.begin(), n)->second.data());
}
std::string id_of(const TableRows& t, int n) { return id_text(t.variable.table->ids, id_at(t, n)); }

// --- reshard, verify, prune, inspect ---

TEST(TableTools, ReshardKeepsTheRecords) {
  const TableModel model = two_tables(3);
  SavedTables saved(model, 2);
  for (const int servers : {1, 3, 20}) {
    SCOPED_TRACE(servers);
    TempDir dir;
    std::string out;
    reshard_tool(saved.fs, saved.path, dir / "new", servers, ToolFormat::json, out);
    const std::string path = Json::parse(out).at("path");
    EXPECT_THAT(verify_checkpoint(saved.fs, path), IsEmpty());
    CheckpointReader reader = CheckpointReader::open(saved.fs, path);
    testing::expect_rows(reader, model);
    EXPECT_EQ(reader.values_hash(), testing::values_hash_of(model));
    EXPECT_EQ(reader.manifest().format_major, 3);
    for (const RowPartRecord& r : reader.manifest().row_parts) {
      EXPECT_EQ(server_of_row_file(reader.manifest().files[r.pieces[0].file].name),
                model.dense.table.find(r.variable)->owner(r.part, servers).value);
    }
    // The files are those that a job of so many servers writes, but for the id in their headers.
    SavedTables direct(model, servers);
    const std::size_t header = 40 + (reader.manifest().id.size() + 7) / 8 * 8 - 8;
    for (int server = 0; server < servers; ++server) {
      const std::string a = slurp(path + "/" + row_file_name(server, servers));
      const std::string b = slurp(direct.path + "/" + row_file_name(server, servers));
      EXPECT_EQ(a.substr(header), b.substr(40)) << server;
    }
  }
}

TEST(TableTools, VerifyAndPruneKnowTheFiles) {
  TempDir dir;
  PosixFs fs;
  {
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    save(fs, directory, two_tables(3), 5, 2, "id-5");
    save(fs, directory, two_tables(4), 6, 2, "id-6");
  }
  std::string out;
  EXPECT_EQ(verify_tool(fs, dir.path(), out), 0);
  EXPECT_THAT(out, HasSubstr("good, 6 files, "));
  out.clear();
  prune_tool(fs, dir.path(), {.keep = 1}, PruneMode::remove, ToolFormat::text, out);
  EXPECT_THAT(out, HasSubstr("1 checkpoint"));
  EXPECT_FALSE(fs.exists(dir / "step-000000005"));
  testing::flip_bit(dir / "step-000000006/rows-00001-of-00002.bin", 100);
  out.clear();
  EXPECT_EQ(verify_tool(fs, dir.path(), out), 5);
  EXPECT_THAT(out, HasSubstr("rows-00001-of-00002.bin is damaged: CRC block 0 (from byte 0)"));
  EXPECT_THAT(list_text(fs, dir.path()), HasSubstr("step-000000006"));
}

TEST(TableTools, InspectShowsRowsAndBytes) {
  TableModel model = two_tables(3);
  TableRows& items = model.tables[1];
  items.rows.clear();
  for (const std::uint64_t id : {7U, 9U}) {
    items.add(id);
    items.set(id, 0, 3.0);
    items.set(id, 1, -4.0);
  }
  SavedTables saved(model, 2);
  const std::string text = inspect_text(saved.fs, saved.path);
  EXPECT_THAT(text, HasSubstr("format 3.0"));
  EXPECT_THAT(text, HasSubstr("parameters  " + std::to_string(12 + 200 * 3 + 2 * 2)));
  EXPECT_THAT(text, ::testing::ContainsRegex("user/embeddings +float32 +\\[200 rows, 3\\] +0,1 "));
  EXPECT_THAT(text,
              ::testing::ContainsRegex("item/embeddings +float64 +\\[2 rows, 2\\] +[01] +-4 +3 +7.071"));
  EXPECT_THAT(text, ::testing::ContainsRegex(
                        "user/embeddings +int64 +200 +16 of 16 +0 +9600 +1 +48 +m \\[3\\], n \\[1\\]\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("item/embeddings +uint64 +2 +1 of 1 +0 +64 +1 +32 +-\n"));
  const Json json = Json::parse(inspect_text(saved.fs, saved.path, ToolFormat::json));
  EXPECT_EQ(json["tables"][0]["rows"], 200);
  EXPECT_EQ(json["variables"][2]["rows"], 2);
  EXPECT_EQ(json["variables"][2]["max"], 3);
  // Sums are the same whoever has saved the rows.
  SavedTables one(model, 1);
  EXPECT_EQ(Json::parse(inspect_text(one.fs, one.path, ToolFormat::json))["variables"][1]["norm"],
            json["variables"][1]["norm"]);
}

// --- diff ---

std::string diff(Fs& fs, const std::string& a, const std::string& b, int due) {
  std::string out;
  EXPECT_EQ(diff_tool(fs, a, b, ToolFormat::text, out), due);
  return out;
}

TEST(TableTools, DiffOfOtherServersAndPartsIsEmpty) {
  TableModel model = two_tables(3);
  const SavedTables a(model, 1);
  model.tables[0].variable.table->parts = 64;
  const SavedTables b({{model.dense.table[0]}, model.tables, 3}, 3);
  PosixFs fs;
  EXPECT_THAT(diff(fs, a.path, b.path, 0), HasSubstr("equal: 4 equal, 0 with other values"));
}

TEST(TableTools, DiffNamesTheRows) {
  TableModel model = two_tables(3);
  const SavedTables a(model, 2);
  TableRows& users = model.tables[0];
  const std::vector<std::string> gone = {id_of(users, 3), id_of(users, 50)};
  const std::uint64_t changed = id_at(users, 60), more = id_at(users, 100), slot = id_at(users, 120);
  float was = 0;
  std::memcpy(&was, users.rows.at(mix_row_id(more)).data() + 16, 4);
  users.set(changed, 2, 0.25F);
  users.set(more, 0, was + 1000);
  users.set(slot, 6, 5.0F);
  RowLayout::set_last(users.rows.at(mix_row_id(id_at(users, 130))).data(), 4000);
  const std::string step_of = id_of(users, 130);
  users.rows.erase(std::next(users.rows.begin(), 50));
  users.rows.erase(std::next(users.rows.begin(), 3));
  for (int i = 0; i < 7; ++i) users.add(static_cast<std::uint64_t>(-i));
  const SavedTables b(model, 3);
  PosixFs fs;
  const std::string text = diff(fs, a.path, b.path, 5);
  EXPECT_THAT(text, HasSubstr(fmt::format("rows of user/embeddings: 2 only in a ({}, {}), 7 only in b (",
                                          gone[0], gone[1])));
  EXPECT_THAT(text, HasSubstr(", ...), 3 of 198 differ ("));
  EXPECT_THAT(text, HasSubstr(fmt::format("most in row {} (by 1000)", static_cast<std::int64_t>(more))));
  EXPECT_THAT(text, HasSubstr(fmt::format("1 have another last step or count ({})", step_of)));
  EXPECT_THAT(text, ::testing::ContainsRegex("user/embeddings +float32 +\\[198 rows, 3\\] +2 of 594 +1000"));
  EXPECT_THAT(text,
              ::testing::ContainsRegex("user/embeddings \\(slot n\\) +float32 +\\[198 rows, 1\\] +1 of 198"));
  EXPECT_THAT(text, Not(HasSubstr("item/embeddings")));
  std::string out;
  diff_tool(fs, a.path, b.path, ToolFormat::json, out);
  const Json json = Json::parse(out);
  EXPECT_EQ(json["tables"][0]["only_in_a"]["first_ids"], Json(gone));
  EXPECT_EQ(json["tables"][0]["only_in_b"]["rows"], 7);
  EXPECT_EQ(json["tables"][0]["max_abs_in"], std::to_string(static_cast<std::int64_t>(more)));
}

// Ids that are counted and have no row yet, in parts with rows and in parts without.
TEST(TableTools, DiffNamesWaitingIds) {
  const VariableSpec w = testing::make_variable("w", DType::float32, {4, 3});
  std::vector<TableRows> tables = two_tables(3).tables;
  TableRows &users = tables[0], &items = tables[1];
  for (TableRows& t : tables) t.variable.table->entry = 3;
  items.rows.clear();
  const SavedTables none({{w}, tables, 3}, 2);
  for (const int id : {-5, 7, 8, 9}) users.add_waiting(static_cast<std::uint64_t>(id), 4, 1);
  items.add_waiting(1, 4, 2);
  const SavedTables a({{w}, tables, 3}, 2);
  PosixFs fs;
  // Whatever servers and parts.
  std::vector<TableRows> other_parts = tables;
  other_parts[0].variable.table->parts = 64;
  const SavedTables same({{w}, other_parts, 3}, 3);
  EXPECT_THAT(diff(fs, a.path, same.path, 0), HasSubstr("equal: 4 equal"));

  // Nothing but waiting ids differs: values and values hash are the same.
  std::string text = diff(fs, none.path, a.path, 5);
  EXPECT_THAT(text, HasSubstr("rows of item/embeddings: 1 waiting only in b (1)\n"));
  EXPECT_THAT(text,
              ::testing::ContainsRegex("rows of user/embeddings: 4 waiting only in b \\([-0-9, ]+\\)\n"));
  EXPECT_THAT(text, HasSubstr("different: 2 equal, 0 with other values"));
  EXPECT_THAT(diff(fs, a.path, none.path, 5), HasSubstr("item/embeddings: 1 waiting only in a (1)\n"));
  EXPECT_EQ(CheckpointReader::open(fs, none.path).values_hash(),
            CheckpointReader::open(fs, a.path).values_hash());

  users.add_waiting(8, 4, 2);
  for (const std::uint64_t id : {7, 9}) users.waiting.erase(mix_row_id(id));
  users.add(9);  // has its row now
  users.add_waiting(10, 5, 1);
  items.add_waiting(1, 5, 2);
  const SavedTables b({{w}, tables, 3}, 1);
  const std::string gone = mix_row_id(7) < mix_row_id(9) ? "7, 9" : "9, 7";
  text = diff(fs, a.path, b.path, 5);
  EXPECT_THAT(text,
              HasSubstr("rows of user/embeddings: 1 only in b (9), 2 waiting only in a (" + gone +
                        "), 1 waiting only in b (10), 1 waiting with another last step or count (8)\n"));
  EXPECT_THAT(text, HasSubstr("rows of item/embeddings: 1 waiting with another last step or count (1)\n"));
  std::string out;
  EXPECT_EQ(diff_tool(fs, a.path, b.path, ToolFormat::json, out), 5);
  const Json json = Json::parse(out);
  EXPECT_EQ(json["equal"], false);
  ASSERT_EQ(json["tables"].size(), 2U);
  for (const Json& t : json["tables"]) {
    const bool is_users = t["name"] == "user/embeddings";
    EXPECT_EQ(t["waiting"]["only_in_a"]["ids"], is_users ? 2 : 0);
    EXPECT_EQ(t["waiting"]["only_in_b"]["ids"], is_users ? 1 : 0);
    EXPECT_EQ(t["waiting"]["other_last_step_or_count"]["first_ids"][0], is_users ? "8" : "1");
  }
}

TEST(TableTools, DiffOfTablesThatCannotBeCompared) {
  const TableModel model = two_tables(3);
  const SavedTables a(model, 1);
  TableRows users(testing::make_table("user/embeddings", DType::float32, 4, {IdType::uint64, 16}), {});
  TableRows items(model.tables[1].variable, {{"z", 2}});
  TableRows other(testing::make_table("other", DType::float32, 1, {}), {});
  const SavedTables b({{model.dense.table[0]}, {users, other}, 3}, 1);
  PosixFs fs;
  const std::string text = diff(fs, a.path, b.path, 5);
  EXPECT_THAT(text, HasSubstr("added    table other float32 of 1 units, int64 ids"));
  EXPECT_THAT(text, HasSubstr("removed  table item/embeddings float64 of 2 units, uint64 ids"));
  EXPECT_THAT(text, HasSubstr("changed  table user/embeddings float32 of 3 units, int64 ids -> table "
                              "user/embeddings float32 of 4 units, uint64 ids"));
  for (const auto& [mixed, row] : model.tables[1].rows) {
    std::memcpy(items.add(RowLayout::id_of(row.data())) + 8, row.data() + 8, 24);
  }
  const SavedTables c({{model.dense.table[0]}, {model.tables[0], items}, 3}, 1);
  EXPECT_THAT(
      diff(fs, a.path, c.path, 5),
      HasSubstr("added    item/embeddings (slot z) [2] of each row\nrows of item/embeddings: other slots\n"));
}

// --- export ---

// The rows by unsigned id, and what of each is wanted.
template <class F>
std::string by_id(const TableRows& t, const F& bytes_of) {
  std::map<std::uint64_t, std::string> sorted;
  for (const auto& [mixed, row] : t.rows) sorted[RowLayout::id_of(row.data())] = bytes_of(row.data());
  std::string all;
  for (const auto& [id, bytes] : sorted) all += bytes;
  return all;
}
std::string bytes_at(const std::byte* row, std::size_t at, std::size_t n) {
  return {reinterpret_cast<const char*>(row) + at, n};
}

TEST(TableExport, IsByUnsignedIdWhateverTheServers) {
  TableModel model = two_tables(3);
  model.tables[0].add(static_cast<std::uint64_t>(-5), 7, 4'000'000'000U);
  const TableRows& users = model.tables[0];
  std::string npz, safetensors;
  for (const int servers : {1, 2, 3}) {
    SavedTables saved(model, servers);
    const std::string file = saved.dir / "m.npz", other = saved.dir / "m.safetensors";
    export_to(saved.fs, saved.path, file);
    export_to(saved.fs, saved.path, other);
    if (npz.empty()) npz = slurp(file);
    if (safetensors.empty()) safetensors = slurp(other);
    EXPECT_EQ(slurp(file), npz);
    EXPECT_EQ(slurp(other), safetensors);
  }
  const testing::Safetensors read(safetensors);
  EXPECT_EQ(read.tensors.at("user/embeddings.ids").dtype, "I64");
  EXPECT_EQ(read.tensors.at("item/embeddings.ids").dtype, "U64");
  EXPECT_EQ(read.tensors.at("user/embeddings.ids").shape, std::vector<std::int64_t>{201});
  EXPECT_EQ(read.tensors.at("user/embeddings.ids").bytes,
            by_id(users, [](const std::byte* row) { return bytes_at(row, 0, 8); }));
  EXPECT_EQ(read.tensors.at("user/embeddings.values").shape, (std::vector<std::int64_t>{201, 3}));
  EXPECT_EQ(read.tensors.at("user/embeddings.values").bytes,
            by_id(users, [](const std::byte* row) { return bytes_at(row, 16, 12); }));
  EXPECT_EQ(read.tensors.at("user/embeddings.slots.m").bytes,
            by_id(users, [](const std::byte* row) { return bytes_at(row, 28, 12); }));
  EXPECT_EQ(read.tensors.at("user/embeddings.slots.n").shape, std::vector<std::int64_t>{201});
  EXPECT_EQ(read.tensors.at("user/embeddings.slots.n").bytes,
            by_id(users, [](const std::byte* row) { return bytes_at(row, 40, 4); }));
  EXPECT_EQ(read.tensors.at("user/embeddings.count").bytes,
            by_id(users, [](const std::byte* row) { return bytes_at(row, 12, 4) + std::string(4, '\0'); }));
  EXPECT_EQ(read.tensors.at("user/embeddings.last").dtype, "I64");
  EXPECT_EQ(read.tensors.at("item/embeddings.values").dtype, "F64");
  EXPECT_TRUE(read.tensors.contains("w"));
  EXPECT_FALSE(read.tensors.contains("user/embeddings"));
}

TEST(TableExport, LittleMemoryTakesMorePasses) {
  const TableModel model = two_tables(3);
  SavedTables saved(model, 2);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  for (const std::size_t most : {std::size_t{0}, std::size_t{100}, std::size_t{1} << 20}) {
    TableTensors tensors(reader, "user/embeddings", ExportSlots::include, most);
    const Slice first = Slice::from_spec("200 3 0,7:0,3"), later = Slice::from_spec("200 3 150,50:0,3");
    for (const Slice& piece : {first, later, first}) {
      std::string out(static_cast<std::size_t>(piece.n_elements()) * 4, '?');
      tensors.read(1, piece, std::as_writable_bytes(std::span(out)));
      const std::string all =
          by_id(model.tables[0], [](const std::byte* row) { return bytes_at(row, 16, 12); });
      EXPECT_EQ(out, all.substr(static_cast<std::size_t>(piece.linear_begin()) * 4, out.size()));
    }
  }
}

TEST(TableExport, TensorFlowHasNoPlaceForIt) {
  SavedTables saved(two_tables(3), 2);
  EXPECT_EQ(
      error_of([&] { export_to(saved.fs, saved.path, saved.dir / "m.ckpt"); }),
      "checkpoint: checkpoint " + saved.path +
          " has the table \"user/embeddings\", for whose rows a TensorFlow bundle has no place; export it as "
          "npz or safetensors");
}

TEST(TableExport, NamesMayNotCollide) {
  TableModel model = two_tables(3);
  SavedTables saved({{testing::make_variable("item/embeddings.ids", DType::float32, {2})}, model.tables, 3},
                    1);
  EXPECT_EQ(error_of([&] { export_to(saved.fs, saved.path, saved.dir / "m.npz"); }),
            "checkpoint: both a variable and a tensor of table \"item/embeddings\" would be named "
            "\"item/embeddings.ids\"");
}

// --- import ---

Imported import_from(Fs& fs, const std::string& file, const std::string& dir, ImportPlan plan = {}) {
  plan.program_version = "0.1.0";
  plan.slots = {"m"};
  return import_checkpoint(fs, file, dir, exchange_format(file, ""), plan);
}

TEST(TableImport, WhatWasExportedComesBack) {
  TableModel model = two_tables(3);
  model.tables[0].variable.table->parts = model.tables[1].variable.table->parts = 1024;
  SavedTables saved({{model.dense.table[0]}, model.tables, 3}, 2);
  const Digest hash = values_hash_of(load_manifest(saved.fs, saved.path).manifest);
  for (const char* name : {"m.npz", "m.safetensors"}) {
    TempDir dir;
    export_to(saved.fs, saved.path, dir / name);
    const Imported imported = import_from(saved.fs, dir / name, dir / "c");
    EXPECT_EQ(imported.n_variables, 3U);
    EXPECT_EQ(imported.n_slots_found, 3) << "m of w, and m and n of users";
    EXPECT_EQ(imported.values_hash, hash);
    EXPECT_THAT(verify_checkpoint(saved.fs, imported.path), IsEmpty());
    EXPECT_EQ(diff(saved.fs, saved.path, imported.path, 0).find("different"), std::string::npos);
    CheckpointReader reader = CheckpointReader::open(saved.fs, imported.path);
    EXPECT_EQ(reader.table("user/embeddings").spec.ids, IdType::int64);
    EXPECT_EQ(reader.table("item/embeddings").spec.ids, IdType::uint64);
  }
}

TEST(TableImport, ANewTableIsEmpty) {
  TableRows empty(testing::make_table("e", DType::float32, 3, {}), {});
  SavedTables saved({{testing::make_variable("w", DType::float32, {2})}, {empty}, 3}, 1);
  export_to(saved.fs, saved.path, saved.dir / "m.npz");
  const Imported imported = import_from(saved.fs, saved.dir / "m.npz", saved.dir / "c");
  EXPECT_EQ(imported.values_hash, values_hash_of(load_manifest(saved.fs, saved.path).manifest));
  EXPECT_EQ(load_manifest(saved.fs, imported.path).manifest.tables.size(), 1U);
}

// Tensors of a file, in memory.
class MemorySource : public TensorSource {
 public:
  template <class T>
  void add(const std::string& name, const Shape& shape, const std::vector<T>& values,
           bool is_unsigned = false) {
    tensors_.push_back({name, dtype_of<T>(), shape, is_unsigned});
    bytes_.emplace_back(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  void read(std::size_t tensor, const Slice& piece, std::span<std::byte> out) override {
    const std::size_t begin =
        static_cast<std::size_t>(piece.linear_begin()) * size_of(tensors_[tensor].dtype);
    std::memcpy(out.data(), bytes_[tensor].data() + begin, out.size());
  }

 private:
  std::vector<NamedTensor> tensors_;
  std::vector<std::string> bytes_;
};

// A file with a table "t", two float32 units.
struct TableFile {
  TempDir dir;
  PosixFs fs;
  std::vector<std::int64_t> ids = {9, -5, 1'000'000, 0};
  std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<std::int64_t> last = {1, 2, 3, 4294967295};
  Shape shape_of_values{4, 2}, shape_of_last{4};
  bool is_unsigned = false;

  std::string import(const ImportPlan& plan = {}) {
    MemorySource source;
    source.add("t.ids", {static_cast<std::int64_t>(ids.size())}, ids, is_unsigned);
    source.add("t.values", shape_of_values, values);
    source.add("t.last", shape_of_last, last);
    write_exchange_file(fs, dir / "t.npz", ExchangeFormat::npz, source, {});
    return error_of([&] { import_from(fs, dir / "t.npz", dir / "c", plan); });
  }
  std::string words(const std::string& what) const {
    return "data: " + (dir / "t.npz") + ": table \"t\": " + what;
  }
};

TEST(TableImport, TakesIdsInAnyOrder) {
  TableFile file;
  ASSERT_EQ(file.import(), "no error");
  CheckpointReader reader = CheckpointReader::open(file.fs, file.dir / "c/step-000000000");
  VariableSpec t = testing::make_table("t", DType::float32, 2, {});
  CheckpointRows lookup(reader, t, {});
  std::vector<float> out(8);
  lookup.read(std::vector<std::uint64_t>{0, 9, static_cast<std::uint64_t>(-5), 1'000'000},
              reinterpret_cast<std::byte*>(out.data()));
  EXPECT_THAT(out, ::testing::ElementsAre(7, 8, 1, 2, 3, 4, 5, 6));
  std::vector<std::byte> rows;
  reader.read_rows("t", row_part(mix_row_id(0), 1024), rows);
  EXPECT_EQ(RowLayout::last_of(rows.data()), 4294967295U);
  EXPECT_EQ(RowLayout::count_of(rows.data()), 0U);
}

TEST(TableImport, SaysWhatIsWrong) {
  {
    TableFile file;
    file.ids[3] = -5;
    EXPECT_EQ(file.import(), file.words("the id -5 is there twice, in rows 1 and 3"));
    file.is_unsigned = true;
    EXPECT_EQ(file.import(), file.words("the id 18446744073709551611 is there twice, in rows 1 and 3"));
    EXPECT_FALSE(file.fs.exists(file.dir / "c/step-000000000"));
  }
  {
    TableFile file;
    file.shape_of_values = {2, 4};
    EXPECT_EQ(file.import(),
              file.words("\"t.values\" is float32 [2, 4], but \"t.ids\" is int64 [4]: there must be "
                         "a row for each id"));
  }
  {
    TableFile file;
    file.values[3] = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(file.import(), file.words("row -5 has -inf in column 1"));
    file.values[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(file.import(), file.words("row -5 has nan in column 1"));
    EXPECT_FALSE(file.fs.exists(file.dir / "c/step-000000000"));
  }
  {
    TableFile file;
    file.last[0] = 4294967296;
    EXPECT_EQ(file.import(), file.words("row 9 has the last step 4294967296"));
    file.shape_of_last = {2, 2};
    EXPECT_EQ(file.import(), file.words("\"t.last\" is int64 [2, 2], but must be int64 [4]"));
  }
}

TEST(TableImport, SlotsMustFitTheValues) {
  MemorySource source;
  source.add<std::int64_t>("t.ids", {2}, {1, 2});
  source.add<float>("t.values", {2, 3}, {1, 2, 3, 4, 5, 6});
  source.add<float>("t.slots.m", {2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(
      error_of([&] { ImportedTable(source, "f", "t", ImportedTable::find(source.tensors()).at("t"), {}); }),
      "data: f: table \"t\": \"t.slots.m\" is float32 [2, 2], but as a slot beside \"t.values\" is float32 "
      "[2, 3] it must be [2, 3] or [2] of that type");
}

// However little memory there is for records, they are the same.
TEST(TableImport, LittleMemoryTakesMorePasses) {
  const TableModel model = two_tables(3);
  SavedTables saved(model, 1);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  CheckpointSource source(reader, ExportSlots::include);
  const auto tables = ImportedTable::find(source.tensors());
  ASSERT_EQ(tables.size(), 2U);
  for (const std::size_t most : {std::size_t{0}, std::size_t{1000}, std::size_t{1} << 20}) {
    ImportedTable table(source, "f", "user/embeddings", tables.at("user/embeddings"), {IdType::int64, 16},
                        most);
    EXPECT_EQ(table.row_file_table().layout, model.tables[0].layout);
    std::vector<std::byte> rows;
    for (int part = 0; part < 16; ++part) {
      table.read_part(part, rows);
      EXPECT_EQ(rows, model.tables[0].part(part)) << part;
    }
  }
}

TEST(TableImport, IdsOfStringsAreNamed) {
  TableFile file;
  file.is_unsigned = true;
  ImportPlan plan;
  plan.string_ids = {"t"};
  ASSERT_EQ(file.import(plan), "no error");
  EXPECT_EQ(load_manifest(file.fs, file.dir / "c/step-000000000").manifest.tables[0].spec.ids,
            IdType::string);
  plan.string_ids = {"u"};
  EXPECT_EQ(file.import(plan),
            "config: " + (file.dir / "t.npz") + " has no table \"u\" whose ids could be those of strings");
}

TEST(TableImport, UnsignedNumbersAreIdsOnly) {
  TempDir dir;
  PosixFs fs;
  MemorySource source;
  source.add<std::int64_t>("t.ids", {1}, {7}, true);
  for (const char* name : {"t.npz", "t.safetensors"}) {
    write_exchange_file(fs, dir / name, exchange_format(name, ""), source, {});
    EXPECT_EQ(
        error_of([&] { import_from(fs, dir / name, dir / "c"); }),
        "checkpoint: " + (dir / name) +
            ": tensor \"t.ids\" is of dtype uint64, which varscope has as a table's ids only, and there is no "
            "\"t.values\" beside it; save it as another one, or leave it out");
  }
}

TEST(TableImport, RefusesIdsAndValuesThatAreNoTable) {
  const TempDir dir;
  PosixFs fs;
  const auto error = [&](auto ids, const Shape& shape) {
    MemorySource source;
    source.add("t.ids", shape, std::vector<decltype(ids)>{ids, ids});
    source.add<float>("t.values", {2, 1}, {1, 2});
    write_exchange_file(fs, dir / "t.npz", ExchangeFormat::npz, source, {});
    return error_of([&] { import_from(fs, dir / "t.npz", dir / "c"); });
  };
  const std::string rest =
      " and \"t.values\" float32 [2, 1]: the ids of a table are int64 or uint64 [n], its values float32 or float64 "
      "[n, units]; save them so, or under names that do not end in .ids and .values";
  EXPECT_EQ(error(std::int32_t{7}, {2}), "data: " + (dir / "t.npz") + ": \"t.ids\" is int32 [2]" + rest);
  EXPECT_EQ(error(7.0F, {2}), "data: " + (dir / "t.npz") + ": \"t.ids\" is float32 [2]" + rest);
  EXPECT_EQ(error(std::int64_t{7}, {2, 1}),
            "data: " + (dir / "t.npz") + ": \"t.ids\" is int64 [2, 1]" + rest);
  EXPECT_FALSE(fs.exists(dir / "c/step-000000000"));
}

TEST(TableImport, WarnsOfHalfATable) {
  const TempDir dir;
  PosixFs fs;
  MemorySource source;
  source.add<std::int64_t>("a.ids", {1}, {7});
  source.add<float>("b.values", {1, 1}, {1});
  write_exchange_file(fs, dir / "t.npz", ExchangeFormat::npz, source, {});
  EXPECT_THAT(
      import_from(fs, dir / "t.npz", dir / "c").warnings,
      ::testing::ElementsAre(
          "tensor \"a.ids\" is imported as a variable; of a table it would need \"a.values\" beside it",
          "tensor \"b.values\" is imported as a variable; of a table it would need \"b.ids\" beside it"));
}

TEST(TableImport, TakesStringsForUnsignedIdsOnly) {
  TableFile file;
  ImportPlan plan;
  plan.string_ids = {"t"};
  EXPECT_EQ(file.import(plan), "config: --string-ids t: its ids in " + (file.dir / "t.npz") +
                                   " are int64, not the uint64 hashes of strings; leave it out");
  file.is_unsigned = true;
  EXPECT_EQ(file.import(plan), "no error");
}

// --- restore, warm start, Saver ---

TEST(TableRestorePlan, ReportsAllDifferencesAtOnce) {
  const TableModel model = two_tables(3);
  SavedTables saved(model, 1);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  const RowSlots slots = {{"user/embeddings", model.tables[0].layout.slots()}, {"item/embeddings", {}}};
  reader.check_model(model.dense.table, {"m"}, "momentum", slots);
  VariableSpec users = model.tables[0].variable;
  users.shape = Shape{0, 8};
  users.table = TableSpec{IdType::string, 32};
  users.dtype = DType::float64;
  const VariableTable wanted({model.dense.table[0], users,
                              testing::make_variable("item/embeddings", DType::float64, {5, 2}),
                              testing::make_table("new", DType::float32, 4, {})});
  EXPECT_EQ(
      error_of([&] {
        reader.check_model(wanted, {"m"}, "momentum", {{"user/embeddings", {{"accumulator", 8}}}});
      }),
      "checkpoint: checkpoint " + saved.path +
          " does not fit the model (7 differences):\n"
          "  table \"user/embeddings\" has 16 parts in the checkpoint and 32 in the model\n"
          "  table \"user/embeddings\" has rows with the slots m [3], n [1] in the checkpoint and with the slot "
          "accumulator [8] in the job\n"
          "  table \"user/embeddings\" has 3 units in the checkpoint and 8 in the model\n"
          "  table \"user/embeddings\" has int64 ids in the checkpoint and string in the model\n"
          "  table \"user/embeddings\" is float32 in the checkpoint and float64 in the model\n"
          "  variable \"item/embeddings\" is a table in the checkpoint and no table in the model\n"
          "  table \"new\" float32 of 4 units, int64 ids is missing in the checkpoint\n"
          "nothing was restored; use the config it was made with, or start without resuming");
  // Parts do not matter where only values are wanted.
  users = model.tables[0].variable;
  users.table->parts = 2;
  EXPECT_THAT(plan_values(reader.manifest(), VariableTable({users})).conflicts, IsEmpty());
}

TEST(TableRestorePlan, TellsWhatMayChangeApart) {
  const TableModel model = two_tables(3);
  SavedTables saved(model, 1);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  VariableSpec users = model.tables[0].variable;
  users.table->expire_steps = 9;
  users.table->max_rows = 65536;
  users.table->when_full = WhenFull::lru;
  users.table->absent = AbsentRows::zeros;
  const auto plan = [&] {
    return plan_restore(reader.manifest(),
                        VariableTable({model.dense.table[0], users, model.tables[1].variable}), {"m"},
                        "momentum");
  };
  EXPECT_THAT(plan().conflicts, IsEmpty());
  EXPECT_THAT(plan().changes,
              ::testing::ElementsAre(
                  "table \"user/embeddings\": expire_steps is off in the checkpoint and 9 in the model",
                  "table \"user/embeddings\": max_rows is off in the checkpoint and 65536 in the model",
                  "table \"user/embeddings\": when_full is error in the checkpoint and lru in the model",
                  "table \"user/embeddings\": absent is initial in the checkpoint and zeros in the model"));
  users.table->entry = 2;
  users.table->max_waiting = 256;
  EXPECT_THAT(
      plan().conflicts,
      ::testing::ElementsAre("table \"user/embeddings\" has entry 1 in the checkpoint and 2 in the model"));
  EXPECT_THAT(plan().changes,
              ::testing::Contains(
                  "table \"user/embeddings\": max_waiting is off in the checkpoint and 256 in the model"));
}

TEST(TableWarmStart, TakesTablesOfTheSameIdsAndUnits) {
  const TableModel model = two_tables(3);
  SavedTables saved(model, 1);
  const Manifest m = load_manifest(saved.fs, saved.path).manifest;
  VariableSpec users = model.tables[0].variable;
  users.name = "people";
  users.table->parts = 8;
  const AssignmentMap map(std::vector<AssignmentMap::Entry>{{"user/embeddings", "people"}});
  const WarmStart start("c", m, VariableTable({users}), map);
  ASSERT_TRUE(start.saved_as(users));
  EXPECT_EQ(start.saved_as(users)->name, "user/embeddings");
  users.table->ids = IdType::uint64;
  users.shape = Shape{0, 4};
  EXPECT_THAT(
      error_of([&] { WarmStart("c", m, VariableTable({users}), map); }),
      HasSubstr("variable \"user/embeddings\" for \"people\" has int64 ids in the checkpoint and uint64 in "
                "the model, and has 3 units in the checkpoint and 4 in the model\nnothing was "));
}

TEST(TableSaver, HasNoRows) {
  VariableStore store;
  VariableOptions options;
  options.table = TableSpec{};
  options.rows_are_units = true;
  const Variable& t = store.get_variable("t", Shape{0, 3}, options);
  const auto no_values = [](const Variable&) { return TensorView(); };
  TempDir dir;
  const std::string words =
      "is a table, whose rows a saver does not have; save it by a job, and give the saver the other variables";
  Saver all(store, no_values);
  EXPECT_THAT(error_of([&] { all.save(dir / "c", 1); }), HasSubstr(words));
  const Variable* one = &t;
  EXPECT_THAT(error_of([&] { Saver(std::span(&one, 1), no_values); }), HasSubstr("argument: variable \"t\""));
}

}  // namespace
}  // namespace varscope
