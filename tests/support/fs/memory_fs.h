#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/base/error.h"

namespace varscope::testing {

using InodeId = std::size_t;

// What a path leads to: a file's bytes or a directory's names.
struct Inode {
  bool is_dir = false;
  std::string bytes;
  std::map<std::string, InodeId> names;
};

// A file system as a value. Inode 0 is the root.
struct Disk {
  std::vector<Inode> inodes = {Inode{.is_dir = true, .bytes = {}, .names = {}}};

  std::optional<InodeId> find(std::string_view path) const {
    InodeId at = 0;
    while (true) {
      path.remove_prefix(std::min(path.find_first_not_of('/'), path.size()));
      if (path.empty()) return at;
      const std::string_view name = path.substr(0, path.find('/'));
      const auto it = inodes[at].names.find(std::string(name));
      if (!inodes[at].is_dir || it == inodes[at].names.end()) return std::nullopt;
      at = it->second;
      path.remove_prefix(name.size());
    }
  }
};

// A name that comes to lead to an inode, or to none.
struct NameChange {
  InodeId dir = 0;
  std::string name;
  std::optional<InodeId> inode;
};

enum class DiskOpKind {
  create,
  write,
  sync,
  close,
  make_dir,
  rename,
  exchange,
  replace,
  link,
  remove,
  sync_dir,
  note
};

// One operation as the disk sees it. A tree is removed by one operation per name.
struct DiskOp {
  DiskOpKind kind = DiskOpKind::note;
  std::string path;               // of a rename where it was, before " -> "; for messages and for filters
  InodeId inode = 0;              // written, synced or closed; a directory for sync_dir
  std::string bytes;              // written behind what is there
  std::vector<NameChange> names;  // atomic together
  std::size_t note = 0;
};

// An Fs in memory that records every operation which changes something. It keeps the rules of PosixFs, with
// the same words for errors. LOCK files are names only: their text is not recorded. Not thread-safe.
class MemoryFs : public Fs {
 public:
  MemoryFs() = default;
  explicit MemoryFs(Disk disk) : disk_(std::move(disk)) {}

  Disk& disk() { return disk_; }
  std::vector<DiskOp>& log() { return log_; }
  void no_exchange() { can_exchange_ = false; }
  void no_links() { can_link_ = false; }
  // The bytes of a file that is there.
  std::string& bytes(const std::string& path) { return disk_.inodes[require("find", path)].bytes; }
  // A mark in the log.
  void note(std::size_t n) {
    log_.push_back({.kind = DiskOpKind::note, .path = {}, .inode = 0, .bytes = {}, .names = {}, .note = n});
  }

  std::unique_ptr<File> create_exclusive(const std::string& path) override {
    const InodeId inode = add("create", path, Inode{});
    record(DiskOpKind::create, path, inode, {}, {{parent("create", path), base_name(path), inode}});
    return std::make_unique<MemoryFile>(*this, path, inode);
  }
  std::unique_ptr<ReadFile> open(const std::string& path) override {
    const InodeId inode = require("open", path);
    if (disk_.inodes[inode].is_dir) fail_io("read", path, EISDIR);
    return std::make_unique<MemoryReadFile>(*this, path, inode);
  }
  std::unique_ptr<FileLock> try_lock(const std::string& path, std::string_view holder) override {
    if (locked_.contains(path)) return nullptr;
    if (!disk_.find(path)) create_exclusive(path)->close();
    bytes(path) = holder;
    return std::make_unique<MemoryLock>(*this, path);
  }
  bool exists(const std::string& path) override { return disk_.find(path).has_value(); }
  bool is_directory(const std::string& path) override {
    const auto inode = disk_.find(path);
    return inode && disk_.inodes[*inode].is_dir;
  }
  std::vector<std::string> list(const std::string& dir) override {
    std::vector<std::string> names;
    for (const auto& [name, inode] : directory("list", dir).names) names.push_back(name);
    return names;
  }
  void make_dir(const std::string& path) override {
    const InodeId inode = add("make directory", path, Inode{.is_dir = true, .bytes = {}, .names = {}});
    record(DiskOpKind::make_dir, path, inode, {}, {{parent("make directory", path), base_name(path), inode}});
  }
  void make_dirs(const std::string& path) override {
    if (is_directory(path)) return;
    const std::string above = parent_path(path);
    if (above != path) make_dirs(above);
    make_dir(path);
    sync_dir(above);
  }
  void rename(const std::string& from, const std::string& to) override {
    if (exists(to)) fail_io("rename", from + " -> " + to, EEXIST);
    move(DiskOpKind::rename, from, to);
  }
  bool exchange(const std::string& a, const std::string& b) override {
    if (!can_exchange_) return false;
    const std::string both = a + " and " + b;
    const InodeId at_a = require("exchange", a, both), at_b = require("exchange", b, both);
    const std::vector<NameChange> names = {{parent("exchange", a), base_name(a), at_b},
                                           {parent("exchange", b), base_name(b), at_a}};
    apply(disk_, names);
    record(DiskOpKind::exchange, both, 0, {}, names);
    return true;
  }
  void replace_file(const std::string& from, const std::string& to) override {
    move(DiskOpKind::replace, from, to);
  }
  bool link(const std::string& from, const std::string& to) override {
    if (!can_link_) return false;
    const std::string both = from + " -> " + to;
    const InodeId inode = require("link", from, both);
    if (disk_.inodes[inode].is_dir) fail_io("link", both, EPERM);
    if (exists(to)) fail_io("link", both, EEXIST);
    const std::vector<NameChange> names = {{parent("link", to), base_name(to), inode}};
    apply(disk_, names);
    record(DiskOpKind::link, both, inode, {}, names);
    return true;
  }
  std::optional<FileIdentity> identify(const std::string& path) override {
    const auto inode = disk_.find(path);
    if (!inode) return std::nullopt;
    std::uint64_t n = 0;
    for (const Inode& dir : disk_.inodes) {
      for (const auto& [name, id] : dir.names) n += id == *inode ? 1 : 0;
    }
    return FileIdentity{0, *inode, n, disk_.inodes[*inode].bytes.size()};
  }
  void remove_all(const std::string& path) override {
    const auto inode = disk_.find(path);
    if (!inode) return;
    const std::map<std::string, InodeId> below = disk_.inodes[*inode].names;
    for (const auto& [name, ignored] : below) remove_all(join_path(path, name));
    const std::vector<NameChange> names = {{parent("remove", path), base_name(path), std::nullopt}};
    apply(disk_, names);
    record(DiskOpKind::remove, path, *inode, {}, names);
  }
  void sync_dir(const std::string& path) override {
    directory("open directory", path);
    record(DiskOpKind::sync_dir, path, *disk_.find(path), {}, {});
  }
  std::uint64_t free_bytes(const std::string&) override { return std::uint64_t{1} << 40; }

