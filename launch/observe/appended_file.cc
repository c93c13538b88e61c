#include "launch/observe/appended_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "launch/observe/output.h"

namespace varscope {

AppendedFile::AppendedFile(std::string path, const char* advice)
    : path_(std::move(path)), fd_(open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
  if (fd_ < 0) fail(ErrorKind::io, "cannot write {}: {}; {}", path_, std::strerror(errno), advice);
}

AppendedFile::~AppendedFile() { close(fd_); }

void AppendedFile::append(const std::string& line) {
  const std::string text = (has_torn_line_ ? "\n" : "") + line + "\n";
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  if (done == text.size()) {
    has_torn_line_ = false;
    return;
  }
  const char* why = std::strerror(errno);
  has_torn_line_ = has_torn_line_ || done > 0;
  if (!std::exchange(has_lost_lines_, true)) {
    warn({fmt::format("cannot write {}: {}; training goes on, and lines of it are lost until there is room",
                      path_, why)});
  }
}

}  // namespace varscope
