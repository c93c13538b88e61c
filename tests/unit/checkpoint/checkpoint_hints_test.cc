// Errors of the disk while checkpoints are looked for, and damage of the files that are only hints: what is
// said, and that no other checkpoint is lost by it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/reader.h"
#include "tests/support/failure_matrix.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/two_checkpoints.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using testing::error_of;
using testing::FailureMatrix;
using testing::FaultFs;
using testing::flipped;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kTwoDir;
using testing::make_directory_of;

FailureMatrix& matrix = FailureMatrix::install("files: hints", VARSCOPE_SOURCE_DIR "/docs/failures.md");

using CheckpointHints = testing::TwoCheckpoints;

// --- errors of the disk while it is read ---

// Of the newer checkpoint: the older one is used. Of the older one, which is not needed: nothing. Of LATEST:
// a warning. Of the directory itself: an error.
TEST_F(CheckpointHints, AnyErrorOfReadingIsNamedAndOneCheckpointCostsNoOther) {
  for (const FsOp op : {FsOp::open, FsOp::read, FsOp::stat, FsOp::list}) {
    int n_cases = 0;
    for (int n = 1;; ++n) {
      FaultFs faulty(fs);
      faulty.fail_nth(op, n, EIO);
      FoundCheckpoint found;
      const std::string error = error_of([&] { found = newest_checkpoint(faulty, kTwoDir); });
      if (faulty.struck() == 0) break;
      ++n_cases;
      const std::string& struck = faulty.struck_path();
      SCOPED_TRACE(fmt::format("{} {} on {}", testing::to_string(op), n, struck));
      if (struck == kTwoDir) {
        EXPECT_EQ(error, fmt::format("io: cannot {} /c: Input/output error", testing::to_string(op)));
        continue;
      }
      EXPECT_EQ(error, "no error");
      const bool is_pin = struck.ends_with("/PINNED");
      EXPECT_EQ(found.path, struck.starts_with(newer) && !is_pin ? older : newer);
      if (struck.starts_with(older) || is_pin) {
        EXPECT_THAT(found.warnings, IsEmpty());
      } else {
        EXPECT_THAT(found.warnings, Contains(AllOf(HasSubstr(struck), HasSubstr("Input/output error"))));
      }
    }
    EXPECT_GT(n_cases, 0);
    matrix.add({"EIO while it is read", fmt::format("n-th {}, every n", testing::to_string(op)),
                std::to_string(n_cases),
                op == FsOp::list
                    ? "an error that names the directory"
                    : "of the newer checkpoint: named, the older one is used; of LATEST: warning; of the "
                      "directory: error"});
  }
}

// Retention removes nothing of which it does not know whether it is pinned.
TEST_F(CheckpointHints, APinThatCannotBeReadCounts) {
  for (int n = 1;; ++n) {
    FaultFs faulty(fs);
    faulty.fail_nth(FsOp::stat, n, EIO);
    const std::string error = error_of([&] {
      for (const CheckpointEntry& e : scan_checkpoints(faulty, kTwoDir))
        EXPECT_EQ(e.pinned, faulty.struck_path() == e.path + "/PINNED");
    });
    if (faulty.struck() == 0) break;
    EXPECT_EQ(error == "no error", faulty.struck_path() != kTwoDir) << error;
  }
  matrix.add({"EIO", "PINNED", "2", "pinned: retention does not remove it"});
}

// A name that leads nowhere, on the real file system.
TEST(CheckpointNames, AnEndlessLinkCostsNoOtherCheckpoint) {
  testing::Saved saved(testing::two_shards(1), 2, 4);
  ASSERT_EQ(::symlink("step-000000009", (saved.dir / "step-000000009").c_str()), 0);
  const FoundCheckpoint found = newest_checkpoint(saved.fs, saved.dir.path());
  EXPECT_EQ(found.path, saved.path);
  EXPECT_THAT(found.warnings, Contains(AllOf(HasSubstr("checkpoint step-000000009 cannot be used: "),
                                             HasSubstr("Too many levels of symbolic links"))));
  matrix.add({"endless symbolic link", "the checkpoint's name", "1",
              "rejected by name; the older checkpoint is used"});
}

// --- what does no harm ---

TEST_F(CheckpointHints, ANewerMinorFormatIsRead) {
  const std::string payload(open_envelope(kManifestMagic, bytes("MANIFEST"), "M"));
  bytes("MANIFEST") =
      seal(kManifestMagic, payload + " 17 more", {.major = 1, .minor = 9, .min_reader = "0.1.0"});
  fs.bytes("/c/LATEST") = latest_text("step-000000005", digest_of(std::string_view(bytes("MANIFEST"))));
  expect_newer();
  matrix.add({"newer minor format with fields at the end", "MANIFEST", "1", "read"});
}

