#include "worker/data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/error.h"
#include "worker/data/gzip_file.h"

namespace varscope {

MappedFile::MappedFile(const std::filesystem::path& file) : name_(file.string()) {
  check_data_file(file);
  const int fd = ::open(name_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(ErrorKind::data, "{}: cannot be opened: {}", name_, std::strerror(errno));
  struct stat status {};
  void* data = nullptr;
  int code = ::fstat(fd, &status) == 0 ? 0 : errno;
  const bool is_plain = S_ISREG(status.st_mode);
  if (code == 0 && is_plain && status.st_size > 0) {
    data = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) code = errno;
  }
  ::close(fd);
  if (code != 0) fail(ErrorKind::data, "{}: cannot be mapped: {}", name_, std::strerror(code));
  if (!is_plain) {
    fail(ErrorKind::data, "{}: is no plain file; arrays are read in no order, so copy it to one", name_);
  }
  if (data == nullptr) return;  // an empty file
  data_ = static_cast<const std::byte*>(data);
  size_ = static_cast<std::size_t>(status.st_size);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  ::munmap(const_cast<std::byte*>(data_), size_);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

}  // namespace varscope
