// Checkpoints that write what has changed alone: chains of pieces, links, damage, failures.
#include "checkpoint/format/row_chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "checkpoint/restore/verify_once.h"
#include "checkpoint/tools/diff.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/prune.h"
#include "checkpoint/tools/reshard.h"
#include "checkpoint/tools/verify.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/chain_fixture.h"

namespace varscope {
namespace {

using testing::ChainSaver;
using testing::ChangingTables;
using testing::error_of;
using testing::expect_all;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::living_tables;
using testing::MemoryFs;
using testing::slurp;
using testing::TableModel;
using testing::TableRows;
using testing::TempDir;
using Json = nlohmann::json;

// --- merging ---

std::vector<std::byte> some(const TableRows& t, std::initializer_list<std::uint64_t> ids) {
  std::map<std::uint64_t, std::vector<std::byte>> sorted;
  for (const std::uint64_t id : ids) sorted[mix_row_id(id)] = t.rows.at(mix_row_id(id));
  std::vector<std::byte> all;
  for (const auto& [mixed, row] : sorted) all.insert(all.end(), row.begin(), row.end());
  return all;
}

TableRows one_part() { return {testing::make_table("t", DType::float32, 1, {IdType::int64, 1}), {}}; }

TEST(MergePieces, TheNewestThatKnowsAnIdIsRight) {
  TableRows old = one_part(), now = one_part();
  for (const std::uint64_t id : {1U, 2U, 3U, 4U}) old.add(id, 1, 1);
  now.add(2, 5, 7);
  now.add(9, 5, 1);
  now.add_waiting(3, 5, 2);
  std::vector<PartRows> pieces(3);
  pieces[0].rows = some(old, {1, 2, 3, 4});
  pieces[1].rows = some(now, {2, 9});
  PartRows waiting;
  now.read(0, waiting);
  pieces[1].waiting = waiting.waiting;
  pieces[2].removed = {4, 9};
  std::ranges::sort(pieces[2].removed, {}, mix_row_id);
  PartRows out;
  EXPECT_EQ(merge_pieces(old.layout, *old.variable.table, 9, pieces, out), "");
  TableRows due = one_part();
  due.add(1, 1, 1);
  due.add(2, 5, 7);
  EXPECT_EQ(out.rows, some(due, {1, 2}));
  EXPECT_EQ(out.waiting, waiting.waiting) << "a row that left and waits again";
}

TEST(MergePieces, WhatIsExpiredIsNotThere) {
  TableRows t = one_part();
  t.variable.table->expire_steps = 3;
  t.add(1, 4);
  t.add(2, 5);
  for (const std::int64_t step : {7, 8, 9}) {
    std::vector<PartRows> pieces(1);
    pieces[0].rows = some(t, {1, 2});
    PartRows out;
    EXPECT_EQ(merge_pieces(t.layout, *t.variable.table, step, pieces, out), "");
    EXPECT_EQ(out.rows.size() / t.layout.row_bytes(), static_cast<std::size_t>(9 - step)) << step;
  }
}

TEST(MergePieces, AnIdInTwoListsOfOnePieceIsRefused) {
  TableRows t = one_part();
  t.add(static_cast<std::uint64_t>(-7), 4);
  t.add_waiting(static_cast<std::uint64_t>(-7), 4, 1);
  PartRows both, out;
  t.read(0, both);
  for (const std::size_t at : {0U, 1U}) {
    std::vector<PartRows> pieces(2);
    pieces[at] = both;
    EXPECT_EQ(merge_pieces(t.layout, *t.variable.table, 9, pieces, out),
              "has id -7 in two lists of one piece");
  }
}

// --- whole checkpoints ---

// A directory with saves of changes, and one with full saves of the same states.
class RowChain : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    changes.lock("run");
    full.lock("run");
  }
  // Saves steps 1 to n both ways.
  void run(int n, ChainSaver& saver) {
    for (int step = 1; step <= n; ++step) {
      if (step > 1) tables.change(step);
      path = saver.save(tables.model, step);
      ChainSaver whole(fs, full, servers);
      full_path = whole.save(tables.model, step);
    }
  }
  std::size_t longest_chain() {
    const Manifest m = load_manifest(fs, path).manifest;
    return totals_of(m, "user/embeddings").longest_chain;
  }

