// Checkpoints with sparse tables: the manifest of format 3, reading, damage, what a job restores.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include <nlohmann/json.hpp>

#include "checkpoint/restore/checkpoint_rows.h"
#include "checkpoint/restore/restore_rows.h"
#include "common/base/serialize.h"
#include "common/files/little_endian.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/table_fixture.h"

namespace varscope {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::MemoryFs;
using testing::SavedTables;
using testing::TableModel;
using testing::TableRows;
using testing::TempDir;
using testing::two_tables;

// A whole manifest, as commit() would complete it.
Manifest manifest_of(const TableModel& model, int servers = 2) {
  TempDir dir;
  PosixFs fs;
  Manifest m = testing::make_manifest(model.dense, 7, servers);
  m.id = "id-7";
  for (int s = 0; s < servers; ++s)
    add_report(m, testing::write_part(fs, dir.path(), model, 7, s, servers, m.id));
  m.values_hash = values_hash_1_of(m);
  return m;
}

TEST(TableManifest, RoundTripsAsFormat3) {
  const Manifest m = manifest_of(two_tables(1), 3);
  const std::string bytes = encode_manifest(m);
  EXPECT_EQ(get_le<std::uint16_t>(bytes, 8), 3U) << "older programs refuse it";
  EXPECT_EQ(get_le<std::uint16_t>(bytes, 10), 0U);
  EXPECT_EQ(bytes.substr(12, 6), std::string("0.1.0\0", 6));
  const Manifest back = decode_manifest(bytes, "M");
  EXPECT_EQ(encode_manifest(back), bytes);
  EXPECT_EQ(back.tables, m.tables);
  EXPECT_EQ(back.row_parts, m.row_parts);
  EXPECT_EQ(back.variables.digest(), m.variables.digest()) << "with its tables";
  EXPECT_EQ(row_layout_of(back, back.tables[0]), two_tables(1).tables[0].layout);
}

TEST(TableManifest, WithoutTablesNothingIsNew) {
  const testing::Model model = testing::small_model(1);
  Manifest m = testing::make_manifest(model, 7, 1);
  TempDir dir;
  PosixFs fs;
  add_report(m, testing::write_part(fs, dir.path(), model, 7, 0, 1, "id"));
  m.values_hash = values_hash_1_of(m);
  const std::string bytes = encode_manifest(m);
  EXPECT_EQ(get_le<std::uint16_t>(bytes, 8), 1U);
  EXPECT_EQ(get_le<std::uint16_t>(bytes, 10), 2U);
  EXPECT_THAT(to_json(m), ::testing::Not(HasSubstr("\"tables\"")));
  // Nothing follows what is not finite. That all bytes are as before: CheckpointFixture of format 1.2.
  m.not_finite = {{"hidden/weights", "", 1, 17, "nan"}};
  EXPECT_TRUE(std::string(open_envelope(kManifestMagic, encode_manifest(m), "M")).ends_with(" 1 17 3 nan\n"));
}

TEST(TableManifest, HashDependsOnTheRowsOnly) {
  const Digest one = values_hash_of(manifest_of(two_tables(1), 1));
  EXPECT_EQ(one, testing::values_hash_of(two_tables(1)));
  EXPECT_EQ(values_hash_of(manifest_of(two_tables(1), 5)), one);
  TableModel other = two_tables(1);
  other.tables[0].set(RowLayout::id_of(other.tables[0].rows.begin()->second.data()), 0, 1.5F);
  EXPECT_NE(values_hash_of(manifest_of(other, 1)), one);
  other = two_tables(1);
  other.tables[0].set(RowLayout::id_of(other.tables[0].rows.begin()->second.data()), 3, 1.5F);
  EXPECT_EQ(values_hash_of(manifest_of(other, 1)), one) << "slots are no values";
}

TEST(TableManifest, ReportSurvivesTheNetwork) {
  TempDir dir;
  PosixFs fs;
  const ShardReport report = testing::write_part(fs, dir.path(), two_tables(1), 7, 1, 2, "id");
  const auto back = from_binary<ShardReport>(to_binary(report), "a report");
  EXPECT_EQ(back.row_files, report.row_files);
  EXPECT_EQ(back.tables, report.tables);
  EXPECT_EQ(back.row_parts, report.row_parts);
}

TEST(TableManifest, RefusesReportsThatDisagree) {
  TempDir dir;
  PosixFs fs;
  Manifest m = testing::make_manifest(two_tables(1).dense, 7, 3);
  m.id = "id-7";
  add_report(m, testing::write_part(fs, dir.path(), two_tables(1), 7, 0, 3, m.id));
  ShardReport other = testing::write_part(fs, dir.path(), two_tables(1), 7, 1, 3, m.id);
  other.tables[0].spec.parts = 8;
  EXPECT_EQ(error_of([&] { add_report(m, other); }),
            "checkpoint: checkpoint id-7: server 1 has other tables than another one");
  ShardReport none = testing::write_part(fs, dir.path(), two_tables(1), 7, 2, 3, m.id);
  none.row_files.clear();
  EXPECT_EQ(error_of([&] { add_report(m, none); }),
            "checkpoint: checkpoint id-7: server 2 reports no rows, but another one does");
}

TEST(TableManifest, JsonSumsTheParts) {
  const TableModel model = two_tables(1);
  const auto json = nlohmann::json::parse(to_json(manifest_of(model, 2)));
  EXPECT_EQ(json["format"], "3.0");
  ASSERT_EQ(json["tables"].size(), 2U);
  const auto& t = json["tables"][0];
  EXPECT_EQ(t["variable"], "user/embeddings");
  EXPECT_EQ(t["ids"], "int64");
  EXPECT_EQ(t["parts"], 16);
  EXPECT_EQ(t["rows"], 200);
  EXPECT_EQ(t["bytes"], 200 * 48);
  EXPECT_EQ(t["row_bytes"], 48);
  EXPECT_EQ(t["slots"][1]["name"], "n");
  EXPECT_EQ(t["slots"][1]["elements"], 1);
  ASSERT_EQ(t["files"].size(), 2U);
  EXPECT_EQ(t["files"][0]["rows"].get<int>() + t["files"][1]["rows"].get<int>(), 200);
  EXPECT_EQ(t["files"][1]["file"], "rows-00001-of-00002.bin");
}

TEST(TableManifest, SaysWhichRowIsNotFinite) {
  TableModel model = two_tables(1);
  TableRows& users = model.tables[0];
  users.add(static_cast<std::uint64_t>(-5));
  users.set(static_cast<std::uint64_t>(-5), 1, std::numeric_limits<float>::quiet_NaN());
  const Manifest m = manifest_of(model, 1);
  EXPECT_EQ(not_finite_text(m), "nan in user/embeddings (1 element, from row -5 on)");
  EXPECT_EQ(nlohmann::json::parse(to_json(m))["not_finite"][0]["first_row"], "-5");
  // The first is the same however many servers there are.
  for (const auto& [mixed, row] : users.rows) {
    if (mixed % 7 == 0) users.set(RowLayout::id_of(row.data()), 6, std::numeric_limits<float>::infinity());
  }
  const std::string words = not_finite_text(manifest_of(model, 1));
  EXPECT_THAT(words, HasSubstr("inf in user/embeddings slot n ("));
  for (const int servers : {2, 3, 5}) EXPECT_EQ(not_finite_text(manifest_of(model, servers)), words);
}

// What decode says of a manifest whose fields `change` has changed, all hashes right.
std::string refused(const std::function<void(Manifest&)>& change) {
  static const Manifest good = manifest_of(two_tables(1), 2);
  Manifest m = good;
  change(m);
  m.values_hash = values_hash_1_of(m);
  return error_of([&] { decode_manifest(encode_manifest(m), "M"); });
}

TEST(TableManifest, IsCheckedAsTheRest) {
  const auto set_specs = [](Manifest& m) {
    for (const TableRecord& t : m.tables) m.variables.set_tables({{t.variable, t.spec}});
  };
  EXPECT_EQ(refused([](Manifest&) {}), "no error");
  EXPECT_EQ(
      refused([](Manifest& m) { m.tables.pop_back(); }),
      "checkpoint: M has the variable \"item/embeddings\" of shape [0, 2] without saying what table it is");
  EXPECT_EQ(refused([](Manifest& m) { m.tables.push_back(m.tables[0]); }),
            "checkpoint: M has the table \"user/embeddings\" twice");
  EXPECT_EQ(refused([](Manifest& m) { m.tables[0].variable = "w"; }),
            "checkpoint: M cannot be read: table \"w\" is no variable of shape [0, units]");
  EXPECT_EQ(
      refused([&](Manifest& m) {
        m.tables[0].spec.parts = 3;
        set_specs(m);
      }),
      "checkpoint: M has the table \"user/embeddings\": a table has 3 parts, but they must be a power of "
      "two, 1 to 1048576");
  EXPECT_THAT(refused([](Manifest& m) { m.tables[0].spec.ids = static_cast<IdType>(9); }),
              HasSubstr("a table's ids are of unknown type 9"));
  EXPECT_EQ(
      refused([](Manifest& m) { m.tables[0].slots[0].n_elements = 2; }),
      "checkpoint: M has the slot \"m\" of 2 elements in the rows of table \"user/embeddings\", which has "
      "3 units");
  EXPECT_THAT(refused([](Manifest& m) { m.tables[0].slots[0].name = "n"; }), HasSubstr("has the slot \"n\""));
  EXPECT_EQ(refused([](Manifest& m) { m.row_parts[1] = m.row_parts[0]; }).substr(0, 54),
            "checkpoint: M has part " + std::to_string(manifest_of(two_tables(1), 2).row_parts[0].part) +
                " of table \"user/embeddings\" tw");
  EXPECT_EQ(refused([](Manifest& m) { m.row_parts[0].part = 16; }),
            "checkpoint: M has part 16 of table \"user/embeddings\", which has 16 parts");
  EXPECT_THAT(refused([](Manifest& m) { m.row_parts[0].part = -1; }), HasSubstr("has part -1 of table"));
  EXPECT_EQ(refused([](Manifest& m) { m.row_parts[0].variable = "w"; }),
            "checkpoint: M has rows of the unknown table \"w\"");
  EXPECT_THAT(refused([](Manifest& m) { m.row_parts[0].pieces[0].file = 77; }),
              HasSubstr("into file 77 of "));
  EXPECT_THAT(refused([](Manifest& m) { m.row_parts[0].pieces[0].file = 0; }),
              HasSubstr("into shard-00000-of-00002.safetensors, which is no file of rows"));
  EXPECT_THAT(refused([](Manifest& m) { ++m.row_parts[0].n_rows; }),
              HasSubstr(" rows and 0 waiting ids of "));
  EXPECT_THAT(refused([](Manifest& m) { --m.row_parts[0].pieces[0].end; }), HasSubstr(" rows of 48"));
  EXPECT_THAT(refused([](Manifest& m) { m.row_parts[0].pieces[0].end = ~std::uint64_t{0}; }),
              HasSubstr("at bytes ["));
  EXPECT_EQ(refused([](Manifest& m) {
              m.row_parts[1].pieces[0].begin -= 48;
              m.row_parts[1].pieces[0].end -= 48;
            }),
            "checkpoint: M puts \"user/embeddings\" and \"user/embeddings\" into the same bytes of "
            "rows-00000-of-00002.bin");
  EXPECT_EQ(refused([](Manifest& m) { m.files[1].name = "rows-00007-of-00009.bin"; }),
            "checkpoint: M has no rows-00000-of-00002.bin");
  EXPECT_EQ(refused([](Manifest& m) {
              m.tables.clear();
              m.row_parts.clear();
            }),
            "checkpoint: M is of format 3.0 and has 0 tables");
  EXPECT_THAT(refused([](Manifest& m) {
                m.not_finite = {{"user/embeddings", "", 601, 3, "nan"}};
              }),
              HasSubstr("says of \"user/embeddings\" slot \"\" that 601 elements"));
  EXPECT_EQ(refused([](Manifest& m) {
              m.not_finite = {{"user/embeddings", "n", 200, -3, "nan"}};
            }),
            "no error");
}

class TableCheckpoint : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Servers, TableCheckpoint, ::testing::Values(1, 2, 3));

