#include "launch/ingest/pipe_source.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "checkpoint/storage/fs.h"
#include "common/base/error.h"

namespace varscope {
namespace {

OwnedDescriptor open_fifo(const std::string& path) {
  OwnedDescriptor fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0 && errno == ENOENT)
    fail(ErrorKind::config, "--from fifo:{}: there is no such file; make it with mkfifo", path);
  if (fd.get() < 0) fail_io("open", path, errno);
  struct stat st = {};
  if (::fstat(fd.get(), &st) != 0) fail_io("stat", path, errno);
  if (!S_ISFIFO(st.st_mode)) {
    fail(ErrorKind::config,
         "--from fifo:{}: this is no FIFO; make one with mkfifo, or read a file by --from - < {}", path,
         path);
  }
  return fd;
}

}  // namespace

PipeSource::PipeSource() : name_("standard input") {}

PipeSource::PipeSource(const std::string& fifo) : fifo_(fifo), name_(fifo), fd_(open_fifo(fifo)) {}

std::optional<std::size_t> PipeSource::read(std::span<char> out) {
  const ssize_t n = ::read(fd(), out.data(), out.size());
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno != EAGAIN && errno != EINTR) fail_io("read", name_, errno);
  return std::nullopt;
}

void PipeSource::open_again() {
  OwnedDescriptor next = open_fifo(fifo_);  // before the other is closed: a reader is there all the time
  fd_ = std::move(next);
}

}  // namespace varscope