  const int servers = GetParam();
  TempDir dir, full_dir;
  PosixFs fs;
  CheckpointDirectory changes{fs, dir.path()}, full{fs, full_dir.path()};
  ChangingTables tables{living_tables(1), 1};
  std::string path, full_path;
};
INSTANTIATE_TEST_SUITE_P(Servers, RowChain, ::testing::Values(1, 2, 3));

TEST_P(RowChain, ABaseAndEightChangesAreAFullSave) {
  ChainSaver saver(fs, changes, servers);
  run(9, saver);
  EXPECT_EQ(longest_chain(), 9U);
  CheckpointReader a = CheckpointReader::open(fs, path), b = CheckpointReader::open(fs, full_path);
  expect_all(a, tables.model);
  expect_all(b, tables.model);
  EXPECT_EQ(a.values_hash(), b.values_hash());
  EXPECT_EQ(a.values_hash(), testing::values_hash_of(tables.model));
  EXPECT_THAT(a.verify(), IsEmpty());
  std::string out;
  EXPECT_EQ(diff_tool(fs, path, full_path, ToolFormat::text, out), 0) << out;
  // Written anew, they are the same bytes.
  TempDir anew;
  std::vector<std::string> written;
  for (const std::string& from : {path, full_path}) {
    const std::string to = anew / std::to_string(written.size());
    reshard_tool(fs, from, to, 2, ToolFormat::text, out);
    written.push_back(join_path(to, step_name(9)));
  }
  CheckpointReader again = CheckpointReader::open(fs, written[0]);
  expect_all(again, tables.model);
  EXPECT_EQ(totals_of(again.manifest(), "user/embeddings").longest_chain, 1U);
  for (const int server : {0, 1}) {
    const auto rows = [&](const std::string& from) {
      return slurp(join_path(from, row_file_name(server, 2))).substr(100);  // behind the id
    };
    EXPECT_EQ(rows(written[0]), rows(written[1]));
  }
}

TEST_P(RowChain, EachPieceIsReadOnce) {
  ChainSaver saver(fs, changes, servers);
  run(5, saver);
  CheckpointReader reader = CheckpointReader::open(fs, path);
  PartRows rows;
  std::uint64_t bytes = 0;
  for (const TableRecord& t : reader.tables()) {
    bytes += totals_of(reader.manifest(), t.variable).n_bytes;
    for (int p = 0; p < t.spec.parts; ++p) reader.read_part(t.variable, p, rows);
  }
  EXPECT_EQ(reader.n_bytes_read(), bytes);
}

TEST_P(RowChain, PartsThatAreWrittenWholeAreThoseOfAFullSave) {
  ChainSaver saver(fs, changes, servers);
  run(4, saver);
  saver.n_kept = [](const RowPartRecord& r) { return r.part % 2 == 1 ? r.pieces.size() : 0; };
  tables.change(5);
  path = saver.save(tables.model, 5);
  full_path = ChainSaver(fs, full, servers).save(tables.model, 5);
  const Manifest a = load_manifest(fs, path).manifest, b = load_manifest(fs, full_path).manifest;
  std::map<std::pair<std::string, int>, const RowPartRecord*> due;
  for (const RowPartRecord& r : b.row_parts) due[{r.variable, r.part}] = &r;
  int n = 0;
  for (const RowPartRecord& r : a.row_parts) {
    if (r.part % 2 == 1) continue;
    ASSERT_EQ(r.pieces.size(), 1U);
    EXPECT_EQ(r.pieces[0].digest, due.at({r.variable, r.part})->pieces[0].digest) << "byte by byte";
    ++n;
  }
  EXPECT_GT(n, 4);
}

// A save in which all is whole links nothing.
TEST_P(RowChain, FilesThatNoChainNeedsAreNotThere) {
  ChainSaver saver(fs, changes, servers);
  run(4, saver);
  std::size_t n = 0;
  for (const std::string& name : fs.list(path)) n += step_of_linked_file(name) >= 0 ? 1 : 0;
  EXPECT_EQ(n, static_cast<std::size_t>(3 * servers));
  saver.n_kept = [](const RowPartRecord&) { return std::size_t{0}; };
  tables.change(5);
  path = saver.save(tables.model, 5);
  for (const std::string& name : fs.list(path)) EXPECT_EQ(step_of_linked_file(name), -1) << name;
  EXPECT_EQ(longest_chain(), 1U);
}

