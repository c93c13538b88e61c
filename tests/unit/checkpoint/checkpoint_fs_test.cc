#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "checkpoint/storage/envelope.h"
#include "checkpoint/storage/fs.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using testing::slurp;
using testing::spit;
using testing::TempDir;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(PosixFs, WritesAndReadsBack) {
  TempDir dir;
  PosixFs fs;
  auto file = fs.create_exclusive(dir / "a");
  file->write(bytes_of("hello "));
  file->write({});
  file->write(bytes_of("world"));
  file->sync();
  file->close();
  EXPECT_EQ(slurp(dir / "a"), "hello world");
  auto in = fs.open(dir / "a");
  EXPECT_EQ(in->size(), 11U);
  std::string part(5, ' ');
  in->read_at(6, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(part, "world");
}

TEST(PosixFs, ReadPastTheEndSaysWhereItEnded) {
  TempDir dir;
  PosixFs fs;
  spit(dir / "a", "abc");
  std::string part(5, ' ');
  EXPECT_EQ(error_of([&] { fs.open(dir / "a")->read_at(1, std::as_writable_bytes(std::span(part))); }),
            "io: cannot read " + (dir / "a") + ": it ends at byte 3");
}

TEST(PosixFs, ErrorsNameOperationPathAndReason) {
  TempDir dir;
  PosixFs fs;
  spit(dir / "a", "abc");
  EXPECT_EQ(error_of([&] { fs.create_exclusive(dir / "a"); }),
            "io: cannot create " + (dir / "a") + ": File exists");
  EXPECT_EQ(error_of([&] { fs.open(dir / "b"); }),
            "io: cannot open " + (dir / "b") + ": No such file or directory");
  EXPECT_EQ(error_of([&] { fs.open(dir.path()); }), "io: cannot read " + dir.path() + ": Is a directory");
  EXPECT_EQ(error_of([&] { fs.list(dir / "b"); }),
            "io: cannot list " + (dir / "b") + ": No such file or directory");
  EXPECT_EQ(error_of([&] { fs.make_dir(dir / "a"); }),
            "io: cannot make directory " + (dir / "a") + ": File exists");
  EXPECT_THAT(error_of([&] { fs.make_dirs(dir / "a/b"); }), HasSubstr("cannot make directory"));
  EXPECT_THAT(error_of([&] { fs.sync_dir(dir / "b"); }), HasSubstr("cannot open directory"));
  EXPECT_THAT(error_of([&] { fs.free_bytes(dir / "b"); }), HasSubstr("cannot statvfs"));
  EXPECT_THAT(error_of([] { fail_io("write", "x", ENOSPC); }),
              HasSubstr("No space left on device; free some space"));
  EXPECT_THAT(error_of([] { fail_io("write", "x", EFBIG); }),
              HasSubstr("File too large; it would be larger than the limit for files (ulimit -f)"));
  EXPECT_THAT(error_of([&] { read_whole_file(fs, dir / "a", 2); }), HasSubstr("3 bytes are more than the 2"));
}

TEST(PosixFs, RenameNeverReplaces) {
  TempDir dir;
  PosixFs fs;
  fs.make_dir(dir / "a");
  fs.make_dir(dir / "b");
  EXPECT_THAT(error_of([&] { fs.rename(dir / "a", dir / "b"); }),
              AllOf(HasSubstr("a -> "), HasSubstr("File exists")));
  spit(dir / "f", "new");
  spit(dir / "g", "old");
  EXPECT_THAT(error_of([&] { fs.rename(dir / "f", dir / "g"); }), HasSubstr("File exists"));
  EXPECT_EQ(slurp(dir / "g"), "old");
  fs.replace_file(dir / "f", dir / "g");
  EXPECT_EQ(slurp(dir / "g"), "new");
  EXPECT_THAT(error_of([&] { fs.replace_file(dir / "f", dir / "g"); }), HasSubstr("No such file"));
}

TEST(PosixFs, ExchangeSwapsDirectories) {
  TempDir dir;
  PosixFs fs;
  fs.make_dirs(dir / "a/in_a");
  fs.make_dirs(dir / "b/in_b");
  if (!fs.exchange(dir / "a", dir / "b")) GTEST_SKIP() << "this file system cannot";
  EXPECT_TRUE(fs.is_directory(dir / "a/in_b"));
  EXPECT_TRUE(fs.is_directory(dir / "b/in_a"));
  EXPECT_THAT(error_of([&] { fs.exchange(dir / "a", dir / "c"); }), HasSubstr("cannot exchange"));
}

TEST(PosixFs, ListsSortedAndRemovesTrees) {
  TempDir dir;
  PosixFs fs;
  fs.make_dirs(dir / "t/u/v");
  fs.make_dirs(dir / "t/u/v");
  spit(dir / "t/z", "");
  spit(dir / "t/.a", "");
  EXPECT_EQ(fs.list(dir / "t"), (std::vector<std::string>{".a", "u", "z"}));
  EXPECT_TRUE(fs.exists(dir / "t/z"));
  EXPECT_FALSE(fs.is_directory(dir / "t/z"));
  EXPECT_FALSE(fs.exists(dir / "t/z/below_a_file"));
  fs.remove_all(dir / "t");
  fs.remove_all(dir / "t");
  EXPECT_FALSE(fs.exists(dir / "t"));
  EXPECT_GT(fs.free_bytes(dir.path()), 0U);
}

TEST(PosixFs, SecondLockIsRefusedUntilTheFirstIsGone) {
  TempDir dir;
  PosixFs fs;
  auto first = fs.try_lock(dir / "LOCK", "a very long text of the first holder");
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(fs.try_lock(dir / "LOCK", "second"), nullptr);
  EXPECT_EQ(slurp(dir / "LOCK"), "a very long text of the first holder");
  first.reset();
  EXPECT_NE(fs.try_lock(dir / "LOCK", "second"), nullptr);
  EXPECT_EQ(slurp(dir / "LOCK"), "second");
}

TEST(Paths, JoinAndSplit) {
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  EXPECT_EQ(join_path("", "b"), "b");
  EXPECT_EQ(parent_path("a/b/"), "a");
  EXPECT_EQ(parent_path("a"), ".");
  EXPECT_EQ(parent_path("/a"), "/");
  EXPECT_EQ(parent_path("/"), "/");
  EXPECT_EQ(base_name("x/step-1//"), "step-1");
  EXPECT_EQ(base_name("a"), "a");
}

TEST(FaultFs, FailsOnlyTheNthOperation) {
  TempDir dir;
  PosixFs posix;
  FaultFs fs(posix);
  fs.fail_nth(FsOp::write, 2, EIO);
  auto file = fs.create_exclusive(dir / "a");
  file->write(bytes_of("1"));
  EXPECT_THAT(error_of([&] { file->write(bytes_of("2")); }), HasSubstr("Input/output error"));
  file->write(bytes_of("3"));
  file->close();
  EXPECT_EQ(slurp(dir / "a"), "13");
  EXPECT_TRUE(fs.unsynced_files().contains(dir / "a"));
  EXPECT_EQ(fs.count(FsOp::write), 3);
}

TEST(FaultFs, TearsAWrite) {
  TempDir dir;
  PosixFs posix;
  FaultFs fs(posix);
  fs.tear_nth_write(1, 3, ENOSPC);
  EXPECT_THAT(error_of([&] { write_whole_file(fs, dir / "a", "abcdef"); }), HasSubstr("No space left"));
  EXPECT_EQ(slurp(dir / "a"), "abc");
}

TEST(Envelope, RoundTripsAnyPayload) {
  for (const std::string& payload : {std::string(), std::string("x"), std::string(100'000, '\0')}) {
    const std::string sealed = seal(kManifestMagic, payload);
    EXPECT_EQ(sealed.size(), payload.size() + kEnvelopeBytes);
    EXPECT_EQ(open_envelope(kManifestMagic, sealed, "f"), payload);
  }
}

TEST(Envelope, EveryFlippedBitAndEveryTruncationIsDetected) {
  const std::string good = seal(kManifestMagic, "some payload");
  for (std::size_t i = 0; i < 8 * good.size(); ++i) {
    std::string bad = good;
    bad[i / 8] = static_cast<char>(bad[i / 8] ^ (1 << (i % 8)));
    EXPECT_THROW(open_envelope(kManifestMagic, bad, "f"), Error) << "bit " << i;
  }
  for (std::size_t n = 0; n < good.size(); ++n) {
    EXPECT_THROW(open_envelope(kManifestMagic, good.substr(0, n), "f"), Error) << n << " bytes";
  }
  EXPECT_THROW(open_envelope(kManifestMagic, good + "x", "f"), Error);
}

TEST(Envelope, SaysWhatIsWrong) {
  const std::string good = seal(kManifestMagic, "some payload");
  const auto words = [](const std::string& bytes) {
    return error_of([&] { open_envelope(kManifestMagic, bytes, "dir/MANIFEST"); });
  };
  EXPECT_EQ(words("short"),
            "checkpoint: dir/MANIFEST is cut off: 5 bytes are less than an empty one has (52)");
  EXPECT_THAT(words(seal(kWorkerStateMagic, "x")), HasSubstr("not a VSCPMANF file: wrong magic"));
  EXPECT_THAT(words(good.substr(0, good.size() - 1)),
              HasSubstr("should have 12 bytes of payload and has 11"));
  std::string flipped = good;
  flipped[kEnvelopeHeaderBytes] ^= 1;
  EXPECT_EQ(words(flipped), "checkpoint: dir/MANIFEST is damaged: its checksum does not match");
  EXPECT_EQ(words(seal(kManifestMagic, "x", {.major = 4, .minor = 0, .min_reader = "1.4.0"})),
            "checkpoint: dir/MANIFEST has format 4 and needs varscope >= 1.4.0");
  EXPECT_EQ(words(seal(kManifestMagic, "x", {.major = 1, .minor = 9, .min_reader = "0.1.0"})), "no error");
}

}  // namespace
}  // namespace varscope
