#include "checkpoint/storage/fs.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

// Owns a descriptor; closes it without a word unless release() took it.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int open_or_fail(const char* operation, const std::string& path, int flags, int mode = 0) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) fail_io(operation, path, errno);
  return fd;
}

class PosixFile : public File {
 public:
  explicit PosixFile(std::string path, int mode = 0666)
      : path_(std::move(path)), fd_(open_or_fail("create", path_, O_WRONLY | O_CREAT | O_EXCL, mode)) {}

  // Where the owner or the group stays another one, bits that give its rights go; a file system without modes
  // has none to be kept.
  void take_mode_and_owner(const struct stat& st) {
    constexpr uid_t kStays = -1;
    mode_t mode = 07777;
    if (::fchown(fd_.get(), st.st_uid, st.st_gid) != 0)
      mode = ::fchown(fd_.get(), kStays, st.st_gid) == 0 ? 0777 : 0707;
    [[maybe_unused]] const int ignored = ::fchmod(fd_.get(), st.st_mode & mode);
  }

  void write(std::span<const std::byte> bytes) override {
    constexpr std::size_t kMost = 1U << 30;  // Linux writes at most 2 GiB - 4096 bytes in one call
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_.get(), bytes.data(), std::min(bytes.size(), kMost));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_io("write", path_, errno);
      if (n == 0) fail_io("write", path_, ENOSPC);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      size_ += n;
    }
    start_writeback();
  }
  void sync() override {
    if (::fsync(fd_.get()) != 0) fail_io("fsync", path_, errno);
  }
  void close() override {
    const int fd = fd_.release();
    // After EINTR Linux has closed the descriptor; a second close could hit somebody else's.
    if (fd >= 0 && ::close(fd) != 0 && errno != EINTR) fail_io("close", path_, errno);
  }

 private:
  static constexpr off_t kWritebackBytes = 8 << 20;

  // Lets the disk begin while the next bytes are being made: sync() then waits for the last ones only. A
  // hint; what goes wrong here, sync() reports.
  void start_writeback() {
    if (size_ - started_ < kWritebackBytes) return;
    ::sync_file_range(fd_.get(), started_, size_ - started_, SYNC_FILE_RANGE_WRITE);
    started_ = size_;
  }

  std::string path_;
  Descriptor fd_;
  off_t size_ = 0;
  off_t started_ = 0;  // up to here the system has been asked to write
};

// What is written into: nothing of it is ours but the bytes.
class ThroughFile : public File {
 public:
  ThroughFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  void write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_.get(), bytes.data(), std::min<std::size_t>(bytes.size(), 1U << 30));
      if (n < 0 && errno == EAGAIN) {  // somebody has made the pipe non-blocking
        pollfd out{fd_.get(), POLLOUT, 0};
        ::poll(&out, 1, 1000);
      } else if (n < 0 && errno != EINTR) {
        fail_io("write", path_, errno);
      }
      bytes = bytes.subspan(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    }
  }
  void sync() override {
    if (::fsync(fd_.get()) == 0 || errno == EINVAL || errno == EROFS || errno == EOPNOTSUPP) return;
    fail_io("fsync", path_, errno);
  }
  void close() override {
    const int fd = fd_.release();
    if (fd >= 0 && ::close(fd) != 0 && errno != EINTR) fail_io("close", path_, errno);
  }

 private:
  std::string path_;
  Descriptor fd_;
};

// /proc/self/fd/1 is a symbolic link whose text need not lead to what the descriptor leads to.
bool is_link_of_descriptor(const std::string& link) {
  struct statfs st = {};
  return ::statfs(parent_path(link).c_str(), &st) == 0 && st.f_type == PROC_SUPER_MAGIC;
}

// This process's own descriptor that the path names; -1 when it names none.
int own_descriptor(const std::string& path) {
  std::error_code error;
  if (std::filesystem::canonical(parent_path(path), error) != fmt::format("/proc/{}/fd", ::getpid()))
    return -1;
  const std::string name = base_name(path);
  int fd = -1;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), fd);
  return problem == std::errc() && end == name.data() + name.size() ? fd : -1;
}

std::string target_of(const std::string& link) {
  std::array<char, 4096> text{};  // no path is longer
  const ssize_t n = ::readlink(link.c_str(), text.data(), text.size());
  if (n < 0) fail_io("read link", link, errno);
  const std::string target(text.data(), static_cast<std::size_t>(n));
  return target.starts_with('/') ? target : join_path(parent_path(link), target);
}

class PosixReadFile : public ReadFile {
 public:
  explicit PosixReadFile(std::string path)
      : path_(std::move(path)), fd_(open_or_fail("open", path_, O_RDONLY)) {
    if (::fstat(fd_.get(), &stat_) != 0) fail_io("stat", path_, errno);
    if (S_ISDIR(stat_.st_mode)) fail_io("read", path_, EISDIR);
  }