TEST_P(RowChain, OlderCheckpointsMayGo) {
  ChainSaver saver(fs, changes, servers);
  for (int step = 1; step <= 6; ++step) {
    if (step > 1) tables.change(step);
    path = saver.save(tables.model, step);
    changes.retain(1);
  }
  EXPECT_EQ(list_checkpoints(fs, dir.path()).size(), 1U);
  EXPECT_THAT(verify_checkpoint(fs, path), IsEmpty());
  CheckpointReader reader = CheckpointReader::open(fs, path);
  expect_all(reader, tables.model);
}

// A model of everything that can happen to an id, over many saves, some of which are whole in some parts.
TEST(RowChains, AnyHistoryIsReadBack) {
  for (unsigned seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    MemoryFs fs;
    fs.make_dir("/c");
    CheckpointDirectory directory(fs, "/c");
    directory.lock("run");
    std::mt19937 random(seed);
    ChangingTables tables(living_tables(seed, 40, seed % 2 == 0 ? 0 : 4), seed);
    ChainSaver saver(fs, directory, 2);
    // All of a chain, or some of it, so that newer pieces are merged; or nothing.
    saver.n_kept = [&](const RowPartRecord& r) {
      const std::size_t n = r.pieces.size();
      return n < 9 && random() % 3 != 0 ? n : random() % n;
    };
    for (int step = 1; step <= 30; ++step) {
      if (step > 1) tables.change(step, static_cast<int>(random() % 20));
      if (random() % 3 == 0) continue;  // no save
      const std::string path = saver.save(tables.model, step);
      EXPECT_THAT(saver.why_not, IsEmpty());
      CheckpointReader reader = CheckpointReader::open(fs, path);
      expect_all(reader, tables.model);
      EXPECT_EQ(reader.values_hash(), testing::values_hash_of(tables.model));
      EXPECT_THAT(reader.verify(), IsEmpty());
      directory.retain(2);
    }
  }
}

TEST(RowChains, ATableWithNumbersThatAreNotFiniteIsWrittenWhole) {
  MemoryFs fs;
  fs.make_dir("/c");
  CheckpointDirectory directory(fs, "/c");
  directory.lock("run");
  ChangingTables tables(living_tables(1), 1);
  TableRows& users = tables.model.tables[0];
  const std::uint64_t id = RowLayout::id_of(users.rows.begin()->second.data());
  users.set(id, 0, std::numeric_limits<float>::infinity());
  ChainSaver saver(fs, directory, 2);
  saver.save(tables.model, 1);
  RowLayout::set_last(users.rows.begin()->second.data(), 2);  // touched, and not finite still
  const Manifest m = load_manifest(fs, saver.save(tables.model, 2)).manifest;
  ASSERT_EQ(m.not_finite.size(), 1U);
  EXPECT_EQ(m.not_finite[0].n_elements, 1);
  EXPECT_EQ(totals_of(m, "item/embeddings").n_bytes, totals_of(m, "item/embeddings").n_rows * 32U);
  for (const RowPartRecord& r : m.row_parts) EXPECT_EQ(r.pieces.size(), 1U) << "nothing else has changed";
}

// --- what fails ---

class FailedChain : public ::testing::Test {
 protected:
  void SetUp() override {
    directory.lock("run");
    saver.save(tables.model, 1);
    tables.change(2);
  }
  void expect_newest(std::int64_t step, const TableModel& model) {
    CheckpointReader reader = CheckpointReader::open(posix, newest_checkpoint(posix, dir.path()).path);
    EXPECT_EQ(reader.manifest().step, step);
    expect_all(reader, model);
  }
  TempDir dir;
  PosixFs posix;
  FaultFs fs{posix};
  CheckpointDirectory directory{fs, dir.path()};
  ChangingTables tables{living_tables(1), 1};
  ChainSaver saver{fs, directory, 2};
};

// Whatever fails, the next save goes on from the same base.
TEST_F(FailedChain, EveryFailedOperationLeavesTheBase) {
  const TableModel base = living_tables(1);
  std::vector<FsOp> ops(testing::kMutatingOps.begin(), testing::kMutatingOps.end());
  ops.push_back(FsOp::link);
  int n_struck = 0;
  for (const FsOp op : ops) {
    for (int n = 1; n < 100; ++n) {
      const int before = fs.struck();
      fs.fail_nth(op, n, EIO);
      const std::string error = error_of([&] { saver.save(tables.model, 2); });
      fs.clear_faults();
      if (fs.struck() == before) break;
      ++n_struck;
      const bool is_there =
          posix.exists(dir / "step-000000002");  // its name's fsync, or something later, failed
      if (error != "no error" && !is_there) {
        expect_newest(1, base);
        EXPECT_THAT(posix.list(dir.path()), ::testing::Not(::testing::Contains(HasSubstr(".tmp-id"))));
      } else {
        expect_newest(2, tables.model);
      }
      posix.remove_all(dir / "step-000000002");
      for (const std::string& name : posix.list(dir.path())) {
        if (name.starts_with(".tmp")) posix.remove_all(dir / name);
      }
      // The base of the saver may be the one that has just been removed.
      saver.reset();
      posix.remove_all(dir / "step-000000001");
      saver.save(base, 1);
    }
  }
  EXPECT_GT(n_struck, 20);
  saver.save(tables.model, 2);
  EXPECT_THAT(saver.why_not, IsEmpty());
  expect_newest(2, tables.model);
}

