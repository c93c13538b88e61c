#pragma once

#include <memory>
#include <string>

namespace varscope::testing {

// A file system of a test's own, mounted in a mount namespace of this process and its children, so that no
// mount can be left behind. Needs root; ext4 also loop devices and mkfs.ext4. Not thread-safe.
//
// The ext4 one can lose its power: it lies in an image on a loop device, and a copy of the image holds what
// the device has been given, not what waits in memory for an fsync. Its journal commits by itself only every
// five minutes, and it does not write a file's data before a rename on its own account (noauto_da_alloc).
class SmallDisk {
 public:
  // Mounted at `at`, which is made.
  static std::unique_ptr<SmallDisk> in_memory(const std::string& at, int mib);
  static std::unique_ptr<SmallDisk> ext4(const std::string& at, int mib);
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  // Empty when it is mounted; else what is missing.
  const std::string& problem() const { return problem_; }
  const std::string& path() const { return at_; }

  // What a power loss now would leave of an ext4 disk, after its journal was replayed. This disk goes on.
  std::unique_ptr<SmallDisk> after_power_loss(const std::string& at) const;

  // Leaves no more than `bytes` for others; and takes that back.
  void fill_up(long bytes) const;
  void make_room() const;

 private:
  explicit SmallDisk(std::string at) : at_(std::move(at)) {}
  std::string image() const { return at_ + ".img"; }
  void mount_by(const std::string& script);

  std::string at_;
  std::string problem_;
};

}  // namespace varscope::testing
