#include "tests/support/fs/commit_points.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "tests/support/jobs/processes.h"

namespace varscope::testing {
namespace {

// Whole or not at all, for a reader that polls.
void publish(const std::string& path, const std::string& text) {
  std::ofstream(path + ".new") << text;
  std::filesystem::rename(path + ".new", path);
}

void pause_briefly() { usleep(500); }

bool is_tmp(const std::string& name) { return name.starts_with(".tmp-"); }

// What the protocol calls a file or directory of this name.
std::string object_of(const std::string& path) {
  const std::string name = base_name(path);
  static constexpr std::pair<const char*, const char*> kNames[] = {
      {"LATEST", "latest"}, {".tmp-LATEST", "latest"}, {"LINEAGE", "lineage"},   {".tmp-LINEAGE", "lineage"},
      {".trash", "trash"},  {"MANIFEST", "manifest"},  {"manifest.json", "json"}};
  for (const auto& [known, object] : kNames) {
    if (name == known) return object;
  }
  if (is_tmp(name)) return "tmp";
  if (name.starts_with("shard-")) return "shard";
  if (name.starts_with("rows-")) return "rows";
  if (name.starts_with("worker-")) return "worker-state";
  if (name.starts_with("superseded-")) return "aside";
  return name.starts_with("step-") ? "step" : "other";
}

// SIGKILL can only be sent: these wait until it has been carried out.
void kill_and_wait(pid_t pid) {
  if (pid <= 0) throw std::runtime_error("no process to kill");
  kill(pid, SIGKILL);
  while (is_alive(pid)) pause_briefly();
}

}  // namespace

class CommitPointsFs::PointFile : public File {
 public:
  PointFile(CommitPointsFs& fs, std::string object, std::unique_ptr<File> inner)
      : fs_(fs), object_(std::move(object)), inner_(std::move(inner)) {}
  void write(std::span<const std::byte> bytes) override {
    inner_->write(bytes.first(bytes.size() / 2));
    fs_.reach("within write " + object_);
    inner_->write(bytes.subspan(bytes.size() / 2));
  }
  void sync() override {
    fs_.reach("before fsync " + object_);
    if (fs_.syncs_) inner_->sync();
    fs_.reach("after fsync " + object_);
  }
  void close() override {
    fs_.reach("before close " + object_);
    inner_->close();
    fs_.reach("after close " + object_);
  }