TEST_F(FailedChain, WithoutLinksAllRowsAreWritten) {
  fs.no_links();
  const std::string path = saver.save(tables.model, 2);
  ASSERT_EQ(saver.why_not.size(), 2U) << "each server";
  EXPECT_EQ(saver.why_not[0], "hard links to the files of " + (dir / "step-000000001") + " cannot be made");
  EXPECT_EQ(totals_of(load_manifest(posix, path).manifest, "user/embeddings").longest_chain, 1U);
  expect_newest(2, tables.model);
}

TEST_F(FailedChain, WithoutItsBaseAllRowsAreWritten) {
  const std::string rows = dir / "step-000000001/rows-00001-of-00002.bin";
  posix.remove_all(rows);
  saver.save(tables.model, 2);
  EXPECT_THAT(saver.why_not, ::testing::ElementsAre(rows + " is missing"));
  expect_newest(2, tables.model);
  testing::spit(dir / "step-000000002/rows-00000-of-00002.bin", "short");
  tables.change(3);
  saver.save(tables.model, 3);
  ASSERT_EQ(saver.why_not.size(), 1U);
  EXPECT_THAT(saver.why_not[0], HasSubstr("step-000000002/rows-00000-of-00002.bin has 5 bytes instead of "));
  expect_newest(3, tables.model);
}

// --- damage ---

class DamagedChain : public ::testing::Test {
 protected:
  void SetUp() override {
    fs.make_dir("/c");
    CheckpointDirectory directory(fs, "/c");
    directory.lock("run");
    ChainSaver(fs, directory, 2).save(tables.model, 1, "id-before");
    ChainSaver saver(fs, directory, 2);
    for (int step = 2; step <= 4; ++step) {
      tables.change(step);
      newest = saver.save(tables.model, step);
    }
  }
  std::string linked(int step) const { return newest + "/" + linked_row_file_name(0, 2, step); }
  // Of both files, which the manifest does not list.
  std::uint64_t bytes_of_manifest(const std::string& path) {
    return fs.bytes(path + "/MANIFEST").size() + fs.bytes(path + "/manifest.json").size();
  }
  std::vector<std::string> warnings() {
    const FoundCheckpoint found = newest_checkpoint(fs, "/c");
    found_path = found.path;
    return found.warnings;
  }
  void change_manifest(const std::function<void(Manifest&)>& change) {
    Manifest m = decode_manifest(fs.bytes(newest + "/MANIFEST"), "M");
    change(m);
    m.values_hash = values_hash_1_of(m);
    fs.bytes(newest + "/MANIFEST") = encode_manifest(m);
  }
  MemoryFs fs;
  ChangingTables tables{living_tables(1), 1};
  std::string newest, found_path;
};

TEST_F(DamagedChain, AllThatLinkADamagedFileAreSkipped) {
  std::string& bytes = fs.bytes(linked(2));
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  const std::vector<std::string> words = warnings();
  EXPECT_EQ(found_path, "/c/step-000000001");
  ASSERT_EQ(words.size(), 3U);
  EXPECT_THAT(words[0],
              HasSubstr("checkpoint step-000000004 cannot be used: rows-00000-of-00002.step-000000002.bin "
                        "is damaged: CRC block 0"));
  EXPECT_THAT(words[0], HasSubstr("(the save of step 2 wrote it)"));
  EXPECT_THAT(words[1],
              HasSubstr("step-000000003 cannot be used: rows-00000-of-00002.step-000000002.bin is the same "
                        "file as /c/step-000000004/rows-00000-of-00002.step-000000002.bin, which is damaged "
                        "(the save of step 2 wrote it)"));
  EXPECT_THAT(words[2],
              HasSubstr("step-000000002 cannot be used: rows-00000-of-00002.bin is the same file as "));
}