TEST_P(TableCheckpoint, ReadsWhatWasWritten) {
  const TableModel model = two_tables(3);
  const SavedTables saved(model, GetParam());
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  testing::expect_rows(reader, model);
  testing::expect_box(reader, model.dense, "w", "m", testing::whole({4, 3}));
  EXPECT_EQ(reader.values_hash(), testing::values_hash_of(model));
  EXPECT_THAT(reader.verify(), ::testing::IsEmpty());
  EXPECT_EQ(reader.table("item/embeddings").spec, (TableSpec{IdType::uint64, 1}));
}

// What servers of another number take: all rows, each once.
TEST_P(TableCheckpoint, IsRestoredByAnyServers) {
  const TableModel model = two_tables(3);
  const SavedTables saved(model, GetParam());
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  for (const int servers : {1, 2, 5, 20}) {
    const RowPlan plan = RowPlan::make(model.dense.table, servers);
    for (const RowPlan::Table& table : plan.tables()) {
      const TableRows& due = model.tables[static_cast<std::size_t>(table.id.value)];
      std::map<int, std::vector<std::byte>> parts;
      for (const ServerId server : IdRange<ServerId>(servers)) {
        restore_rows(reader, table, table.name, server, [&](int part, const PartRows& rows) {
          EXPECT_EQ(table.owner[static_cast<std::size_t>(part)], server);
          EXPECT_TRUE(parts.emplace(part, rows.rows).second);
        });
      }
      for (const auto& [part, rows] : parts) EXPECT_EQ(rows, due.part(part));
      std::size_t n = 0;
      for (const auto& [part, rows] : parts) n += rows.size() / due.layout.row_bytes();
      EXPECT_EQ(n, due.rows.size());
    }
  }
}