  std::uint64_t size() override { return static_cast<std::uint64_t>(stat_.st_size); }
  void read_at(std::uint64_t offset, std::span<std::byte> out) override {
    while (!out.empty()) {
      const ssize_t n = ::pread(fd_.get(), out.data(), out.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_io("read", path_, errno);
      if (n == 0) fail(ErrorKind::io, "cannot read {}: it ends at byte {}", path_, offset);
      offset += static_cast<std::uint64_t>(n);
      out = out.subspan(static_cast<std::size_t>(n));
    }
  }

 private:
  std::string path_;
  Descriptor fd_;
  struct stat stat_ = {};
};

class PosixLock : public FileLock {
 public:
  explicit PosixLock(int fd) : fd_(fd) {}

 private:
  // Closing it frees the lock; the file stays, since removing it would race with the next holder.
  Descriptor fd_;
};

}  // namespace

std::unique_ptr<File> PosixFs::create_exclusive(const std::string& path) {
  return std::make_unique<PosixFile>(path);
}

std::unique_ptr<File> PosixFs::create_like(const std::string& path, const std::string& like) {
  struct stat st = {};
  if (::stat(like.c_str(), &st) != 0) return PosixFs::create_exclusive(path);
  auto file = std::make_unique<PosixFile>(path, 0600);  // until it has the owner for whom the mode was meant
  file->take_mode_and_owner(st);
  return file;
}

std::unique_ptr<File> PosixFs::open_through(const std::string& path) {
  const int own = own_descriptor(path);
  if (own < 0)
    return std::make_unique<ThroughFile>(path, open_or_fail("open", path, O_WRONLY | O_TRUNC | O_NOCTTY));
  const int fd =
      ::fcntl(own, F_DUPFD_CLOEXEC, 0);  // its place in the file is kept, and sockets are taken too
  if (fd < 0) fail_io("open", path, errno);
  return std::make_unique<ThroughFile>(path, fd);
}

WritePlace PosixFs::write_place(const std::string& path) {
  constexpr int kMostLinks = 40;  // as Linux follows
  std::string at = path;
  for (int links = 0; links < kMostLinks; ++links) {
    struct stat st = {};
    if (::lstat(at.c_str(), &st) != 0) {
      if (errno != ENOENT) fail_io("write", at, errno);
      if (!is_directory(parent_path(at)))
        fail(ErrorKind::io, "cannot write {}: there is no directory {}; make it first", at, parent_path(at));
      return {at, WritePlace::Kind::nothing};
    }
    if (S_ISLNK(st.st_mode) && !is_link_of_descriptor(at)) {
      at = target_of(at);
      continue;
    }
    if (S_ISDIR(st.st_mode)) fail_io("write", at, EISDIR);
    if (!S_ISREG(st.st_mode)) return {at, WritePlace::Kind::other};
    if (::faccessat(AT_FDCWD, at.c_str(), W_OK, AT_EACCESS) != 0) fail_io("write", at, errno);
    return {at, WritePlace::Kind::plain};
  }
  fail_io("write", path, ELOOP);
}

std::unique_ptr<ReadFile> PosixFs::open(const std::string& path) {
  return std::make_unique<PosixReadFile>(path);
}

std::unique_ptr<FileLock> PosixFs::try_lock(const std::string& path, std::string_view holder) {
  Descriptor fd(open_or_fail("open", path, O_RDWR | O_CREAT, 0666));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return nullptr;
    fail_io("lock", path, errno);
  }
  if (::ftruncate(fd.get(), 0) != 0) fail_io("truncate", path, errno);
  const ssize_t n = ::pwrite(fd.get(), holder.data(), holder.size(), 0);
  if (n != static_cast<ssize_t>(holder.size())) fail_io("write", path, n < 0 ? errno : ENOSPC);
  return std::make_unique<PosixLock>(fd.release());
}

bool PosixFs::exists(const std::string& path) {
  struct stat st = {};
  if (::lstat(path.c_str(), &st) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  fail_io("stat", path, errno);
}

bool PosixFs::is_directory(const std::string& path) {
  struct stat st = {};
  if (::stat(path.c_str(), &st) == 0) return S_ISDIR(st.st_mode);
  if (errno == ENOENT || errno == ENOTDIR) return false;
  fail_io("stat", path, errno);
}

std::vector<std::string> PosixFs::list(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator it(dir, error), end;
  for (; !error && it != end; it.increment(error)) names.push_back(it->path().filename().string());
  if (error) fail_io("list", dir, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

void PosixFs::make_dir(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) != 0) fail_io("make directory", path, errno);
}

void PosixFs::make_dirs(const std::string& path) {
  if (is_directory(path)) return;
  const std::string parent = parent_path(path);
  if (parent != path) make_dirs(parent);
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) fail_io("make directory", path, errno);
  if (!is_directory(path)) fail_io("make directory", path, ENOTDIR);
  sync_dir(parent);
}

