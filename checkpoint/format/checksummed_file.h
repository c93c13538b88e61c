#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/fs.h"
#include "common/base/hash.h"
#include "common/base/tensor.h"

namespace varscope {

// Writes one file of a checkpoint from front to back, with the checksums that go into its record: created
// exclusively, checksummed from the caller's memory, fsynced, closed. Small pieces are gathered, so that a
// file of many small ones is not as many system calls. Throws Error(io) of the first operation that failed.
// Not thread-safe.
class ChecksummedFile {
 public:
  ChecksummedFile(Fs& fs, const std::string& dir, std::string name)
      : file_(fs.create_exclusive(join_path(dir, name))) {
    record_.name = std::move(name);
  }

  void write(std::span<const std::byte> bytes);

  // The next n bytes, at most kGatherBytes, put in place by `fill`. What is returned stays until the next
  // call.
  template <class Fill>
  std::span<const std::byte> write_filled(std::size_t n, const Fill& fill) {
    const std::span<std::byte> out = make_room(n);
    fill(out);
    checksum(out);
    return out;
  }

  // Fsyncs and closes. To be called once, last.
  FileRecord finish();

 private:
  static constexpr std::size_t kGatherBytes = 256 << 10, kWriteBytes = 8 << 20;

  void checksum(std::span<const std::byte> bytes);
  std::span<std::byte> make_room(std::size_t n);
  void flush();

  std::unique_ptr<File> file_;
  FileRecord record_;
  Digester digester_;
  AlignedBytes buffer_ = allocate_aligned(kGatherBytes);
  std::size_t gathered_ = 0;
  std::uint32_t crc_ = 0;
  std::size_t in_block_ = 0;
};

}  // namespace varscope