// A warm start may have other parts.
TEST_P(TableCheckpoint, ItsValuesGoToAnyParts) {
  const TableModel model = two_tables(3);
  const TableRows& users = model.tables[0];
  const SavedTables saved(model, GetParam());
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  for (const int parts : {1, 4, 16, 256}) {
    VariableSpec wanted = users.variable;
    wanted.table->parts = parts;
    const RowPlan plan = RowPlan::make(VariableTable({wanted}), 3);
    const RowPlan::Table& table = plan[TableId{0}];
    std::map<std::uint64_t, std::vector<std::byte>> values;
    for (const ServerId server : IdRange<ServerId>(3)) {
      restore_row_values(reader, table, users.variable.name, server,
                         [&](std::uint64_t id, const std::byte* v) {
                           EXPECT_EQ(table.server_of(id), server);
                           EXPECT_TRUE(values.emplace(id, std::vector(v, v + 12)).second);
                         });
    }
    ASSERT_EQ(values.size(), users.rows.size());
    for (const auto& [id, v] : values)
      EXPECT_EQ(std::memcmp(users.rows.at(mix_row_id(id)).data() + RowLayout::kValuesAt, v.data(), 12), 0);
  }
}

TEST(RestoreRows, RefusesOtherPartsAndUnits) {
  const TableModel model = two_tables(3);
  const SavedTables saved(model, 1);
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  VariableSpec wanted = model.tables[0].variable;
  wanted.table->parts = 8;
  const RowPlan parts = RowPlan::make(VariableTable({wanted}), 1);
  EXPECT_EQ(error_of([&] { restore_rows(reader, parts[TableId{0}], wanted.name, ServerId{0}, {}); }),
            "checkpoint: table \"user/embeddings\" has 16 parts in checkpoint " + saved.path +
                " and 8 in the model");
  wanted.shape = Shape{0, 5};
  const RowPlan units = RowPlan::make(VariableTable({wanted}), 1);
  EXPECT_EQ(error_of([&] { restore_row_values(reader, units[TableId{0}], wanted.name, ServerId{0}, {}); }),
            "checkpoint: table \"user/embeddings\" has 3 float32 units in checkpoint " + saved.path +
                " and 5 float32 in the model");
  std::vector<std::byte> rows;
  EXPECT_THAT(error_of([&] { reader.read_rows("none", 0, rows); }), HasSubstr("has no table \"none\""));
  EXPECT_EQ(error_of([&] { reader.read_rows(wanted.name, 16, rows); }),
            "argument: part 16 was asked of table \"user/embeddings\", which has 16");
}

