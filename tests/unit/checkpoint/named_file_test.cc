// Files that users name: replaced whole, with their mode, or written into.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "checkpoint/storage/atomic_file.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/other_user.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

namespace stdfs = std::filesystem;
using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using testing::OtherUser;
using testing::slurp;
using testing::spit;
using testing::TempDir;

mode_t mode_of(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st.st_mode & 07777;
}

ino_t inode_of(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st.st_ino;
}

struct NamedFile : ::testing::Test {
  TempDir dir;
  PosixFs fs;
  std::size_t n_names() { return fs.list(dir.path()).size(); }
};

TEST_F(NamedFile, ANewOneHasTheModeOfTheUmask) {
  const mode_t before = ::umask(027);
  write_named_file(fs, dir / "a", "new");
  ::umask(before);
  EXPECT_EQ(slurp(dir / "a"), "new");
  EXPECT_EQ(mode_of(dir / "a"), 0640U);
  EXPECT_EQ(n_names(), 1U);
}

TEST_F(NamedFile, APlainOneIsReplacedWithItsModeKept) {
  for (const mode_t mode : {0600U, 0640U, 0666U, 0755U, 0660U}) {
    spit(dir / "a", "old");
    ASSERT_EQ(::chmod((dir / "a").c_str(), mode), 0);
    const ino_t inode = inode_of(dir / "a");
    write_named_file(fs, dir / "a", "new");
    EXPECT_EQ(slurp(dir / "a"), "new");
    EXPECT_EQ(mode_of(dir / "a"), mode);
    EXPECT_NE(inode_of(dir / "a"), inode) << "replaced, not written over";
    EXPECT_EQ(n_names(), 1U);
  }
}

TEST_F(NamedFile, TheOwnerIsKeptWhereTheSystemAllowsIt) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  spit(dir / "a", "old");
  ASSERT_EQ(::chown((dir / "a").c_str(), 12345, 54321), 0);
  write_named_file(fs, dir / "a", "new");
  struct stat st = {};
  ASSERT_EQ(::stat((dir / "a").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 12345U);
  EXPECT_EQ(st.st_gid, 54321U);
}

// Of a group that the writer is in, or is not.
TEST_F(NamedFile, AnotherUserKeepsTheGroupOrDropsItsRights) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(::chmod(dir.path().c_str(), 0777), 0);
  const gid_t own = getegid();
  const gid_t theirs = 54321;
  for (const gid_t group : {own, theirs}) {
    spit(dir / "a", "old");
    ASSERT_EQ(::chown((dir / "a").c_str(), 12345, group), 0);
    ASSERT_EQ(::chmod((dir / "a").c_str(), 06666), 0);
    {
      const OtherUser user;
      write_named_file(fs, dir / "a", "new");
    }
    struct stat st = {};
    ASSERT_EQ(::stat((dir / "a").c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, 65534U);
    EXPECT_EQ(st.st_gid, own);
    EXPECT_EQ(st.st_mode & 07777, group == own ? 0666U : 0606U);
    stdfs::remove(dir / "a");
  }
}

TEST_F(NamedFile, ASocketIsNoFile) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{AF_UNIX, {}};
  const std::string path = dir / "socket";
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(std::data(address.sun_path), path.size());
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): as bind takes it
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_THAT(error_of([&] { write_named_file(fs, path, "x"); }),
              HasSubstr("socket: No such device or address; a socket is no file, and neither is a device"));
  EXPECT_EQ(stdfs::status(path).type(), stdfs::file_type::socket);
  ::close(fd);
}

TEST_F(NamedFile, ADirectoryThatIsNotThereIsNamed) {
  EXPECT_THAT(
      error_of([&] { write_named_file(fs, dir / "no/such/a", "x"); }),
      HasSubstr("cannot write " + dir / "no/such/a: there is no directory " + dir / "no/such; make it"));
  spit(dir / "file", "x");
  EXPECT_THAT(error_of([&] { write_named_file(fs, dir / "file/a", "x"); }), HasSubstr("Not a directory"));
}

TEST_F(NamedFile, AnAbandonedOneLeavesTheOldOne) {
  spit(dir / "a", "old");
  { AtomicFile(fs, dir / "a").write("half of the new"); }
  EXPECT_EQ(slurp(dir / "a"), "old");
  FaultFs faults(fs);
  faults.fail_nth(FsOp::write, 1, ENOSPC);
  EXPECT_THAT(error_of([&] { write_named_file(faults, dir / "a", "new"); }),
              HasSubstr("No space left on device"));
  EXPECT_EQ(slurp(dir / "a"), "old");
  EXPECT_EQ(n_names(), 1U);
}

