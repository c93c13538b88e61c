// Each operation of a save and of retention fails once, at each of its occurrences, for each reason a disk
// has.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/restore/reader.h"
#include "tests/support/failure_matrix.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using testing::error_of;
using testing::FailureMatrix;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MemoryFs;
using testing::save;
using testing::TempDir;
using testing::tiny_model;

FailureMatrix& matrix =
    FailureMatrix::install("files: failed operations", VARSCOPE_SOURCE_DIR "/docs/failures.md");

Digest hash_of_newest(Fs& fs, const std::string& dir) {
  return CheckpointReader::open(fs, newest_checkpoint(fs, dir).path).values_hash();
}

std::vector<std::string> leftovers(Fs& fs, const std::string& dir) {
  std::vector<std::string> names;
  for (const std::string& name : fs.list(dir)) {
    if (name.starts_with(".")) names.push_back(name);
  }
  return names;
}

// What strikes a save of a step when a checkpoint of step 1 is there.
struct Fault {
  FsOp op = FsOp::write;
  int n = 1;
  int code = EIO;
  std::int64_t step = 2;     // 1: over an existing name
  bool can_exchange = true;  // whether the file system can
  std::size_t keep = 0;      // bytes that the failing write puts down
  std::string text() const {
    return fmt::format("{} {} of a save of step {}, error {}, {} exchange", to_string(op), n, step, code,
                       can_exchange ? "with" : "without");
  }
};

enum class Outcome { not_struck, given_up, warned, in_retention };

// "cannot <operation> <path>: <reason>" of something in the directory.
auto words_of(const Fault& fault, const std::string& dir) {
  return AllOf(HasSubstr(fmt::format("cannot {} {}", to_string(fault.op), dir)),
               HasSubstr(": " + std::generic_category().message(fault.code)));
}

// The save that the fault strikes, and how it ends.
Outcome save_with(const Fault& fault, FaultFs& fs, CheckpointDirectory& directory) {
  fs.fail_nth(fault.op, fault.n, fault.code);
  if (fault.keep > 0) fs.tear_nth_write(fault.n, fault.keep, fault.code);
  bool committed = false;
  const std::string words = error_of([&] {
    save(fs, directory, tiny_model(2), fault.step, 2, "second");
    committed = true;
    if (directory.warnings().empty()) directory.retain(1);
  });
  fs.clear_faults();
  if (fs.struck() == 0) return Outcome::not_struck;
  if (words == "no error") {
    EXPECT_EQ(directory.warnings().size(), 1U);
    if (!directory.warnings().empty()) {
      EXPECT_THAT(directory.warnings()[0], words_of(fault, directory.dir()));
    }
    return Outcome::warned;
  }
  EXPECT_THAT(words, AllOf(HasSubstr("io: "), words_of(fault, directory.dir())));
  if (committed) return Outcome::in_retention;
  directory.abandon("second");
  return Outcome::given_up;
}

// A file whose fsync failed is not synced again.
void expect_no_second_sync(const FaultFs& fs, const Fault& fault) {
  if (fault.op != FsOp::sync) return;
  std::map<std::string, int> syncs;
  for (const std::string& line : fs.log()) {
    const bool is_sync = line.starts_with("fsync /") && line.find("/.tmp-second/") != std::string::npos;
    if (!is_sync) continue;
    EXPECT_EQ(++syncs[line], 1) << line;
  }
}

// `base` holds a checkpoint of step 1 with tiny_model(1).
Outcome strike(Fs& base, const std::string& dir, const Fault& fault) {
  SCOPED_TRACE(fault.text());
  const Digest first = testing::values_hash_of(tiny_model(1)),
               second = testing::values_hash_of(tiny_model(2));
  FaultFs fs(base);
  if (!fault.can_exchange) fs.no_exchange();
  CheckpointDirectory directory(fs, dir);
  directory.lock("run");
  const Outcome outcome = save_with(fault, fs, directory);
  expect_no_second_sync(fs, fault);
  const Digest found = hash_of_newest(base, dir);
  if (outcome != Outcome::given_up) {
    EXPECT_EQ(found, second);
  } else if (fault.op != FsOp::sync_dir) {
    EXPECT_EQ(found, first);
    EXPECT_THAT(leftovers(base, dir), ::testing::Each(HasSubstr(fault.op == FsOp::remove ? ".tmp-" : "-")));
  } else {
    EXPECT_TRUE(found == first || found == second);  // after a failed fsync of the directory it may be either
  }
  if (outcome == Outcome::given_up) {
    EXPECT_FALSE(base.exists(dir + "/.tmp-second"));
  }
  save(fs, directory, tiny_model(3), 9, 1, "third");  // the job goes on
  EXPECT_THAT(directory.warnings(), IsEmpty());
  EXPECT_EQ(hash_of_newest(base, dir), testing::values_hash_of(tiny_model(3)));
  directory.sweep();
  EXPECT_THAT(leftovers(base, dir), IsEmpty());
  EXPECT_EQ(hash_of_newest(base, dir), testing::values_hash_of(tiny_model(3)));
  return outcome;
}

const std::vector<Fault> kSituations = {{.step = 2}, {.step = 1}, {.step = 1, .can_exchange = false}};