TEST(CheckpointRows, GivesValuesAndFirstValues) {
  TableModel model = two_tables(3);
  TableRows& users = model.tables[0];
  for (const std::uint64_t id : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    users.add(id);
    users.set(id, 1, static_cast<float>(id % 1000));
  }
  const SavedTables saved(model, 2);
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  std::vector<std::uint64_t> ids = {5, ~std::uint64_t{0}, 5, 0};
  for (const auto& [mixed, row] : users.rows) ids.insert(ids.begin(), RowLayout::id_of(row.data()));
  const InitialValues first = users.variable.initial_values(42);
  for (const std::size_t most : {std::size_t{1} << 30, std::size_t{1000}, std::size_t{0}}) {
    CheckpointRows lookup(reader, users.variable, {.seed = 42, .most_bytes = most});
    std::vector<float> out(ids.size() * 3);
    for (int round = 0; round < 2; ++round) {
      std::ranges::fill(out, 77.0F);
      lookup.read(ids, reinterpret_cast<std::byte*>(out.data()));
      for (std::size_t i = 0; i < ids.size(); ++i) {
        Tensor due(DType::float32, {3});
        const auto row = users.rows.find(mix_row_id(ids[i]));
        if (row == users.rows.end()) {
          VariableSpec::fill_row(due.view(), first, ids[i]);
        } else {
          std::memcpy(due.view().bytes(), row->second.data() + RowLayout::kValuesAt, 12);
        }
        EXPECT_TRUE(std::ranges::equal(due.as<float>(), std::span(out).subspan(3 * i, 3))) << "id " << ids[i];
      }
    }
    EXPECT_LE(lookup.n_bytes(), std::max<std::size_t>(most, 1000));
    EXPECT_GT(lookup.n_bytes(), 0U);
  }
}

