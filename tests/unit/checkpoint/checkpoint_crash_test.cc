// What a crash at any moment leaves on the disk, and what recovery makes of it: the operations of two jobs
// and of the tools are recorded, every state that the disk may then be in (tests/support/fs/crash_states.h)
// is made, and the real recovery runs on each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "tests/support/failure_matrix.h"
#include "tests/support/fs/crash_session.h"
#include "tests/support/references/chain_fixture.h"

namespace varscope {
namespace {

using testing::CrashesTried;
using testing::CrashPromise;
using testing::CrashSession;
using testing::CrashStates;
using testing::DiskOp;
using testing::DiskOpKind;
using ::testing::ElementsAre;
using testing::FailureMatrix;
using testing::GoodStates;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using testing::kCaseStride;
using testing::MemoryFs;
using testing::try_crashes;
using ::testing::UnorderedElementsAre;

FailureMatrix& matrix = FailureMatrix::install("files: crashes", VARSCOPE_SOURCE_DIR "/docs/failures.md");

// --- the model of the disk
// ------------------------------------------------------------------------------------

// What the files of /c may hold after each operation, without repetitions: "name=bytes;" of each.
std::vector<std::set<std::string>> states_after_each(const std::function<void(MemoryFs&)>& change) {
  MemoryFs fs;
  fs.make_dir("/c");
  CrashStates states(fs.disk());
  fs.log().clear();
  change(fs);
  std::vector<std::set<std::string>> all;
  for (const DiskOp& op : fs.log()) {
    states.advance(op);
    auto& seen = all.emplace_back();
    states.for_each([&](const Digest&, const auto& make_disk) {
      MemoryFs crashed(make_disk());
      std::string text;
      for (const std::string& name : crashed.list("/c"))
        text += name + "=" + (crashed.is_directory("/c/" + name) ? "" : crashed.bytes("/c/" + name)) + ";";
      seen.insert(text);
      return true;
    });
  }
  return all;
}

TEST(CrashStates, AFileIsLostTornZeroOrWhole) {
  const auto states = states_after_each([](MemoryFs& fs) {
    write_whole_file(fs, "/c/a", std::string(600, 'x'));
    fs.sync_dir("/c");
  });
  const std::string whole = "a=" + std::string(600, 'x') + ";";
  ASSERT_EQ(states.size(), 5U);
  EXPECT_THAT(states[0], ElementsAre("", "a=;"));
  EXPECT_THAT(states[1], UnorderedElementsAre("", "a=;", whole, "a=" + std::string(600, '\0') + ";",
                                              "a=" + std::string(512, 'x') + ";",
                                              "a=" + std::string(512, 'x') + std::string(88, '\0') + ";",
                                              "a=" + std::string(512, '\0') + std::string(88, 'x') + ";"));
  EXPECT_THAT(states[2], UnorderedElementsAre("", whole)) << "after fsync";
  EXPECT_THAT(states[3], UnorderedElementsAre("", whole)) << "after close";
  EXPECT_THAT(states[4], ElementsAre(whole)) << "after fsync of the directory";
}

TEST(CrashStates, ChangesOfOneNameKeepTheirOrderAndOthersDoNot) {
  const auto states = states_after_each([](MemoryFs& fs) {
    fs.make_dir("/c/a");
    fs.make_dir("/c/b");
    fs.rename("/c/a", "/c/d");
    fs.remove_all("/c/b");
  });
  EXPECT_THAT(states[1], UnorderedElementsAre("", "a=;", "b=;", "a=;b=;"));
  EXPECT_THAT(states[2], UnorderedElementsAre("", "a=;", "b=;", "a=;b=;", "d=;", "b=;d=;"));
  EXPECT_EQ(states[3], states[2]);
}

TEST(CrashStates, AnExchangeIsDoneOrNot) {
  const auto states = states_after_each([](MemoryFs& fs) {
    write_whole_file(fs, "/c/a", "1");
    write_whole_file(fs, "/c/b", "2");
    fs.sync_dir("/c");
    fs.exchange("/c/a", "/c/b");
    fs.sync_dir("/c");
  });
  EXPECT_THAT(states[states.size() - 2], UnorderedElementsAre("a=1;b=2;", "a=2;b=1;"));
  EXPECT_THAT(states.back(), ElementsAre("a=2;b=1;"));
}

TEST(CrashStates, ARenameNeedsNoData) {
  const auto states = states_after_each([](MemoryFs& fs) {
    write_whole_file(fs, "/c/a", "1");
    fs.sync_dir("/c");
    fs.create_exclusive("/c/t")->write(std::as_bytes(std::span(std::string_view("2"))));
    fs.replace_file("/c/t", "/c/a");
  });
  const std::vector<std::string> some = {"a=1;", "a=;", "a=2;", std::string("a=\0;", 4), "a=1;t=2;"};
  EXPECT_THAT(states.back(), IsSupersetOf(some));
}

// --- jobs and tools
// -------------------------------------------------------------------------------------------

// The session of most tests, and what they have found of its states: none is tried twice.
class CheckpointCrash : public ::testing::Test {
 protected:
  struct Shared {
    CrashSession session;
    GoodStates good;
    Shared() { session.run(); }
  };
  static void SetUpTestSuite() { shared = std::make_unique<Shared>(); }
  static void TearDownTestSuite() { shared.reset(); }
  static std::unique_ptr<Shared> shared;
  CrashSession& session = shared->session;
  GoodStates& good = shared->good;
};
std::unique_ptr<CheckpointCrash::Shared> CheckpointCrash::shared;

TEST_F(CheckpointCrash, EveryStateAfterEveryOperationRecovers) {
  const CrashesTried tried = try_crashes(session, session.fs.log(), good);
  EXPECT_EQ(tried.violation, "");
  std::printf("%zu operations, %zu states of the disk\n", tried.operations, tried.states);
  EXPECT_GT(tried.operations, 200U);
  EXPECT_GT(tried.states, 5000U);
  matrix.add(
      {"crash of the machine: unsynced bytes lost, torn or zero, names lost or there",
       "after each operation of seven saves, retention, a pin, a given-up save, a killed one, a step saved "
       "again, a rollback",
       "more than 5000 states",
       "the last acknowledged checkpoint or a newer one; the sweep leaves nothing; the next save works"});
}

// Where names cannot be exchanged there is a moment without the step (docs/checkpoint_format.md, Commit, 5):
// the promise is the checkpoint before, and nothing else is lost.
TEST_F(CheckpointCrash, WithoutExchangeOnlyTheStepThatIsSavedAgainCanBeLost) {
  CrashSession session(false);
  session.save_again();
  GoodStates good, good_but_older;
  const CrashesTried strict = try_crashes(session, session.fs.log(), good, 0, 1);
  EXPECT_THAT(strict.violation, HasSubstr("step 3 is the newest, not 4 to 4"));
  for (CrashPromise& p : session.promises) {
    const auto hashes = p.hashes.find(4);
    if (hashes != p.hashes.end() && hashes->second.size() == 2) p.at_least = 3;
  }
  const CrashesTried tried = try_crashes(session, session.fs.log(), good_but_older);
  EXPECT_EQ(tried.violation, "");
  EXPECT_GT(tried.states, 1000U);
  matrix.add({"the same, on a file system that cannot exchange two names",
              "after each operation of three saves, the last of a step that is there",
              "more than 1000 states",
              "the same, but a crash while a step is saved again may fall back to the checkpoint before"});
}

// Saves of changed rows link the files of older ones, which retention removes under their old names: after a
// crash there is the base, or the base and the changes.
TEST(CheckpointCrashOfChanges, LeavesTheBaseOrTheBaseWithTheChanges) {
  CrashSession session;
  testing::ChangingTables tables(testing::living_tables(1, 20, 2), 1);
  {
    CheckpointDirectory directory(session.io, testing::kCrashDir);
    directory.lock("first");
    directory.sweep();
    testing::ChainSaver saver(session.io, directory, 2);
    CrashPromise p;
    for (int step = 1; step <= 4; ++step) {
      if (step > 1) tables.change(step, 6);
      p.at_most = step;
      p.hashes[step] = {values_hash_of(tables.model)};
      session.promise(p);
      saver.save(tables.model, step);
      EXPECT_THAT(saver.why_not, ::testing::IsEmpty());
      p.at_least = step;
      session.promise(p);
      directory.retain(1);
    }
  }
  std::size_t links = 0;
  for (const DiskOp& op : session.fs.log()) links += op.kind == DiskOpKind::link ? 1 : 0;
  EXPECT_EQ(links, 2U * (1 + 2 + 3));
  // Links and rows make many states that differ in little.
  GoodStates good;
  const CrashesTried tried = try_crashes(session, session.fs.log(), good, 0, 7 * testing::kStateStride);
  EXPECT_EQ(tried.violation, "");
  std::printf("%zu operations, %zu states of the disk\n", tried.operations, tried.states);
  EXPECT_GT(tried.states, 70'000U);
  matrix.add({"crash of the machine, in saves that link row files and write what has changed",
              "after each operation of a full save, three of changed rows, and retention of one",
              "one in seven of more than 70,000 states",
              "the base, or the base with the changes, never between: all rows are as they were saved"});
}

// --- two faults
// ---------------------------------------------------------------------------------------------

// A process that is killed leaves names that are not durable; the next one sees them, and must not delete
// what they used to lead to before they are.
TEST_F(CheckpointCrash, AKilledJobThenASweepThenACrash) {
  const std::vector<DiskOp>& log = session.fs.log();
  const std::size_t before = good.size();
  std::size_t kills = 0;
  for (std::size_t n = 1; n <= log.size(); ++n) {
    if (log[n - 1].kind == DiskOpKind::note || log[n - 1].kind == DiskOpKind::close) continue;
    ++kills;
    MemoryFs fs(testing::replay(session.start, log, n));
    CheckpointDirectory directory(fs, testing::kCrashDir);
    directory.lock("next");
    directory.sweep();
    std::vector<DiskOp> both(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(n));
    both.insert(both.end(), fs.log().begin(), fs.log().end());
    const CrashesTried tried = try_crashes(session, both, good, n);
    EXPECT_EQ(tried.violation, "") << "killed after " << log[n - 1].path;
  }
  std::printf("%zu kills, %zu new states of the disk\n", kills, good.size() - before);
  EXPECT_GT(kills, 200U);
  matrix.add({"a job killed, then a crash of the machine while the next job sweeps",
              "a kill after each operation of the first row's sequence, a crash after each one of the sweep",
              "more than 200 kills", "the same"});
}

TEST_F(CheckpointCrash, AFailedOperationThenACrash) {
  std::size_t faults = 0, states = 0;
  for (const std::int64_t step : {4, 5}) {  // a step that is there, and a new one
    GoodStates good;
    for (const testing::FsOp op : testing::kMutatingOps) {
      for (int n = 1;; ++n) {
        CrashSession session;
        const std::size_t before = session.save_with_fault(step, op, n);
        if (session.io.struck() == 0) break;
        ++faults;
        const CrashesTried tried = try_crashes(session, session.fs.log(), good, before);
        EXPECT_EQ(tried.violation, "") << testing::to_string(op) << " " << n << " of a save of step " << step;
      }
    }
    states += good.size();
  }
  std::printf("%zu faults, %zu states of the disk\n", faults, states);
  EXPECT_GT(faults, 50U);
  matrix.add({"EIO in one operation, then a crash of the machine",
              "each operation of a save and of retention, of a new step and of one that is there",
              fmt::format("{} operations", faults), "the same"});
}

// --- the enumeration finds what it is there to find
// ---------------------------------------------------------

bool ends_in(const DiskOp& op, std::string_view words) { return op.path.ends_with(words); }
bool has(const DiskOp& op, std::string_view words) { return op.path.find(words) != std::string::npos; }

using Log = std::vector<DiskOp>;
using IsDropped = std::function<bool(const DiskOp&)>;

Log without(const Log& log, const IsDropped& dropped) {
  Log left;
  for (const DiskOp& op : log) {
    if (!dropped(op)) left.push_back(op);
  }
  return left;
}

Log without_file_sync(const Log& log, std::string_view name) {
  return without(log, [&](const DiskOp& op) { return op.kind == DiskOpKind::sync && has(op, name); });
}

// Each fsync of a file comes after the rename that follows it.
Log sync_after_rename(const Log& log) {
  Log late, waiting;
  for (const DiskOp& op : log) {
    if (op.kind == DiskOpKind::sync) {
      waiting.push_back(op);
      continue;
    }
    late.push_back(op);
    if (op.kind != DiskOpKind::rename && op.kind != DiskOpKind::replace) continue;
    late.insert(late.end(), waiting.begin(), waiting.end());
    waiting.clear();
  }
  return late;
}

// The fsync that comes right after a change of names is missing where `where` holds for that change.
Log without_sync_dir_after(const Log& log, const IsDropped& where) {
  Log left;
  for (std::size_t i = 0; i < log.size(); ++i) {
    if (i > 0 && log[i].kind == DiskOpKind::sync_dir && where(log[i - 1])) continue;
    left.push_back(log[i]);
  }
  return left;
}

// The new checkpoint takes the place of the old one by removing that first.
Log remove_instead_of_exchange(const Log& log) {
  Log broken;
  for (const DiskOp& op : log) {
    if (op.kind != DiskOpKind::exchange) {
      broken.push_back(op);
      continue;
    }
    DiskOp first = op, second = op;
    first.names = {{op.names[1].dir, op.names[1].name, std::nullopt}};
    first.kind = second.kind = DiskOpKind::rename;
    broken.push_back(first);
    broken.push_back(second);
  }
  return broken;
}

struct Broken {
  const char* what;
  const char* violation;
  std::function<Log(const Log&)> change;
};

TEST_F(CheckpointCrash, EveryMissingStepOfTheProtocolIsFound) {
  const std::vector<Broken> broken = {
      {"fsync of a shard", "shard-00001-of-00002.safetensors",
       [](const Log& l) { return without_file_sync(l, "/shard-00001"); }},
      {"fsync of a worker's state", "worker-00000.state",
       [](const Log& l) { return without_file_sync(l, "/worker-00000.state"); }},
      {"fsync of MANIFEST", "MANIFEST", [](const Log& l) { return without_file_sync(l, "/MANIFEST"); }},
      {"fsync of LATEST", "LATEST", [](const Log& l) { return without_file_sync(l, "/.tmp-LATEST"); }},
      {"fsync of LINEAGE", "LINEAGE", [](const Log& l) { return without_file_sync(l, "/.tmp-LINEAGE"); }},
      {"fsync of every file before the rename (it comes after)", "step-000000001", sync_after_rename},
      {"fsync of .tmp-<id> before the rename", "step-000000001",
       [](const Log& l) {
         return without(
             l, [](const DiskOp& op) { return op.kind == DiskOpKind::sync_dir && has(op, "/.tmp-"); });
       }},
      {"fsync of the directory after the rename", "all checkpoints are gone",
       [](const Log& l) {
         return without_sync_dir_after(l, [](const DiskOp& op) {
           return op.kind == DiskOpKind::rename || op.kind == DiskOpKind::replace;
         });
       }},
      {"fsync of the directory between .trash and unlink", "is not whole",
       [](const Log& l) {
         return without_sync_dir_after(l, [](const DiskOp& op) { return has(op, " -> /c/.trash/"); });
       }},
      {"fsync of the directory after PINNED", "is not pinned any more",
       [](const Log& l) {
         return without_sync_dir_after(l, [](const DiskOp& op) { return ends_in(op, "/PINNED"); });
       }},
      {"the exchange: remove and rename instead", "is the newest, not 4 to 4", remove_instead_of_exchange},
  };
  for (std::size_t i = 0; i < broken.size(); i += kCaseStride) {
    const Broken& b = broken[i];
    const Log log = b.change(session.fs.log());
    const CrashesTried tried = try_crashes(session, log, good, 0, 1);
    EXPECT_THAT(tried.violation, HasSubstr(b.violation)) << b.what;
    std::printf("without %s: %s\n", b.what, tried.violation.c_str());
  }
  matrix.add({"a step of the protocol left out: an fsync of a file, of a directory, the exchange",
              "the sequence of the first row", fmt::format("{} steps", broken.size()),
              "the test finds a state that breaks the promise, for each"});
}

}  // namespace
}  // namespace varscope