  static void apply(Disk& disk, const std::vector<NameChange>& changes) {
    for (const NameChange& c : changes) {
      auto& names = disk.inodes[c.dir].names;
      if (c.inode) {
        names[c.name] = *c.inode;
      } else {
        names.erase(c.name);
      }
    }
  }

 private:
  class MemoryFile : public File {
   public:
    MemoryFile(MemoryFs& fs, std::string path, InodeId inode)
        : fs_(fs), path_(std::move(path)), inode_(inode) {}
    void write(std::span<const std::byte> bytes) override {
      const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      fs_.disk_.inodes[inode_].bytes += text;
      fs_.record(DiskOpKind::write, path_, inode_, text, {});
    }
    void sync() override { fs_.record(DiskOpKind::sync, path_, inode_, {}, {}); }
    void close() override { fs_.record(DiskOpKind::close, path_, inode_, {}, {}); }

   private:
    MemoryFs& fs_;
    std::string path_;
    InodeId inode_;
  };

  class MemoryReadFile : public ReadFile {
   public:
    MemoryReadFile(MemoryFs& fs, std::string path, InodeId inode)
        : fs_(fs), path_(std::move(path)), inode_(inode) {}
    std::uint64_t size() override { return bytes().size(); }
    void read_at(std::uint64_t offset, std::span<std::byte> out) override {
      if (offset + out.size() > bytes().size())
        fail(ErrorKind::io, "cannot read {}: it ends at byte {}", path_, bytes().size());
      std::ranges::copy(std::as_bytes(std::span(bytes())).subspan(offset, out.size()), out.begin());
    }

   private:
    const std::string& bytes() const { return fs_.disk_.inodes[inode_].bytes; }
    MemoryFs& fs_;
    std::string path_;
    InodeId inode_;
  };

  class MemoryLock : public FileLock {
   public:
    MemoryLock(MemoryFs& fs, std::string path) : fs_(fs), path_(std::move(path)) {
      fs_.locked_.insert(path_);
    }
    ~MemoryLock() override { fs_.locked_.erase(path_); }
    MemoryLock(const MemoryLock&) = delete;
    MemoryLock& operator=(const MemoryLock&) = delete;

   private:
    MemoryFs& fs_;
    std::string path_;
  };

  InodeId require(const char* operation, const std::string& path, const std::string& shown = "") const {
    const auto inode = disk_.find(path);
    if (!inode) fail_io(operation, shown.empty() ? path : shown, ENOENT);
    return *inode;
  }
  Inode& directory(const char* operation, const std::string& path) {
    Inode& inode = disk_.inodes[require(operation, path)];
    if (!inode.is_dir) fail_io(operation, path, ENOTDIR);
    return inode;
  }
  InodeId parent(const char* operation, const std::string& path) {
    directory(operation, parent_path(path));
    return *disk_.find(parent_path(path));
  }
  InodeId add(const char* operation, const std::string& path, Inode inode) {
    const InodeId dir = parent(operation, path);
    const InodeId id = disk_.inodes.size();
    if (!disk_.inodes[dir].names.emplace(base_name(path), id).second) fail_io(operation, path, EEXIST);
    disk_.inodes.push_back(std::move(inode));
    return id;
  }
  void move(DiskOpKind kind, const std::string& from, const std::string& to) {
    const std::string both = from + " -> " + to;
    const InodeId inode = require("rename", from, both);
    const std::vector<NameChange> names = {{parent("rename", from), base_name(from), std::nullopt},
                                           {parent("rename", to), base_name(to), inode}};
    apply(disk_, names);
    record(kind, both, inode, {}, names);
  }
  void record(DiskOpKind kind, std::string path, InodeId inode, std::string bytes,
              std::vector<NameChange> names) {
    log_.push_back({kind, std::move(path), inode, std::move(bytes), std::move(names), 0});
  }

  Disk disk_;
  std::vector<DiskOp> log_;
  std::set<std::string> locked_;
  bool can_exchange_ = true, can_link_ = true;
};

// The disk as processes see it after the first n operations; inodes keep their numbers.
inline Disk replay(Disk disk, const std::vector<DiskOp>& log, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const DiskOp& op = log[i];
    disk.inodes.resize(std::max(disk.inodes.size(), op.inode + 1));
    if (op.kind == DiskOpKind::make_dir) disk.inodes[op.inode].is_dir = true;
    disk.inodes[op.inode].bytes += op.bytes;
    MemoryFs::apply(disk, op.names);
  }
  return disk;
}

}  // namespace varscope::testing