TEST_F(DamagedChain, ALinkedFileIsMissingOrShort) {
  fs.remove_all(linked(3));
  EXPECT_THAT(warnings().at(0),
              HasSubstr("rows-00000-of-00002.step-000000003.bin is missing (the save of step 3 wrote it)"));
  EXPECT_EQ(found_path, "/c/step-000000003") << "which has its own name for it";
  fs.bytes("/c/step-000000003/rows-00000-of-00002.bin").pop_back();
  EXPECT_THAT(warnings().back(), HasSubstr("falling back to step-000000002"));
}

TEST_F(DamagedChain, ALinkedFileOfAnotherSave) {
  const std::string other = fs.bytes("/c/step-000000001/rows-00000-of-00002.bin");
  const std::size_t size = fs.bytes(linked(2)).size();
  fs.remove_all(linked(2));
  write_whole_file(fs, linked(2), other);
  fs.bytes(linked(2)).resize(size);
  EXPECT_THAT(warnings().at(0),
              HasSubstr("rows-00000-of-00002.step-000000002.bin belongs to checkpoint id-before, not "
                        "to one of step 2 (the save of step 2 wrote it)"));
}

// All checksums are right, and the rows are not those that were summed up.
TEST_F(DamagedChain, TheHashSumOfAChainDiffers) {
  std::string words;
  RowPartRecord part;
  change_manifest([&](Manifest& m) {
    RowPartRecord& r =
        *std::ranges::find_if(m.row_parts, [](const RowPartRecord& p) { return p.pieces.size() == 3; });
    const std::string was = r.hash_sum.hex();
    r.hash_sum.bytes[3] ^= 1;
    part = r;
    std::vector<std::string> files;
    for (const RowPiece& p : r.pieces) files.push_back(m.files[p.file].name);
    words =
        fmt::format("checkpoint: {}/{} is damaged: part {} of table \"{}\" has the hash sum {} instead of {}",
                    newest, fmt::join(files, " and "), r.part, r.variable, was, r.hash_sum.hex());
  });
  CheckpointReader reader = CheckpointReader::open(fs, newest);
  PartRows rows;
  EXPECT_EQ(error_of([&] { reader.read_part(part.variable, part.part, rows); }), words);
}

TEST_F(DamagedChain, AChainThatBreaksIsRefused) {
  const std::string good = fs.bytes(newest + "/MANIFEST");
  const auto words = [&](const std::function<void(RowPartRecord&)>& change) {
    fs.bytes(newest + "/MANIFEST") = good;
    change_manifest([&](Manifest& m) {
      change(*std::ranges::find_if(m.row_parts, [](const RowPartRecord& p) { return p.pieces.size() == 3; }));
    });
    return error_of([&] { load_manifest(fs, newest); });
  };
  EXPECT_EQ(words([](RowPartRecord&) {}), "no error");
  EXPECT_THAT(words([](RowPartRecord& r) { r.pieces.erase(r.pieces.begin()); }),
              HasSubstr("has a chain of part "));
  EXPECT_THAT(words([](RowPartRecord& r) { r.pieces[1].since = 1; }),
              HasSubstr(" that breaks at its piece 1: what changed after step 1 until 3"));
  EXPECT_THAT(words([](RowPartRecord& r) { r.pieces[2].since = RowPiece::kBase; }),
              HasSubstr("breaks at its piece 2"));
  EXPECT_THAT(words([](RowPartRecord& r) { std::swap(r.pieces[1], r.pieces[2]); }),
              HasSubstr("breaks at its piece"));
  EXPECT_THAT(words([](RowPartRecord& r) { r.pieces[1].step = 4; }), HasSubstr(" of step 4 in rows-0000"));
  EXPECT_THAT(words([](RowPartRecord& r) { r.pieces.clear(); }), HasSubstr(" in 0 pieces"));
  EXPECT_THAT(words([](RowPartRecord& r) { r.n_rows += 1000; }), HasSubstr(" rows and "));
  EXPECT_THAT(words([](RowPartRecord& r) { r.n_rows = r.n_waiting = 0; }), HasSubstr("gives part "));
  EXPECT_THAT(words([](RowPartRecord& r) { ++r.pieces[0].n_waiting; }), HasSubstr(" waiting and "));
  EXPECT_THAT(words([](RowPartRecord& r) { r.pieces[0].n_removed = -1; }), HasSubstr(" removed ids"));
}

// --- tools ---

