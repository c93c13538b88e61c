#pragma once

#include <string>

namespace varscope {

// A file of lines that grows over all attempts of a run. A line that the disk has no room for is lost, with
// one warning; after one of which it took a part, the next begins on a line of its own. One thread.
class AppendedFile {
 public:
  // Throws Error(io) that ends with `advice` when it cannot be opened.
  AppendedFile(std::string path, const char* advice);
  ~AppendedFile();
  AppendedFile(const AppendedFile&) = delete;
  AppendedFile& operator=(const AppendedFile&) = delete;
  const std::string& path() const { return path_; }
  void append(const std::string& line);

 private:
  std::string path_;
  int fd_ = -1;
  bool has_torn_line_ = false, has_lost_lines_ = false;
};

}  // namespace varscope
