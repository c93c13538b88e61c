#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/storage/fs.h"

namespace varscope {

// A file that a user has named, which takes its name when it is whole: created as <path>.tmp-<pid>, fsynced,
// renamed, and the directory fsynced. Abandoned (removed) by the destructor unless finish() was called. An
// existing file is replaced and leaves its mode to the new one; a symbolic link stays, and what it leads to
// is replaced. What is no plain file (a FIFO, a device, /dev/stdout) is never replaced: the bytes go into it
// at once.
class AtomicFile {
 public:
  AtomicFile(Fs& fs, const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes) { write(std::as_bytes(std::span(bytes))); }
  std::uint64_t size() const { return size_; }
  void finish();

 private:
  Fs& fs_;
  std::string path_, tmp_;  // without tmp_: the bytes go into what is there
  std::unique_ptr<File> file_;
  std::uint64_t size_ = 0;
};

// A whole AtomicFile.
void write_named_file(Fs& fs, const std::string& path, std::string_view bytes);

}  // namespace varscope
