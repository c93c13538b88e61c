#include "checkpoint/format/row_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <limits>

#include "common/files/little_endian.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/table_fixture.h"

namespace varscope {
namespace {

using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using testing::slurp;
using testing::TableRows;
using testing::TempDir;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

TableRows some_rows(int n, int parts = 4) {
  TableRows t(testing::make_table("u/e", DType::float32, 3, {IdType::int64, parts}), {{"m", 3}, {"n", 1}});
  t.fill(n, 7);
  return t;
}

RowFileReport write(Fs& fs, const std::string& dir, const std::vector<TableRows>& tables) {
  std::vector<RowFileTable> all;
  for (const TableRows& t : tables) all.push_back(t.of_server(0, 1));
  return write_row_file(fs, dir, {0, 1, 5, "id-5"}, all,
                        [&](std::size_t table, int part, PartRows& rows) { tables[table].read(part, rows); });
}
// One part, with these bytes.
std::string words(const TableRows& t, int part, const std::vector<std::byte>& bytes) {
  TempDir dir;
  PosixFs fs;
  const RowFileTable table{t.variable.name, *t.variable.table, t.layout, {part}};
  return error_of([&] {
    write_row_file(fs, dir.path(), {0, 1, 5, "id"}, std::span(&table, 1),
                   [&](std::size_t, int, PartRows& rows) { rows.rows = bytes; });
  });
}

TEST(RowFile, HasAHeaderAndTheRecordsAsTheyAre) {
  TempDir dir;
  PosixFs fs;
  const TableRows t = some_rows(50);
  EXPECT_EQ(t.layout.row_bytes(), 48U);  // 16 + 3 * 4 + 3 * 4 + 4, and 4 of padding
  const RowFileReport report = write(fs, dir.path(), {t});
  EXPECT_EQ(report.files[0].name, "rows-00000-of-00001.bin");
  const std::string bytes = slurp(dir / report.files[0].name);
  EXPECT_EQ(bytes.substr(0, 8), "VSCPROWS");
  EXPECT_EQ(get_le<std::uint32_t>(bytes, 8), 2U);
  EXPECT_EQ(get_le<std::uint32_t>(bytes, 12), 0U);
  EXPECT_EQ(get_le<std::int64_t>(bytes, 16), 5);
  EXPECT_EQ(get_le<std::uint64_t>(bytes, 24), 4U);
  EXPECT_EQ(bytes.substr(32, 8), std::string("id-5\0\0\0\0", 8));
  std::string due;
  for (const auto& [mixed, row] : t.rows) due.append(reinterpret_cast<const char*>(row.data()), row.size());
  EXPECT_EQ(bytes.substr(40), due);
}

TEST(RowFile, ReportDescribesTheFile) {
  TempDir dir;
  PosixFs fs;
  std::vector<TableRows> tables{some_rows(40'000), some_rows(0)};  // 1.8 MiB: two CRC blocks
  tables[1].variable.name = "empty";
  tables[1].add(3);
  const RowFileReport report = write(fs, dir.path(), tables);
  const std::string bytes = slurp(dir / report.files[0].name);
  EXPECT_EQ(report.files[0].size, bytes.size());
  EXPECT_EQ(report.files[0].digest, digest_of(std::string_view(bytes)));
  ASSERT_EQ(report.files[0].crc32c.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string block = bytes.substr(i * kCrcBlockBytes, kCrcBlockBytes);
    EXPECT_EQ(report.files[0].crc32c[i], crc32c(std::as_bytes(std::span(block))));
  }
  ASSERT_EQ(report.tables.size(), 2U);
  EXPECT_EQ(report.tables[0], (TableRecord{"u/e", {IdType::int64, 4}, {{"m", 3}, {"n", 1}}}));
  ASSERT_EQ(report.parts.size(), 5U) << "parts without rows are not there";
  std::uint64_t at = 40;
  for (std::size_t i = 0; i < report.parts.size(); ++i) {
    const RowPartRecord& r = report.parts[i];
    const TableRows& t = tables[i / 4];
    EXPECT_EQ(r.variable, t.variable.name);
    const auto rows = t.part(r.part);
    ASSERT_EQ(r.pieces.size(), 1U);
    EXPECT_EQ(r.pieces[0].begin, at);
    EXPECT_EQ(r.pieces[0].end, at += rows.size());
    EXPECT_EQ(r.n_rows, static_cast<std::int64_t>(rows.size() / t.layout.row_bytes()));
    EXPECT_EQ(r.pieces[0].n_rows, r.n_rows);
    EXPECT_EQ(r.pieces[0].step, 5);
    EXPECT_TRUE(r.pieces[0].is_base());
    EXPECT_EQ(r.pieces[0].digest, digest_of(rows));
    EXPECT_EQ(r.hash_sum, t.sum(r.part).digest());
  }
  EXPECT_EQ(at, bytes.size());
  EXPECT_TRUE(report.not_finite.empty());
}

TEST(RowFile, OfAServerWithoutRowsIsAHeader) {
  TempDir dir;
  PosixFs fs;
  const RowFileReport report = write(fs, dir.path(), {some_rows(0)});
  EXPECT_EQ(report.files[0].size, 40U);
  EXPECT_TRUE(report.parts.empty());
  EXPECT_EQ(report.tables.size(), 1U);
}

TEST(RowFile, OnePartIsReadAtATimeInOrder) {
  TempDir dir;
  PosixFs fs;
  const TableRows t = some_rows(50);
  std::vector<std::pair<std::size_t, int>> calls;
  const std::vector<RowFileTable> tables{t.of_server(0, 1), t.of_server(1, 2)};
  write_row_file(fs, dir.path(), {3, 8, 5, "id"}, tables, [&](std::size_t table, int part, PartRows& rows) {
    EXPECT_TRUE(rows.empty());
    calls.emplace_back(table, part);
    rows.rows = t.part(part);
  });
  std::vector<std::pair<std::size_t, int>> due;
  for (std::size_t i = 0; i < 2; ++i) {
    for (const int part : tables[i].parts) due.emplace_back(i, part);
  }
  EXPECT_EQ(calls, due);
  EXPECT_TRUE(fs.exists(dir / "rows-00003-of-00008.bin"));
}

TEST(RowFile, NamesRowsThatAreNotFinite) {
  TempDir dir;
  PosixFs fs;
  TableRows t = some_rows(50);
  const auto id_at = [&](int n) { return RowLayout::id_of(std::next(t.rows.begin(), n)->second.data()); };
  t.set(id_at(20), 1, kInf);
  t.set(id_at(20), 2, kNaN);
  t.set(id_at(30), 0, kNaN);
  t.set(id_at(40), 6, -kInf);  // slot n
  const std::vector<NotFiniteTensor> due = {{"u/e", "", 3, static_cast<std::int64_t>(id_at(20)), "inf"},
                                            {"u/e", "n", 1, static_cast<std::int64_t>(id_at(40)), "-inf"}};
  EXPECT_EQ(write(fs, dir.path(), {t}).not_finite, due);
}

TEST(RowFile, RefusesRowsThatMakeNoSense) {
  const TableRows t = some_rows(50);
  std::vector<std::byte> rows = t.part(2);
  EXPECT_EQ(words(t, 2, rows), "no error");
  const std::size_t n = t.layout.row_bytes();
  std::vector<std::byte> swapped(rows);
  std::swap_ranges(swapped.begin(), swapped.begin() + static_cast<std::ptrdiff_t>(n),
                   swapped.begin() + static_cast<std::ptrdiff_t>(n));
  const std::string first = id_text(IdType::int64, RowLayout::id_of(rows.data()));
  EXPECT_EQ(words(t, 2, swapped), "argument: part 2 of table \"u/e\" cannot be written: it has row 1 (id " +
                                      first + ") out of order");
  std::vector<std::byte> twice(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(n));
  twice.insert(twice.end(), twice.begin(), twice.begin() + static_cast<std::ptrdiff_t>(n));
  EXPECT_EQ(words(t, 2, twice),
            "argument: part 2 of table \"u/e\" cannot be written: it has row 1 (id " + first + ") twice");
  EXPECT_EQ(words(t, 3, rows),
            "argument: part 3 of table \"u/e\" cannot be written: it has row 0 (id " + first + ") of part 2");
  rows.pop_back();
  EXPECT_EQ(words(t, 2, rows),
            "argument: part 2 of table \"u/e\" cannot be written: it ends with 47 bytes of a row of 48");
}

// However the bytes are cut, what is seen is the same.
TEST(RowFile, RowsAreCheckedAcrossPieces) {
  const TableRows t = some_rows(50, 1);
  const std::vector<std::byte> rows = t.part(0);
  for (const std::size_t piece : {1U, 7U, 47U, 48U, 49U, 100U, 100'000U}) {
    RowsCheck check(t.layout, *t.variable.table, 0, {.n_rows = 50});
    for (std::size_t at = 0; at < rows.size(); at += piece)
      check.add(std::span(rows).subspan(at, std::min(piece, rows.size() - at)));
    EXPECT_EQ(check.problem(), "");
    EXPECT_EQ(check.sum(), t.sum(0));
  }
}

TEST(RowFile, FileOperationsAreThoseOfAShard) {
  TempDir dir;
  PosixFs posix;
  FaultFs fs(posix);
  write(fs, dir.path(), {some_rows(50)});
  const std::string path = dir / "rows-00000-of-00001.bin";
  EXPECT_THAT(fs.log(),
              ::testing::ElementsAre("create " + path, "write " + path, "fsync " + path, "close " + path));
  EXPECT_TRUE(fs.unsynced_files().empty());
  EXPECT_THAT(error_of([&] { write(fs, dir.path(), {some_rows(50)}); }), HasSubstr("File exists"));
}

TEST(RowFile, EveryFailedOperationIsReported) {
  TempDir dir;
  PosixFs posix;
  int n = 0;
  for (const FsOp op : {FsOp::create, FsOp::write, FsOp::sync, FsOp::close}) {
    FaultFs fs(posix);
    fs.fail_nth(op, 1, EIO);
    const std::string sub = dir / std::to_string(n++);
    posix.make_dir(sub);
    EXPECT_EQ(error_of([&] { write(fs, sub, {some_rows(50)}); }),
              std::string("io: cannot ") + to_string(op) + " " + sub +
                  "/rows-00000-of-00001.bin: Input/output error");
    EXPECT_LE(fs.count(FsOp::sync), 1) << "a failed fsync is never retried";
  }
}

TEST(RowFile, IdCanBeReadBackForMessages) {
  TempDir dir;
  PosixFs fs;
  const std::string path = dir / write(fs, dir.path(), {some_rows(3)}).files[0].name;
  const auto header = read_row_file_header(fs, path);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->checkpoint_id, "id-5");
  EXPECT_EQ(header->step, 5);
  EXPECT_EQ(header->version, kRowFileVersion);
  const std::string good = slurp(path);
  std::string long_id = good.substr(0, 40);
  long_id[24] = 9;
  for (const std::string& bytes :
       {std::string(), good.substr(0, 31), "x" + good.substr(1), long_id, std::string(40, '\xff')}) {
    testing::spit(path, bytes);
    EXPECT_FALSE(read_row_file_header(fs, path));
  }
  EXPECT_FALSE(read_row_file_header(fs, dir / "none"));
}

TEST(RowFile, NamesAreFixed) {
  EXPECT_EQ(row_file_name(3, 8), "rows-00003-of-00008.bin");
  EXPECT_EQ(server_of_row_file(row_file_name(123, 456)), 123);
  for (const char* other : {"shard-00003-of-00008.safetensors", "rows-", "rows-x-of-3", "rows--1-of-3"})
    EXPECT_EQ(server_of_row_file(other), -1) << other;
  const std::string linked = linked_row_file_name(3, 8, 12'000);
  EXPECT_EQ(linked, "rows-00003-of-00008.step-000012000.bin");
  EXPECT_EQ(server_of_row_file(linked), 3);
  EXPECT_EQ(step_of_linked_file(linked), 12'000);
  for (const char* other :
       {"rows-00003-of-00008.bin", "rows-00003-of-00008.step-1.bin", "x.step-000012000.bin",
        "rows-00003-of-00008.step-000012000.bin2", "rows-00003-of-00008.step--00012000.bin"})
    EXPECT_EQ(step_of_linked_file(other), -1) << other;
}

}  // namespace
}  // namespace varscope
