#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

struct gzFile_s;

namespace varscope {

// A gzip or plain file that is read front to back. Throws Error(data) that names the file: missing, a folder,
// unreadable, damaged or cut gzip data.
class GzipReader {
 public:
  explicit GzipReader(const std::filesystem::path& file);
  const std::string& name() const { return name_; }
  // Fills `out` as far as the file reaches; returns the count.
  std::size_t read(std::span<std::uint8_t> out);

 private:
  struct Close {
    void operator()(gzFile_s* f) const;
  };
  std::string name_;
  std::unique_ptr<gzFile_s, Close> file_;
};

// All of it; throws Error(data) also when it has more than `max_bytes`.
std::string read_gzip_file(const std::filesystem::path& file, std::size_t max_bytes);

}  // namespace varscope