TEST_F(DamagedChain, VerifyReadsEachFileOnce) {
  FaultFs counting(fs);
  std::string out;
  EXPECT_EQ(verify_tool(counting, "/c", out), 0) << out;
  std::map<std::string, int> reads;
  int n_rows = 0;
  for (const std::string& line : counting.log()) {
    if (!line.starts_with("read ") || line.find("/rows-") == std::string::npos) continue;
    ++n_rows;
    EXPECT_EQ(++reads[line], 1) << line;
    EXPECT_EQ(line.find(".step-"), std::string::npos) << "it is read where it was written";
  }
  EXPECT_EQ(n_rows, 8) << "four saves of two servers, less than a CRC block each";
  EXPECT_LT(out.find("step-000000004: good"), out.find("step-000000003: good")) << "the newest first";
  fs.bytes(linked(2))[90] ^= 1;
  out.clear();
  EXPECT_NE(verify_tool(fs, "/c", out), 0);
  EXPECT_THAT(
      out, HasSubstr("step-000000004: DAMAGED\n  rows-00000-of-00002.step-000000002.bin is the same file as "
                     "/c/step-000000002/rows-00000-of-00002.bin, which is damaged"));
}

TEST_F(DamagedChain, InspectAndListShowWhatIsLinked) {
  const std::string text = inspect_text(fs, newest);
  const Manifest m = load_manifest(fs, newest).manifest;
  std::uint64_t bytes = 0;
  for (const FileRecord& f : m.files) bytes += step_of_linked_file(f.name) >= 0 ? f.size : 0;
  EXPECT_THAT(text, HasSubstr(fmt::format("linked      4 files of older saves, {} bytes\n", bytes)));
  const TableTotals users = totals_of(m, "user/embeddings");
  EXPECT_GT(users.n_waiting, 0);
  EXPECT_THAT(text,
              ::testing::ContainsRegex(fmt::format("user/embeddings +int64 +{} +16 of 16 +{} +{} +3 +48 ",
                                                   users.n_rows, users.n_waiting, users.n_bytes)));
  const Json inspected = Json::parse(inspect_text(fs, newest, ToolFormat::json));
  EXPECT_EQ(inspected["tables"][0]["waiting"], users.n_waiting);
  EXPECT_EQ(inspected["tables"][0]["longest_chain"], 3);
  EXPECT_THAT(list_text(fs, "/c", ToolFormat::text), HasSubstr("frees"));
  const Json listed = Json::parse(list_text(fs, "/c", ToolFormat::json));
  const auto frees = [](const Json& json) { return json["checkpoints"][0]["frees"].get<std::uint64_t>(); };
  const std::uint64_t alone = total_bytes(m) - bytes + bytes_of_manifest(newest);
  EXPECT_EQ(frees(listed), alone);
  // What has come later counts, until it has a name elsewhere.
  write_whole_file(fs, newest + "/later", "12345");
  EXPECT_EQ(frees(Json::parse(list_text(fs, "/c", ToolFormat::json))), alone + 5);
  fs.link(newest + "/later", "/kept");
  EXPECT_EQ(frees(Json::parse(list_text(fs, "/c", ToolFormat::json))), alone);
}

TEST_F(DamagedChain, PruneCountsWhatIsFreed) {
  const auto entries = scan_checkpoints(fs, "/c");
  std::uint64_t freed = 0, stay = 0;
  for (std::size_t i = 1; i < entries.size(); ++i) {
    for (const FileRecord& f : entries[i].manifest->files) {
      const bool is_linked = entries[i].step >= 2 && server_of_row_file(f.name) >= 0;
      if (step_of_linked_file(f.name) < 0) (is_linked ? stay : freed) += f.size;
    }
    freed += bytes_of_manifest(entries[i].path);
  }
  for (const PruneMode mode : {PruneMode::dry_run, PruneMode::remove}) {
    std::string out;
    prune_tool(fs, "/c", RetentionPolicy{.keep = 1}, mode, ToolFormat::text, out);
    EXPECT_THAT(out, HasSubstr(fmt::format(
                         "3 checkpoints, {} bytes ({} more are of files that other checkpoints have, "
                         "too)",
                         freed, stay)));
  }
  CheckpointReader reader = CheckpointReader::open(fs, newest);
  expect_all(reader, tables.model);
  EXPECT_EQ(list_text(fs, "/c", ToolFormat::text).find("frees"), std::string::npos)
      << "nothing is shared any more";
}

}  // namespace
}  // namespace varscope
