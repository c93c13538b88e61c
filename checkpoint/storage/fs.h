#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace varscope {

// What the names of files and directories that are being written begin with. Where they are left over by a
// crash, the next job sweeps them.
inline constexpr const char* kTmpPrefix = ".tmp-";

// A new file, open for appending. Every call throws Error(io) with the operation, the path and the system's
// reason. close() reports what the system says on closing; a destructor without close() closes silently (the
// file is then abandoned anyway). After a failed sync() the file must be thrown away: the kernel forgets the
// failure, so a second fsync would lie. Not thread-safe.
class File {
 public:
  virtual ~File() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;  // all of them
  virtual void sync() = 0;                                   // data and size are on the disk
  virtual void close() = 0;
};

// An existing file, open for reading. Not thread-safe.
class ReadFile {
 public:
  virtual ~ReadFile() = default;
  virtual std::uint64_t size() = 0;
  // Fills `out` exactly; a file that ends earlier is an Error(io).
  virtual void read_at(std::uint64_t offset, std::span<std::byte> out) = 0;
};

// Holds a lock until destroyed, or until the process ends in any way.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

// Where a file that a user has named is to be written: what the name leads to in the end.
struct WritePlace {
  enum class Kind : std::uint8_t {
    nothing,  // yet
    plain,    // a file, to be replaced
    other     // a FIFO, a device, a descriptor (/dev/stdout): to be written into
  };
  std::string path;  // behind all symbolic links
  Kind kind = Kind::nothing;
};

// Two names lead to one file exactly where the keys are equal.
struct FileIdentity {
  std::uint64_t device = 0, inode = 0;
  std::uint64_t n_names = 1;  // of the file, in any directory
  std::uint64_t n_bytes = 0;  // its size
  std::pair<std::uint64_t, std::uint64_t> key() const { return {device, inode}; }
};

// Every file operation of a checkpoint goes through here, so that tests can inject faults. Errors are
// Error(io) with the operation, the path and the system's reason. An Fs may be used by several threads at
// once; what it returns may not.
class Fs {
 public:
  virtual ~Fs() = default;

  virtual std::unique_ptr<File> create_exclusive(const std::string& path) = 0;  // fails when the name exists
  // The same with the mode of the file `like`, and with its owner where the system allows it; `like` need not
  // exist.
  virtual std::unique_ptr<File> create_like(const std::string& path, const std::string& like);
  // For writing into what is there and is no plain file; sync() does what there is to be done. May wait until
  // somebody reads from a FIFO.
  virtual std::unique_ptr<File> open_through(const std::string& path);
  virtual std::unique_ptr<ReadFile> open(const std::string& path) = 0;
  // Takes an exclusive lock on the file (made when missing) and writes `holder` into it. nullptr: somebody
  // else has it.
  virtual std::unique_ptr<FileLock> try_lock(const std::string& path, std::string_view holder) = 0;

  // Throws also for a directory, for a plain file that may not be written, and for a loop of symbolic links.
  virtual WritePlace write_place(const std::string& path);
  virtual bool exists(const std::string& path) = 0;
  virtual bool is_directory(const std::string& path) = 0;
  virtual std::vector<std::string> list(const std::string& dir) = 0;  // names, sorted, without . and ..
  virtual void make_dir(const std::string& path) = 0;                 // one level; fails when the name exists
  virtual void make_dirs(const std::string& path) = 0;  // all levels, each made durable; may exist
  virtual void rename(const std::string& from, const std::string& to) = 0;  // atomic; fails when `to` exists
  // Swaps two existing names atomically. false: this file system cannot, nothing was done.
  virtual bool exchange(const std::string& a, const std::string& b) = 0;
  virtual void replace_file(const std::string& from, const std::string& to) = 0;  // atomic; `to` may exist
  // Gives an existing file a second name, a hard link; fails when `to` exists. false: this file system, or
  // the rights of this user, do not allow it, nothing was done.
  virtual bool link(const std::string& from, const std::string& to) = 0;
  // Which file a name leads to. Nothing where there is none, or where the file system cannot tell.
  virtual std::optional<FileIdentity> identify(const std::string& path) = 0;
  virtual void remove_all(const std::string& path) = 0;  // a file or a whole tree; a missing one is fine
  virtual void sync_dir(const std::string& path) = 0;    // the names in it are on the disk
  virtual std::uint64_t free_bytes(const std::string& path) = 0;  // that this user may still write
};

// The real one.
class PosixFs : public Fs {
 public:
  std::unique_ptr<File> create_exclusive(const std::string& path) override;
  std::unique_ptr<File> create_like(const std::string& path, const std::string& like) override;
  std::unique_ptr<File> open_through(const std::string& path) override;
  WritePlace write_place(const std::string& path) override;
  std::unique_ptr<ReadFile> open(const std::string& path) override;
  std::unique_ptr<FileLock> try_lock(const std::string& path, std::string_view holder) override;
  bool exists(const std::string& path) override;
  bool is_directory(const std::string& path) override;
  std::vector<std::string> list(const std::string& dir) override;
  void make_dir(const std::string& path) override;
  void make_dirs(const std::string& path) override;
  void rename(const std::string& from, const std::string& to) override;
  bool exchange(const std::string& a, const std::string& b) override;
  void replace_file(const std::string& from, const std::string& to) override;
  bool link(const std::string& from, const std::string& to) override;
  std::optional<FileIdentity> identify(const std::string& path) override;
  void remove_all(const std::string& path) override;
  void sync_dir(const std::string& path) override;
  std::uint64_t free_bytes(const std::string& path) override;
};

// Throws the Error(io) of a failed operation: "cannot <operation> <path>: <strerror(code)>", and a hint for
// the codes that a user can do something about.
[[noreturn]] void fail_io(const char* operation, const std::string& path, int code);

std::string join_path(std::string_view dir, std::string_view name);
std::string parent_path(std::string_view path);  // "." for a bare name
std::string base_name(std::string_view path);    // trailing slashes do not count

// The whole of a file of at most `max_bytes`; a larger one is an Error(io).
std::string read_whole_file(Fs& fs, const std::string& path, std::uint64_t max_bytes);
// [begin, begin + n) of a file. The caller has checked it against the file's size.
std::string read_range(ReadFile& file, std::uint64_t begin, std::uint64_t n);
// create_exclusive, write, sync, close.
void write_whole_file(Fs& fs, const std::string& path, std::string_view bytes);
// Puts a whole file, new or not, in place of what has the name, with its mode: written as .tmp-<name> beside
// it, fsynced, renamed, and the directory fsynced. For files of ours; for those that users name: AtomicFile.
void replace_whole_file(Fs& fs, const std::string& path, std::string_view bytes);

}  // namespace varscope
