#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/storage/fs.h"

namespace varscope {

// How much waits in a directory for its readers: the bytes of all its files, but those whose names begin with
// "." and END. Whoever has read a file removes it. The directory is listed only where the files that were
// written since may have reached the limit. Not thread-safe.
class Backlog {
 public:
  // `limit` in bytes; 0: none.
  Backlog(Fs& fs, std::string dir, std::uint64_t limit) : fs_(fs), dir_(std::move(dir)), limit_(limit) {}

  // A file of so many bytes has come.
  void wrote(std::uint64_t bytes) { bytes_ += bytes; }
  // Whether files and `pending` bytes that will be one reach the limit. Throws Error(io) where the directory
  // cannot be listed.
  bool is_full(std::uint64_t pending);
  std::uint64_t bytes() const { return bytes_; }  // at most
  std::uint64_t limit() const { return limit_; }

 private:
  void list();

  Fs& fs_;
  std::string dir_;
  std::uint64_t limit_;
  std::uint64_t bytes_ = 0;
  bool is_listed_ = false;
};

}  // namespace varscope