TEST_F(NamedFile, ASymbolicLinkStaysAndLeadsToTheNewFile) {
  stdfs::create_directory(dir / "store");
  spit(dir / "store/v1", "old");
  ASSERT_EQ(::chmod((dir / "store/v1").c_str(), 0640), 0);
  stdfs::create_symlink("store/v1", dir / "one");
  stdfs::create_symlink(dir / "one", dir / "two");
  write_named_file(fs, dir / "two", "new");
  EXPECT_EQ(slurp(dir / "store/v1"), "new");
  EXPECT_EQ(mode_of(dir / "store/v1"), 0640U);
  EXPECT_EQ(stdfs::read_symlink(dir / "two"), dir / "one");
  EXPECT_EQ(stdfs::read_symlink(dir / "one"), "store/v1");
  stdfs::create_symlink("store/none", dir / "dangling");
  write_named_file(fs, dir / "dangling", "made");
  EXPECT_EQ(slurp(dir / "store/none"), "made");
  stdfs::create_symlink("loop", dir / "loop");
  EXPECT_THAT(error_of([&] { write_named_file(fs, dir / "loop", "x"); }),
              HasSubstr("Too many levels of symbolic links"));
}

TEST_F(NamedFile, AFifoIsWrittenInto) {
  const std::string path = dir / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string bytes(300'000, 'x');  // more than it holds
  std::string got;
  std::thread reader([&] { got = slurp(path); });
  write_named_file(fs, path, bytes);
  reader.join();
  EXPECT_EQ(got, bytes);
  EXPECT_EQ(stdfs::status(path).type(), stdfs::file_type::fifo);
  EXPECT_EQ(n_names(), 1U);
}

TEST_F(NamedFile, ADeviceIsWrittenInto) {
  const ino_t inode = inode_of("/dev/null");
  write_named_file(fs, "/dev/null", "bytes");
  stdfs::create_symlink("/dev/null", dir / "null");
  write_named_file(fs, dir / "null", "bytes");
  EXPECT_EQ(inode_of("/dev/null"), inode);
  EXPECT_THAT(error_of([&] { write_named_file(fs, "/dev/full", "bytes"); }),
              HasSubstr("cannot write /dev/full: No space left on device"));
  EXPECT_TRUE(stdfs::is_character_file("/dev/full"));
}

// As in `varscope ... /dev/stdout > file`: what the shell writes there before and after is kept.
TEST_F(NamedFile, ADescriptorIsWrittenIntoWhereItStands) {
  const int fd = ::open((dir / "redirected").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::write(fd, "before ", 7), 7);
  const std::string number = std::to_string(fd);
  write_named_file(fs, "/proc/self/fd/" + number, "one ");
  write_named_file(fs, "/dev/fd/" + number, "two ");
  stdfs::create_symlink("/dev/fd/" + number, dir / "link");
  write_named_file(fs, dir / "link", "three ");
  ASSERT_EQ(::write(fd, "after", 5), 5);
  ::close(fd);
  EXPECT_EQ(slurp(dir / "redirected"), "before one two three after");
  EXPECT_TRUE(stdfs::is_symlink(dir / "link"));
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  write_named_file(fs, "/proc/self/fd/" + std::to_string(ends[1]), "piped");
  std::string got(5, ' ');
  ASSERT_EQ(::read(ends[0], got.data(), got.size()), 5);
  EXPECT_EQ(got, "piped");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(NamedFile, WhatCannotBeWrittenIsSaidBeforeAnythingIsMade) {
  EXPECT_EQ(error_of([&] { write_named_file(fs, dir.path(), "x"); }),
            "io: cannot write " + dir.path() + ": Is a directory");
  spit(dir / "a", "old");
  ASSERT_EQ(::chmod((dir / "a").c_str(), 0444), 0);
  ASSERT_EQ(::chmod(dir.path().c_str(), 0777), 0);
  const OtherUser user;
  EXPECT_THAT(error_of([&] { write_named_file(fs, dir / "a", "new"); }),
              HasSubstr("cannot write " + (dir / "a") + ": Permission denied"));
  EXPECT_EQ(slurp(dir / "a"), "old");
}

TEST_F(NamedFile, OurOwnSmallFilesKeepTheirModeToo) {
  spit(dir / "LATEST", "old");
  ASSERT_EQ(::chmod((dir / "LATEST").c_str(), 0664), 0);
  replace_whole_file(fs, dir / "LATEST", "new");
  EXPECT_EQ(slurp(dir / "LATEST"), "new");
  EXPECT_EQ(mode_of(dir / "LATEST"), 0664U);
}

}  // namespace
}  // namespace varscope