TEST(CheckpointRows, ReadsAPartOnce) {
  const TableModel model = two_tables(3);
  const SavedTables saved(model, 1);
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  CheckpointRows lookup(reader, model.tables[0].variable, {});
  EXPECT_EQ(reader.n_bytes_read(), 0U) << "nothing until it is asked for";
  std::vector<std::uint64_t> ids;
  for (const auto& [mixed, row] : model.tables[0].rows) ids.push_back(RowLayout::id_of(row.data()));
  std::vector<float> out(ids.size() * 3);
  for (int round = 0; round < 3; ++round) lookup.read(ids, reinterpret_cast<std::byte*>(out.data()));
  EXPECT_EQ(reader.n_bytes_read(), 200U * 48);
}

TEST(CheckpointRows, RefusesAnotherTable) {
  const TableModel model = two_tables(3);
  const SavedTables saved(model, 1);
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  VariableSpec wanted = model.tables[0].variable;
  wanted.table->ids = IdType::string;
  EXPECT_EQ(error_of([&] { CheckpointRows(reader, wanted, {}); }),
            "checkpoint: table \"user/embeddings\" of checkpoint " + saved.path +
                " has 3 float32 units and int64 ids, the model's \"user/embeddings\" 3 float32 and string");
  EXPECT_THAT(error_of([&] { CheckpointRows(reader, model.dense.table[0], {.saved_name = wanted.name}); }),
              HasSubstr("the model's \"w\" is no table"));
  EXPECT_THAT(error_of([&] { CheckpointRows(reader, wanted, {.saved_name = "x"}); }),
              HasSubstr("has no table \"x\""));
}

