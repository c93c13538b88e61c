#include "worker/data/growing_array.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/error.h"

namespace varscope {
namespace {

void read_at(const std::filesystem::path& path, int fd, std::uint64_t offset, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      fail(ErrorKind::io, "{}: cannot be read: {}", path.string(),
           n < 0 ? std::strerror(errno) : "it has become shorter");
    }
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace

GrowingFile::GrowingFile(const std::filesystem::path& file) : path_(file) {
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd_ < 0) fail(ErrorKind::io, "{}: cannot be made: {}", file.string(), std::strerror(errno));
  buffer_.reserve(kBuffer);
}

GrowingFile::~GrowingFile() { ::close(fd_); }

void GrowingFile::add(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBuffer) flush();
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void GrowingFile::flush() {
  std::span<const std::byte> rest = buffer_;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::io, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  buffer_.clear();
}

void GrowingFile::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  read_at(path_, fd_, offset, bytes);
}

void require_elements(const std::filesystem::path& file, std::uint64_t n_bytes, std::size_t size_of_element) {
  if (n_bytes % size_of_element == 0) return;
  fail(ErrorKind::data, "{}: has {} bytes, which are no whole elements of {}", file.string(), n_bytes,
       size_of_element);
}

PlacedFile::PlacedFile(const std::filesystem::path& file) : path_(file) {
  fd_ = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat s {};
  if (fd_ < 0 || ::fstat(fd_, &s) != 0) {
    const int code = errno;
    if (fd_ >= 0) ::close(fd_);
    fail(ErrorKind::data, "{}: cannot be opened: {}", file.string(), std::strerror(code));
  }
  size_ = static_cast<std::uint64_t>(s.st_size);
}

PlacedFile::~PlacedFile() { ::close(fd_); }

void PlacedFile::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  read_at(path_, fd_, offset, bytes);
}

RecordSpool::RecordSpool(const std::filesystem::path& file) : file_(std::make_unique<GrowingFile>(file)) {
  std::error_code ignored;
  std::filesystem::remove(file, ignored);
}

void RecordSpool::add(std::span<const std::byte> record) {
  const auto n = static_cast<std::uint32_t>(record.size());
  if (!open_.empty() && open_.size() + sizeof n + record.size() > kBlock) end_block();
  const auto size = std::as_bytes(std::span(&n, 1));
  open_.insert(open_.end(), size.begin(), size.end());
  open_.insert(open_.end(), record.begin(), record.end());
  ++n_;
}

void RecordSpool::end_block() {
  if (open_.empty()) return;
  if (file_) {
    file_->add(open_);
    file_->flush();
    in_file_.push_back({in_file_.empty() ? 0 : in_file_.back().begin + in_file_.back().size, open_.size()});
    open_.clear();
    return;
  }
  blocks_.push_back(std::move(open_));
  open_ = {};
}

std::span<const std::byte> RecordSpool::block(std::size_t i) {
  if (!file_) return blocks_[i];
  read_.resize(in_file_[i].size);
  file_->read(in_file_[i].begin, read_);
  return read_;
}

std::size_t RecordSpool::take_size(std::span<const std::byte>& rest) {
  std::uint32_t n = 0;
  std::memcpy(&n, rest.data(), sizeof n);
  rest = rest.subspan(sizeof n);
  return n;
}

}  // namespace varscope