void PosixFs::rename(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail_io("rename", from + " -> " + to, errno);
  // Network file systems may lack the flag. The directory's lock keeps other jobs of ours out of the gap.
  if (exists(to)) fail_io("rename", from + " -> " + to, EEXIST);
  if (::rename(from.c_str(), to.c_str()) != 0) fail_io("rename", from + " -> " + to, errno);
}

bool PosixFs::exchange(const std::string& a, const std::string& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS) return false;
  fail_io("exchange", a + " and " + b, errno);
}

void PosixFs::replace_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_io("rename", from + " -> " + to, errno);
}

bool PosixFs::link(const std::string& from, const std::string& to) {
  if (::link(from.c_str(), to.c_str()) == 0) return true;
  if (errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP || errno == ENOSYS)
    return false;
  fail_io("link", from + " -> " + to, errno);
}

std::optional<FileIdentity> PosixFs::identify(const std::string& path) {
  struct stat st = {};
  if (::lstat(path.c_str(), &st) != 0) return std::nullopt;
  return FileIdentity{st.st_dev, st.st_ino, st.st_nlink, static_cast<std::uint64_t>(st.st_size)};
}

void PosixFs::remove_all(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) fail_io("remove", path, error.value());
}

void PosixFs::sync_dir(const std::string& path) {
  Descriptor fd(open_or_fail("open directory", path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) fail_io("fsync directory", path, errno);
}

std::uint64_t PosixFs::free_bytes(const std::string& path) {
  struct statvfs st = {};
  if (::statvfs(path.c_str(), &st) != 0) fail_io("statvfs", path, errno);
  return static_cast<std::uint64_t>(st.f_bavail) * st.f_frsize;
}

std::unique_ptr<File> Fs::create_like(const std::string& path, const std::string&) {
  return create_exclusive(path);
}

std::unique_ptr<File> Fs::open_through(const std::string& path) { fail_io("open", path, EOPNOTSUPP); }

WritePlace Fs::write_place(const std::string& path) {
  return {path, exists(path) ? WritePlace::Kind::plain : WritePlace::Kind::nothing};
}

void fail_io(const char* operation, const std::string& path, int code) {
  const char* hint = "";
  if (code == ENOSPC || code == EDQUOT) hint = "; free some space or choose another directory";
  if (code == EFBIG)
    hint =
        "; it would be larger than the limit for files (ulimit -f), or than a file may be there; raise the limit "
        "or choose another directory";
  if (code == ENXIO) hint = "; a socket is no file, and neither is a device that is not there";
  if (code == EACCES || code == EROFS || code == EPERM) hint = "; check the permissions of the directory";
  if (code == ENOLCK || code == EOPNOTSUPP)
    hint = "; the file system must support flock (Lustre: mount with -o flock)";
  fail(ErrorKind::io, "cannot {} {}: {}{}", operation, path, std::generic_category().message(code), hint);
}

std::string join_path(std::string_view dir, std::string_view name) {
  std::string path(dir);
  if (!path.empty() && path.back() != '/') path += '/';
  return path.append(name);
}

std::string parent_path(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const std::size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(path.substr(0, std::max<std::size_t>(slash, 1)));
}

std::string base_name(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return std::string(path.substr(path.rfind('/') + 1));  // npos + 1 is 0
}

std::string read_whole_file(Fs& fs, const std::string& path, std::uint64_t max_bytes) {
  const auto file = fs.open(path);
  const std::uint64_t n = file->size();
  if (n > max_bytes)
    fail(ErrorKind::io, "cannot read {}: its {} bytes are more than the {} it may have", path, n, max_bytes);
  return read_range(*file, 0, n);
}

std::string read_range(ReadFile& file, std::uint64_t begin, std::uint64_t n) {
  std::string bytes(static_cast<std::size_t>(n), '\0');
  file.read_at(begin, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

namespace {

void write_and_close(File& file, std::string_view bytes) {
  file.write(std::as_bytes(std::span(bytes)));
  file.sync();
  file.close();
}

}  // namespace

void write_whole_file(Fs& fs, const std::string& path, std::string_view bytes) {
  write_and_close(*fs.create_exclusive(path), bytes);
}

void replace_whole_file(Fs& fs, const std::string& path, std::string_view bytes) {
  const std::string dir = parent_path(path);
  const std::string tmp = join_path(dir, kTmpPrefix + base_name(path));
  fs.remove_all(tmp);  // of an earlier failure
  write_and_close(*fs.create_like(tmp, path), bytes);
  fs.replace_file(tmp, path);
  fs.sync_dir(dir);
}

}  // namespace varscope