// Two checkpoints in memory, the newer one to be damaged.
class DamagedTables : public ::testing::Test {
 protected:
  void SetUp() override {
    fs.make_dir("/c");
    CheckpointDirectory directory(fs, "/c");
    directory.lock("run");
    older = save(fs, directory, two_tables(1), 4, 2, "id-4");
    newer = save(fs, directory, two_tables(2), 5, 2, "id-5");
  }
  std::string& rows(const std::string& path, int server) {
    return fs.bytes(path + "/" + row_file_name(server, 2));
  }
  void expect_older(const std::string& words) {
    const FoundCheckpoint found = newest_checkpoint(fs, "/c");
    EXPECT_EQ(found.path, older);
    ASSERT_FALSE(found.warnings.empty());
    EXPECT_THAT(found.warnings.back(), HasSubstr("step-000000005 cannot be used: "));
    EXPECT_THAT(found.warnings.back(), HasSubstr(words));
  }
  // Encodes the changed manifest of the newer one anew.
  void change_manifest(const std::function<void(Manifest&)>& change) {
    Manifest m = decode_manifest(fs.bytes(newer + "/MANIFEST"), "M");
    change(m);
    m.values_hash = values_hash_1_of(m);
    fs.bytes(newer + "/MANIFEST") = encode_manifest(m);
  }
  std::string read_all() {
    return error_of([&] {
      CheckpointReader reader = CheckpointReader::open(fs, newer);
      std::vector<std::byte> out;
      for (const TableRecord& t : reader.tables()) {
        for (int p = 0; p < t.spec.parts; ++p) reader.read_rows(t.variable, p, out);
      }
    });
  }
  MemoryFs fs;
  std::string older, newer;
};

TEST_F(DamagedTables, RowFileMissing) {
  fs.remove_all(newer + "/" + row_file_name(1, 2));
  expect_older("rows-00001-of-00002.bin is missing");
}

TEST_F(DamagedTables, RowFileShort) {
  rows(newer, 0).pop_back();
  expect_older("rows-00000-of-00002.bin has ");
}

TEST_F(DamagedTables, RowFileOfAnotherCheckpoint) {
  rows(newer, 0) = rows(older, 0);
  rows(newer, 0).resize(fs.bytes(newer + "/" + row_file_name(0, 2)).size());
  const Manifest m = decode_manifest(fs.bytes(newer + "/MANIFEST"), "M");
  rows(newer, 0).resize(static_cast<std::size_t>(m.files[1].size));
  expect_older("rows-00000-of-00002.bin belongs to checkpoint id-4, not to id-5");
}

TEST_F(DamagedTables, EveryFlippedByteIsFound) {
  const std::string good = rows(newer, 1);
  for (std::size_t at = 0; at < good.size(); at += at < 200 ? 1 : 97) {
    rows(newer, 1)[at] = static_cast<char>(good[at] ^ 4);
    EXPECT_FALSE(verify_checkpoint(fs, newer).empty()) << "byte " << at;
    if (at >= 48) {
      EXPECT_THAT(read_all(), HasSubstr("rows-00001-of-00002.bin is damaged: CRC block 0")) << at;
    }
    rows(newer, 1) = good;
  }
  EXPECT_THAT(verify_checkpoint(fs, newer), ::testing::IsEmpty());
}

// All checksums are right, and the rows are not those that were summed up.
TEST_F(DamagedTables, HashSumDiffers) {
  std::string words;
  change_manifest([&](Manifest& m) {
    RowPartRecord& r = m.row_parts[2];
    const std::string was = r.hash_sum.hex();
    r.hash_sum.bytes[3] ^= 1;
    words = fmt::format("{} is damaged: part {} of table \"{}\" has the hash sum {} instead of {}",
                        m.files[r.pieces[0].file].name, r.part, r.variable, was, r.hash_sum.hex());
  });
  expect_older(words);
  EXPECT_EQ(read_all(), "checkpoint: " + newer + "/" + words);
}

// The digests are those of what is there, which is no table.
TEST_F(DamagedTables, RowsOutOfOrder) {
  std::string& bytes = rows(newer, 0);
  change_manifest([&](Manifest& m) {
    RowPiece& r = m.row_parts[0].pieces[0];
    ASSERT_GE(r.n_rows, 2);
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(r.begin);
    std::swap_ranges(at, at + 48, at + 48);
    r.digest = digest_of(std::string_view(bytes).substr(r.begin, r.end - r.begin));
    m.files[1].digest = digest_of(std::string_view(bytes));
    m.files[1].crc32c = {crc32c(std::as_bytes(std::span(bytes)))};
  });
  expect_older("of table \"user/embeddings\" has row 1 (id ");
  EXPECT_THAT(read_all(), HasSubstr(") out of order"));
}

}  // namespace
}  // namespace varscope
