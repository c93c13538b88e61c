#include "tests/support/fs/small_disk.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <vector>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

// Once per process: what is mounted from here on is seen by it and its children only.
bool has_own_mounts() {
  static const bool has = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
                          mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return has;
}

constexpr const char* kBallast = "/ballast";

}  // namespace

void SmallDisk::mount_by(const std::string& script) {
  std::filesystem::create_directories(at_);
  if (!has_own_mounts()) {
    problem_ = "needs root, to mount a file system of its own";
    return;
  }
  const Ended ended = run({{"/bin/sh", "-ec", "PATH=$PATH:/sbin:/usr/sbin; " + script, "sh", at_, image()}});
  if (ended.code != 0) problem_ = "cannot mount a small file system here: " + ended.err;
}

std::unique_ptr<SmallDisk> SmallDisk::in_memory(const std::string& at, int mib) {
  std::unique_ptr<SmallDisk> disk(new SmallDisk(at));
  disk->mount_by("mount -t tmpfs -o size=" + std::to_string(mib) + "m tmpfs \"$1\"");
  return disk;
}

std::unique_ptr<SmallDisk> SmallDisk::ext4(const std::string& at, int mib) {
  std::unique_ptr<SmallDisk> disk(new SmallDisk(at));
  disk->mount_by("truncate -s " + std::to_string(mib) +
                 "M \"$2\"; mkfs.ext4 -q -F \"$2\"; "
                 "mount -o loop,commit=300,noauto_da_alloc \"$2\" \"$1\"; sync -f \"$1\"");
  return disk;
}

std::unique_ptr<SmallDisk> SmallDisk::after_power_loss(const std::string& at) const {
  std::unique_ptr<SmallDisk> disk(new SmallDisk(at));
  disk->mount_by("cp --sparse=always '" + image() + "' \"$2\"; mount -o loop \"$2\" \"$1\"");
  if (!disk->problem().empty()) throw std::runtime_error(disk->problem());
  return disk;
}

SmallDisk::~SmallDisk() {
  umount2(at_.c_str(), MNT_DETACH);
  std::error_code ignored;
  std::filesystem::remove(image(), ignored);
}

void SmallDisk::fill_up(long bytes) const {
  const int fd = open((at_ + kBallast).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const std::vector<char> block(4096, 'x');
  off_t size = 0;
  for (ssize_t n = 0; (n = write(fd, block.data(), block.size())) > 0;) size += n;
  const bool done = fd >= 0 && ftruncate(fd, size > bytes ? size - bytes : 0) == 0;
  close(fd);
  if (!done) throw std::runtime_error("cannot fill " + at_);
}

void SmallDisk::make_room() const { std::filesystem::remove(at_ + kBallast); }

}  // namespace varscope::testing
