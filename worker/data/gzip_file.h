#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

struct z_stream_s;

namespace varscope {

// Throws Error(data) for a file that is missing, with where data sets are searched, and for a folder.
void check_data_file(const std::filesystem::path& file);

// A gzip or plain file that is read front to back. A gzip file [1] has one member or more, one behind
// another; each has its own header and checksum, and both are checked. Zeros between and after members are
// padding, as of tapes, and are read over (gzip itself takes them at the end only, and stops at what follows
// others). Anything else behind a member is damage: it could be the next member. A plain file is told by its
// first bytes, and is not named ".gz".
//
// Throws Error(data) that names the file, and what is at which byte of it: missing, a folder, unreadable,
// damaged or cut gzip data, plain though named ".gz", compressed by another program.
//
// [1] RFC 1952
class GzipReader {
 public:
  explicit GzipReader(const std::filesystem::path& file);
  ~GzipReader();
  GzipReader(const GzipReader&) = delete;
  GzipReader& operator=(const GzipReader&) = delete;
  const std::string& name() const { return name_; }
  std::uint64_t n_read() const { return n_read_; }  // bytes of the file, packed as it is
  // Fills `out` as far as the file reaches; returns the count. All checksums have been checked when it
  // returns less than it was asked for.
  std::size_t read(std::span<std::uint8_t> out);

 private:
  struct Close {
    void operator()(std::FILE* f) const;
  };
  struct End {
    void operator()(z_stream_s* z) const;
  };
  bool fill();  // false at the end of the file
  void look_at_start();
  bool next_member();
  std::size_t copy(std::span<std::uint8_t> out);
  std::size_t inflate(std::span<std::uint8_t> out);
  [[noreturn]] void fail_gzip(const char* what, const char* why,
                              const char* advice = "fetch or write it anew") const;

  std::string name_;
  std::unique_ptr<std::FILE, Close> file_;
  std::vector<std::uint8_t> block_;
  std::span<const std::uint8_t> rest_;       // of the block
  std::uint64_t n_read_ = 0;                 // bytes of the file, the rest of the block among them
  std::unique_ptr<z_stream_s, End> stream_;  // null: the file is plain
  int member_ = 0;                           // that is being read, from 1 on
  bool in_member_ = false;                   // its end has not been seen
};

// All of it; throws Error(data) also when it has more than `max_bytes`.
std::string read_gzip_file(const std::filesystem::path& file, std::size_t max_bytes);

}  // namespace varscope
