#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/storage/fs.h"

namespace varscope::testing {

enum class FsOp {
  create,
  write,
  sync,
  close,
  open,
  read,
  list,
  make_dir,
  rename,
  exchange,
  replace,
  link,
  remove,
  sync_dir,
  stat
};
inline constexpr std::array kMutatingOps = {FsOp::create,   FsOp::write,   FsOp::sync,     FsOp::close,
                                            FsOp::make_dir, FsOp::rename,  FsOp::exchange, FsOp::replace,
                                            FsOp::remove,   FsOp::sync_dir};

inline const char* to_string(FsOp op) {
  constexpr std::array kNames = {"create",  "write", "fsync",          "close",           "open",
                                 "read",    "list",  "make directory", "rename",          "exchange",
                                 "replace", "link",  "remove",         "fsync directory", "stat"};
  return kNames[static_cast<std::size_t>(op)];
}

// Wraps another Fs: records the operations, fails the n-th of a kind with a given errno, tears a write, and
// knows which bytes and names a crash could still lose. Threads may share one and its files: operations
// happen one after another. What a test sets and reads is for times when no thread is at work.
class FaultFs : public Fs {
 public:
  explicit FaultFs(Fs& inner) : inner_(inner) {}

  // The n-th operation of this kind from now on (1 is the next) fails with `code`; those after it succeed
  // again.
  void fail_nth(FsOp op, int n, int code) { faults_[op] = {counts_[op] + n, code}; }
  // The n-th write from now on puts down only `keep` bytes and then fails with `code`.
  void tear_nth_write(int n, std::size_t keep, int code) {
    fail_nth(FsOp::write, n, code);
    keep_of_torn_write_ = keep;
  }
  void clear_faults() { faults_.clear(); }
  void no_exchange() { can_exchange_ = false; }
  void no_links() { can_link_ = false; }
  int count(FsOp op) { return counts_[op]; }
  int struck() const { return struck_; }                           // how many operations were made to fail
  const std::string& struck_path() const { return struck_path_; }  // by the last of them
  const std::vector<std::string>& log() const { return log_; }     // without stat
  // Called before each operation that changes something.
  std::function<void()> before_change;
  // Files with bytes that no fsync has covered, and files whose name no fsync of the directory has covered.
  const std::set<std::string>& unsynced_files() const { return unsynced_files_; }
  const std::set<std::string>& unsynced_names() const { return unsynced_names_; }

  std::unique_ptr<File> create_exclusive(const std::string& path) override {
    const auto lock = step(FsOp::create, path);
    auto file = inner_.create_exclusive(path);
    unsynced_files_.insert(path);
    unsynced_names_.insert(path);
    return std::make_unique<FaultFile>(*this, path, std::move(file));
  }
  std::unique_ptr<ReadFile> open(const std::string& path) override {
    const auto lock = step(FsOp::open, path);
    return std::make_unique<FaultReadFile>(*this, path, inner_.open(path));
  }
  std::unique_ptr<FileLock> try_lock(const std::string& path, std::string_view holder) override {
    return inner_.try_lock(path, holder);
  }
  bool exists(const std::string& path) override {
    const auto lock = step(FsOp::stat, path);
    return inner_.exists(path);
  }
  bool is_directory(const std::string& path) override {
    const auto lock = step(FsOp::stat, path);
    return inner_.is_directory(path);
  }
  std::vector<std::string> list(const std::string& dir) override {
    const auto lock = step(FsOp::list, dir);
    return inner_.list(dir);
  }
  void make_dir(const std::string& path) override {
    const auto lock = step(FsOp::make_dir, path);
    inner_.make_dir(path);
  }
  void make_dirs(const std::string& path) override {
    const auto lock = step(FsOp::make_dir, path);
    inner_.make_dirs(path);
  }
  void rename(const std::string& from, const std::string& to) override {
    const auto lock = step(FsOp::rename, from + " -> " + to);
    inner_.rename(from, to);
    moved(from, to);
  }
  bool exchange(const std::string& a, const std::string& b) override {
    const auto lock = step(FsOp::exchange, a + " and " + b);
    if (!can_exchange_) return false;
    const bool done = inner_.exchange(a, b);
    if (done) moved(a, b);  // what stood at `b` was committed long ago
    return done;
  }
  void replace_file(const std::string& from, const std::string& to) override {
    const auto lock = step(FsOp::replace, from + " -> " + to);
    inner_.replace_file(from, to);
    moved(from, to);
  }
  bool link(const std::string& from, const std::string& to) override {
    const auto lock = step(FsOp::link, from + " -> " + to);
    if (!can_link_ || !inner_.link(from, to)) return false;
    unsynced_names_.insert(to);
    return true;
  }
  std::optional<FileIdentity> identify(const std::string& path) override { return inner_.identify(path); }
  void remove_all(const std::string& path) override {
    const auto lock = step(FsOp::remove, path);
    inner_.remove_all(path);
    for (auto* paths : {&unsynced_files_, &unsynced_names_}) {
      std::erase_if(*paths, [&](const std::string& p) { return p == path || p.starts_with(path + "/"); });
    }
  }
  void sync_dir(const std::string& path) override {
    const auto lock = step(FsOp::sync_dir, path);
    inner_.sync_dir(path);
    std::erase_if(unsynced_names_, [&](const std::string& p) { return parent_path(p) == path; });
  }
  std::uint64_t free_bytes(const std::string& path) override { return inner_.free_bytes(path); }