TEST_F(CheckpointHints, NothingReadsTheJsonBack) {
  const std::string path = newer + "/manifest.json";
  fs.bytes(path).clear();
  expect_newer();
  fs.bytes(path) = std::string(5000, '\xff');
  expect_newer();
  fs.remove_all(path);
  expect_newer();
  fs.make_dir(path);
  expect_newer();
  EXPECT_THAT(verify_checkpoint(fs, newer), IsEmpty());
  matrix.add({"empty, rubbish, deleted, a directory", "manifest.json", "4", "used: nothing reads it back"});
}

TEST_F(CheckpointHints, PinnedCountsByItsNameAlone) {
  const std::string path = older + "/PINNED";
  for (const std::string& text : {std::string(), std::string(5000, '\xff')}) {
    fs.remove_all(path);
    write_whole_file(fs, path, text);
    expect_newer();
    EXPECT_TRUE(scan_checkpoints(fs, kTwoDir).back().pinned);
  }
  make_directory_of(fs, path);
  expect_newer();
  EXPECT_TRUE(scan_checkpoints(fs, kTwoDir).back().pinned);
  matrix.add({"empty, rubbish, a directory", "PINNED", "3", "pinned all the same"});
}

TEST_F(CheckpointHints, LineageLosesItsTornLineOnly) {
  const std::string first = "{\"event\":\"rollback\"}\n", second = "{\"event\":\"rollback\",\"to\":\"x\"}\n";
  write_whole_file(fs, "/c/LINEAGE", first + second);
  EXPECT_EQ(lineage_text(fs, kTwoDir), first + second);
  for (std::size_t n = 0; n < first.size() + second.size(); ++n) {
    fs.bytes("/c/LINEAGE") = (first + second).substr(0, n);
    EXPECT_EQ(lineage_text(fs, kTwoDir), n < first.size() ? "" : first);
    expect_newer();
  }
  make_directory_of(fs, "/c/LINEAGE");
  EXPECT_EQ(error_of([&] { lineage_text(fs, kTwoDir); }), "io: cannot read /c/LINEAGE: Is a directory");
  expect_newer();
  matrix.add({"cut at every length", "LINEAGE", "all of them",
              "the torn line is dropped; recovery does not read it"});
  matrix.add({"a directory", "LINEAGE", "1", "the tools name it; recovery does not read it"});
}

TEST_F(CheckpointHints, LatestIsAWarningWhateverItHolds) {
  const std::string good = fs.bytes("/c/LATEST");
  const auto expect_warning = [&](const std::string& words) {
    const FoundCheckpoint found = newest_checkpoint(fs, kTwoDir);
    EXPECT_EQ(found.path, newer);
    ASSERT_EQ(found.warnings.size(), 1U);
    EXPECT_THAT(found.warnings[0], AllOf(HasSubstr("/c/LATEST "), HasSubstr(words)));
  };
  const std::string by_scan = "step-000000005 was found by scanning";
  for (std::size_t n = 0; n < good.size(); ++n) {
    SCOPED_TRACE(n);
    fs.bytes("/c/LATEST") = good.substr(0, n);
    expect_warning(by_scan);
    fs.bytes("/c/LATEST") = flipped(good, n);
    expect_warning("");
  }
  matrix.add({"cut at every length, a bit flip of every byte", "LATEST", "all of them",
              "warning; found by scanning"});
  const std::string digest = good.substr(good.find(' '));
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"step-000000004" + digest, "is stale: it names step-000000004, the newest is step-000000005"},
      {"step-000000009" + digest, "is stale: it names step-000000009, the newest is step-000000005"},
      {"../../etc/passwd" + digest, "is stale: it names ../../etc/passwd"},
      {std::string(300, '\xff'), by_scan},
      {std::string("\0 \0", 3), by_scan},
      {std::string(1 << 20, 'x'), by_scan}};
  for (const auto& [text, words] : cases) {
    fs.bytes("/c/LATEST") = text;
    expect_warning(words);
  }
  matrix.add({"stale, of a step that is not there, a path, rubbish, 1 MiB", "LATEST",
              std::to_string(cases.size()), "warning; found by scanning"});
  make_directory_of(fs, "/c/LATEST");
  expect_warning("cannot be used (cannot read /c/LATEST: Is a directory); " + by_scan);
  fs.remove_all("/c/LATEST");
  expect_warning("is missing; " + by_scan);
  matrix.add({"missing, a directory", "LATEST", "2", "warning; found by scanning"});
}

}  // namespace
}  // namespace varscope