// "45 given up, 9 committed with a warning"; what did not happen is left out.
std::string text_of(const std::map<Outcome, int>& outcomes) {
  std::vector<std::string> parts;
  for (const auto& [outcome, n] : outcomes) {
    const char* what = outcome == Outcome::given_up ? "given up"
                       : outcome == Outcome::warned ? "committed with a warning"
                                                    : "of retention reported";
    if (outcome != Outcome::not_struck) parts.push_back(fmt::format("{} {}", n, what));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

TEST(CheckpointFaults, EveryOperationFailsOnceForEveryReason) {
  MemoryFs memory;
  memory.make_dir("/c");
  {
    CheckpointDirectory directory(memory, "/c");
    directory.lock("run");
    save(memory, directory, tiny_model(1), 1, 2, "first");
  }
  for (const FsOp op : testing::kMutatingOps) {
    std::map<Outcome, int> outcomes;
    for (Fault fault : kSituations) {
      for (const int code : {EIO, ENOSPC, EDQUOT}) {
        fault.op = op;
        fault.code = code;
        for (fault.n = 1;; ++fault.n) {
          MemoryFs copy(memory.disk());
          const Outcome outcome = strike(copy, "/c", fault);
          if (outcome == Outcome::not_struck) break;
          ++outcomes[outcome];
        }
      }
    }
    int n = 0;
    for (const auto& [outcome, times] : outcomes) n += times;
    EXPECT_GT(n, 0) << to_string(op);
    matrix.add({"EIO, ENOSPC, EDQUOT", fmt::format("n-th {}, every n", to_string(op)), std::to_string(n),
                text_of(outcomes)});
  }
}

TEST(CheckpointFaults, ShortWritesNeverBecomeACheckpoint) {
  MemoryFs memory;
  memory.make_dir("/c");
  {
    CheckpointDirectory directory(memory, "/c");
    directory.lock("run");
    save(memory, directory, tiny_model(1), 1, 2, "first");
  }
  int n_cases = 0, warned = 0;
  for (const std::size_t keep : {1, 17, 512, 4096}) {
    for (Fault fault : kSituations) {
      fault.keep = keep;
      fault.code = ENOSPC;
      for (fault.n = 1;; ++fault.n) {
        MemoryFs copy(memory.disk());
        const Outcome outcome = strike(copy, "/c", fault);
        if (outcome == Outcome::not_struck) break;
        ++n_cases;
        warned += outcome == Outcome::warned ? 1 : 0;
      }
    }
  }
  EXPECT_GT(n_cases, 40);
  matrix.add({"write that puts down 1, 17, 512 or 4096 bytes, then ENOSPC", "n-th write, every n",
              std::to_string(n_cases),
              fmt::format("{} given up, {} (of LATEST) committed with a warning", n_cases - warned, warned)});
}

// The same on a real disk, for one reason.
TEST(CheckpointFaults, EveryOperationFailsOnceOnTheRealFileSystem) {
  PosixFs posix;
  TempDir base;
  {
    CheckpointDirectory directory(posix, base / "c");
    directory.lock("run");
    save(posix, directory, tiny_model(1), 1, 2, "first");
  }
  int n_cases = 0;
  for (Fault fault : kSituations) {
    for (const FsOp op : testing::kMutatingOps) {
      fault.op = op;
      for (fault.n = 1;; ++fault.n) {
        TempDir dir;
        std::filesystem::copy(base / "c", dir / "c", std::filesystem::copy_options::recursive);
        if (strike(posix, dir / "c", fault) == Outcome::not_struck) break;
        ++n_cases;
      }
    }
  }
  EXPECT_GT(n_cases, 80);
  matrix.add(
      {"EIO, on the real file system", "each of these operations", std::to_string(n_cases), "the same"});
}

// Giving up removes the temporary directory, which after an exchange would be the older checkpoint. Whether
// the exchange is durable is not known: both must stay whole.
TEST(CheckpointFaults, ExchangeThatIsNotDurableKeepsBoth) {
  for (const bool rename_fails : {false, true}) {
    TempDir dir;
    PosixFs posix;
    FaultFs fs(posix);
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    save(fs, directory, tiny_model(1), 5, 1, "first");
    fs.fail_nth(FsOp::sync_dir, 3, EIO);  // after those of begin() and of the temporary directory
    if (rename_fails) fs.fail_nth(FsOp::rename, 1, EIO);
    EXPECT_THAT(error_of([&] { save(fs, directory, tiny_model(2), 5, 1, "second"); }),
                HasSubstr("cannot fsync directory " + dir.path()));
    directory.abandon("second");
    EXPECT_EQ(hash_of_newest(posix, dir.path()), testing::values_hash_of(tiny_model(2)));
    std::string older = dir / ".tmp-second";
    for (const std::string& name : fs.list(dir.path())) {
      if (name.starts_with("superseded-step-000000005-")) older = dir / name;
    }
    EXPECT_EQ(older == dir / ".tmp-second", rename_fails);
    EXPECT_THAT(verify_checkpoint(posix, older), IsEmpty());
    save(fs, directory, tiny_model(3), 6, 1, "third");
    directory.sweep();
    EXPECT_EQ(hash_of_newest(posix, dir.path()), testing::values_hash_of(tiny_model(3)));
    EXPECT_THAT(leftovers(fs, dir.path()), IsEmpty());
  }
}

// A real short write: the process may not make files of more than 5000 bytes, so that of 8192 bytes the first
// write puts down 5000, and the next one nothing.
TEST(CheckpointFaults, ShortWriteOfTheSystemIsReported) {
  TempDir dir;
  const std::string path = dir / "file";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {5000, 5000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    PosixFs fs;
    const auto words = error_of([&] { write_whole_file(fs, path, std::string(8192, 'x')); });
    ::_exit(words.starts_with("io: cannot write " + path + ": File too large; ") ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(std::filesystem::file_size(path), 5000U);
  matrix.add({"short write by the system (RLIMIT_FSIZE)", "a file of 8192 bytes", "1",
              "the rest is tried once more; then the reason is reported"});
}

}  // namespace
}  // namespace varscope
