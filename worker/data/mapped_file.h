#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace varscope {

// The bytes of a plain file, mapped read-only: they are read when they are looked at, and all processes of a
// host share them. The file must not be shortened meanwhile: reading what is gone ends the process (SIGBUS).
// Safe from any thread.
class MappedFile {
 public:
  // Throws Error(data) for a file that is missing, is no plain file, or cannot be read.
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& name() const { return name_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::string name_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace varscope