 private:
  class FaultFile : public File {
   public:
    FaultFile(FaultFs& fs, std::string path, std::unique_ptr<File> inner)
        : fs_(fs), path_(std::move(path)), inner_(std::move(inner)) {}
    void write(std::span<const std::byte> bytes) override {
      const auto lock = fs_.lock_for(FsOp::write);
      fs_.unsynced_files_.insert(path_);
      if (fs_.next_fails(FsOp::write))
        inner_->write(bytes.first(std::min(bytes.size(), fs_.keep_of_torn_write_)));
      fs_.record(FsOp::write, path_);
      inner_->write(bytes);
    }
    void sync() override {
      const auto lock = fs_.step(FsOp::sync, path_);
      inner_->sync();
      fs_.unsynced_files_.erase(path_);
    }
    void close() override {
      const auto lock = fs_.step(FsOp::close, path_);
      inner_->close();
    }

   private:
    FaultFs& fs_;
    std::string path_;
    std::unique_ptr<File> inner_;
  };

  class FaultReadFile : public ReadFile {
   public:
    FaultReadFile(FaultFs& fs, std::string path, std::unique_ptr<ReadFile> inner)
        : fs_(fs), path_(std::move(path)), inner_(std::move(inner)) {}
    std::uint64_t size() override { return inner_->size(); }
    void read_at(std::uint64_t offset, std::span<std::byte> out) override {
      const auto lock = fs_.step(FsOp::read, path_);
      inner_->read_at(offset, out);
    }

   private:
    FaultFs& fs_;
    std::string path_;
    std::unique_ptr<ReadFile> inner_;
  };

  struct Fault {
    int at = 0;  // value of the counter
    int code = 0;
  };

  static bool is_mutating(FsOp op) {
    return op != FsOp::open && op != FsOp::read && op != FsOp::list && op != FsOp::stat;
  }
  bool next_fails(FsOp op) { return faults_.contains(op) && faults_[op].at == counts_[op] + 1; }
  // For the whole of an operation. What a test does before changes may use this Fs, or wait.
  [[nodiscard]] std::unique_lock<std::mutex> lock_for(FsOp op) {
    if (is_mutating(op) && before_change) before_change();
    return std::unique_lock(mutex_);
  }
  [[nodiscard]] std::unique_lock<std::mutex> step(FsOp op, const std::string& what) {
    auto lock = lock_for(op);
    record(op, what);
    return lock;
  }
  void record(FsOp op, const std::string& what) {
    const bool fails = next_fails(op);
    ++counts_[op];
    if (op != FsOp::stat) log_.push_back(std::string(to_string(op)) + " " + what);
    if (!fails) return;
    ++struck_;
    struck_path_ = what;
    fail_io(to_string(op), what, faults_[op].code);
  }
  void moved(const std::string& from, const std::string& to) {
    for (auto* paths : {&unsynced_files_, &unsynced_names_}) {
      std::set<std::string> after;
      for (const std::string& p : *paths) {
        const bool inside = p == from || p.starts_with(from + "/");
        after.insert(inside ? to + p.substr(from.size()) : p);
      }
      *paths = std::move(after);
    }
  }

  Fs& inner_;
  std::mutex mutex_;
  std::map<FsOp, int> counts_;
  std::map<FsOp, Fault> faults_;
  std::size_t keep_of_torn_write_ = 0;
  bool can_exchange_ = true, can_link_ = true;
  int struck_ = 0;
  std::string struck_path_;
  std::vector<std::string> log_;
  std::set<std::string> unsynced_files_, unsynced_names_;
};

}  // namespace varscope::testing