 private:
  CommitPointsFs& fs_;
  std::string object_;
  std::unique_ptr<File> inner_;
};

CommitPointsFs::CommitPointsFs(std::string dir, int rank) : dir_(std::move(dir)), rank_(rank) {
  std::istringstream rules(read_text(dir_ + "/rules"));
  for (std::string line; std::getline(rules, line);) {
    if (line == "no-fsync") {
      syncs_ = false;
      continue;
    }
    std::istringstream fields(line);
    std::string of_rank, save;
    Rule rule;
    if (!std::getline(fields, of_rank, '|') || !std::getline(fields, save, '|') ||
        !std::getline(fields, rule.point, '|') || !std::getline(fields, rule.action))
      throw std::runtime_error("not a rule: " + line);
    rule.save = std::stoi(save);
    if (std::stoi(of_rank) == rank_) rules_.push_back(std::move(rule));
  }
  publish(dir_ + "/pid-" + std::to_string(rank_), std::to_string(getpid()));
}

void CommitPointsFs::reach(const std::string& point) {
  std::string action;
  {
    const std::lock_guard lock(mutex_);
    for (Rule& rule : rules_) {
      if (rule.point != point || rule.is_over || (rule.save != 0 && rule.save != n_saves_)) continue;
      action = rule.action;
      rule.is_over = rule.save != 0;
    }
  }
  if (!action.empty()) act(point, action);
}

void CommitPointsFs::report(int k, const std::string& point) {
  std::ostringstream text;
  {
    const std::lock_guard lock(mutex_);
    text << point << "\n" << saving_ << "\n" << announced_ << "\n";
  }
  publish(dir_ + "/hit-" + std::to_string(rank_) + "-" + std::to_string(k), text.str());
}

int CommitPointsFs::pid_of(const std::string& rank) const {
  return std::atoi(read_text(dir_ + "/pid-" + rank).c_str());
}

void CommitPointsFs::kill_all() {
  if (std::getenv("OMPI_COMM_WORLD_RANK") == nullptr) throw std::runtime_error("kill all: not under mpirun");
  kill(getppid(), SIGSTOP);  // mpirun: it shall not see the ranks die one by one
  for (int r = 0; pid_of(std::to_string(r)) > 0; ++r) {
    if (r != rank_) kill_and_wait(pid_of(std::to_string(r)));
  }
  kill(getppid(), SIGKILL);
  kill_and_wait(getpid());
}

void CommitPointsFs::act(const std::string& point, const std::string& action) {
  int k = 0;
  {
    const std::lock_guard lock(mutex_);
    k = ++n_acts_;
  }
  report(k, point);
  if (action == "wait") {
    const std::string go = dir_ + "/go-" + std::to_string(rank_) + "-" + std::to_string(k);
    while (!std::filesystem::exists(go)) pause_briefly();
    return;
  }
  const std::string verb = action.substr(0, 5), whom = action.substr(5);
  if (verb == "stop ") {
    kill(pid_of(whom), SIGSTOP);
    return;
  }
  if (verb != "kill ") throw std::runtime_error("not an action: " + action);
  if (whom == "all") kill_all();
  kill_and_wait(pid_of(whom));
  for (;;) pause();  // what is on the disk is what this point has left there
}

void CommitPointsFs::note_save(const std::string& tmp) {
  const std::lock_guard lock(mutex_);
  saving_ = std::atol(base_name(tmp).substr(5).c_str());
  ++n_saves_;
  announced_ = committed_;  // one save at a time
}

void CommitPointsFs::changed(const std::string& object) {
  const std::lock_guard lock(mutex_);
  changed_ = object;
}

std::unique_ptr<File> CommitPointsFs::create_exclusive(const std::string& path) {
  return create(path, [&] { return PosixFs::create_exclusive(path); });
}

std::unique_ptr<File> CommitPointsFs::create_like(const std::string& path, const std::string& like) {
  return create(path, [&] { return PosixFs::create_like(path, like); });
}

std::unique_ptr<File> CommitPointsFs::create(const std::string& path,
                                             const std::function<std::unique_ptr<File>()>& make) {
  const std::string object = object_of(path);
  if (object == "shard" && rank_ != 0) note_save(parent_path(path));
  reach("before create " + object);
  auto file = std::make_unique<PointFile>(*this, object, make());
  reach("after create " + object);
  return file;
}

void CommitPointsFs::make_dir(const std::string& path) {
  const std::string object = object_of(path);
  if (object == "tmp") note_save(path);
  reach("before mkdir " + object);
  PosixFs::make_dir(path);
  changed(object);
  reach("after mkdir " + object);
}

void CommitPointsFs::make_dirs(const std::string& path) {
  if (syncs_) return PosixFs::make_dirs(path);
  std::filesystem::create_directories(path);
}

void CommitPointsFs::rename(const std::string& from, const std::string& to) {
  const std::string object = object_of(parent_path(to)) == "trash" ? "trash" : object_of(to);
  reach("before rename " + object);
  PosixFs::rename(from, to);
  changed(object);
  reach("after rename " + object);
}

bool CommitPointsFs::exchange(const std::string& a, const std::string& b) {
  const std::string object = object_of(b);
  reach("before exchange " + object);
  const bool done = PosixFs::exchange(a, b);
  changed(object);
  reach("after exchange " + object);
  return done;
}

void CommitPointsFs::replace_file(const std::string& from, const std::string& to) {
  const std::string object = object_of(to);
  reach("before replace " + object);
  PosixFs::replace_file(from, to);
  changed(object);
  reach("after replace " + object);
}

bool CommitPointsFs::link(const std::string& from, const std::string& to) {
  const std::string object = object_of(to);
  reach("before link " + object);
  const bool done = PosixFs::link(from, to);
  reach("after link " + object);
  return done;
}

void CommitPointsFs::remove_all(const std::string& path) {
  const std::string object = object_of(path);
  reach("before remove " + object);
  PosixFs::remove_all(path);
  reach("after remove " + object);
}

void CommitPointsFs::sync_dir(const std::string& path) {
  std::string point = "sync-dir tmp";
  bool commits = false;
  if (!is_tmp(base_name(path))) {
    const std::lock_guard lock(mutex_);
    commits = changed_ == "step";
    point = "sync " + changed_;
  }
  reach("before " + point);
  if (syncs_) PosixFs::sync_dir(path);
  if (commits) {
    const std::lock_guard lock(mutex_);
    committed_ = saving_;
  }
  reach("after " + point);
}

}  // namespace varscope::testing
