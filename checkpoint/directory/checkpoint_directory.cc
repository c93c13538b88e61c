#include "checkpoint/directory/checkpoint_directory.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>

#include <nlohmann/json.hpp>

#include "common/base/error.h"

namespace varscope {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

}  // namespace

void CheckpointDirectory::require_lock() const {
  if (lock_ == nullptr)
    fail(ErrorKind::argument, "lock() the checkpoint directory {} before changing it", dir_);
}

std::string CheckpointDirectory::tmp_path(const std::string& id) const {
  const bool good = !id.empty() && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (!good)
    fail(ErrorKind::argument, "checkpoint id \"{}\" is not made of letters, digits, '.', '_', '-'", id);
  return temporary_path(dir_, id);
}

void CheckpointDirectory::lock(const std::string& run_id) {
  fs_.make_dirs(dir_);
  const std::string path = join_path(dir_, kLockName);
  lock_ = fs_.try_lock(path, fmt::format("run {} pid {} host {}\n", run_id, ::getpid(), host_name()));
  if (lock_ != nullptr) return;
  std::string holder = read_whole_file(fs_, path, 4096);
  while (!holder.empty() && holder.back() == '\n') holder.pop_back();
  fail(ErrorKind::checkpoint,
       "the checkpoint directory {} is in use by another job ({}); wait for it or choose another directory",
       dir_, holder.empty() ? "not known which" : holder);
}

void CheckpointDirectory::sweep() {
  require_lock();
  // A killed job may have moved a checkpoint under such a name without making that durable: were its files
  // removed first, a crash could bring the old name back without them.
  fs_.sync_dir(dir_);
  for (const std::string& name : fs_.list(dir_)) {
    if (!name.starts_with(kTmpPrefix) && name != kTrashName) continue;
    try {
      fs_.remove_all(join_path(dir_, name));
    } catch (
        const Error& e) {  // another user's; no name is used twice but those that are made anew each time
      warnings_.push_back(fmt::format("what an earlier job left takes space: {}", e.what()));
    }
  }
  fs_.sync_dir(dir_);
}

std::string CheckpointDirectory::begin(const std::string& id) {
  require_lock();
  const std::string tmp = tmp_path(id);
  fs_.make_dir(tmp);
  fs_.sync_dir(dir_);
  return tmp;
}

std::string CheckpointDirectory::commit(const std::string& id, Manifest manifest) {
  require_lock();
  warnings_.clear();
  const std::string tmp = tmp_path(id);
  manifest.id = id;
  if (manifest.unix_time == 0) manifest.unix_time = std::time(nullptr);
  manifest.values_hash = values_hash_1_of(manifest);
  check_manifest(manifest, fmt::format("checkpoint {}", id));
  if (const auto problems = file_problems(fs_, tmp, manifest); !problems.empty()) {
    fail(ErrorKind::checkpoint, "checkpoint {} is not as its servers reported: {}", id,
         fmt::join(problems, "; "));
  }
  write_whole_file(fs_, join_path(tmp, kManifestName), encode_manifest(manifest));
  write_whole_file(fs_, join_path(tmp, kManifestJsonName), to_json(manifest));
  fs_.sync_dir(tmp);

  const std::string name = step_name(manifest.step);
  put_in_place(tmp, name, manifest.unix_time);
  try {
    renew_latest();  // a resharded or imported one need not be the newest
  } catch (const Error& e) {
    warnings_.push_back(
        fmt::format("{} is committed, but {} still names an older one: {}", name, kLatestName, e.what()));
  }
  return join_path(dir_, name);
}

void CheckpointDirectory::put_in_place(const std::string& tmp, const std::string& name,
                                       std::int64_t unix_time) {
  const std::string path = join_path(dir_, name);
  if (!fs_.exists(path)) {
    fs_.rename(tmp, path);
    fs_.sync_dir(dir_);  // the commit point
    return;
  }
  if (fs_.exists(join_path(path, kPinnedName))) {  // what bears the name is never removed
    write_whole_file(fs_, join_path(tmp, kPinnedName), "");
    fs_.sync_dir(tmp);
  }
  if (fs_.exchange(tmp, path)) {
    exchanged_ = tmp;
    try {
      fs_.sync_dir(dir_);  // the commit point
    } catch (const Error&) {
      // A crash may undo the exchange or not: both checkpoints must stay whole.
      set_aside(tmp, name, unix_time);
      throw;
    }
    set_aside(tmp, name, unix_time);
    return;
  }
  // Without an atomic exchange there is a moment in which the step has no checkpoint; a crash there falls
  // back to the one before it.
  const std::string aside = superseded_path(name, unix_time);
  fs_.rename(path, aside);
  try {
    fs_.rename(tmp, path);
  } catch (const Error&) {
    fs_.rename(aside, path);
    throw;
  }
  fs_.sync_dir(dir_);  // the commit point
}

std::string CheckpointDirectory::superseded_path(const std::string& name, std::int64_t unix_time) const {
  return free_name(join_path(dir_, fmt::format("{}{}-{}", kSupersededPrefix, name, unix_time)));
}

std::string CheckpointDirectory::free_name(const std::string& path) const {
  std::string free = path;
  for (int n = 2; fs_.exists(free); ++n) free = fmt::format("{}.{}", path, n);
  return free;
}

void CheckpointDirectory::set_aside(const std::string& path, const std::string& name,
                                    std::int64_t unix_time) {
  try {
    fs_.rename(path, superseded_path(name, unix_time));
    exchanged_.clear();
    fs_.sync_dir(dir_);
  } catch (const Error& e) {
    warnings_.push_back(
        fmt::format("{} is committed, but the one it replaces cannot be set aside: {}", name, e.what()));
  }
}

std::vector<std::string> CheckpointDirectory::go_back_to(std::int64_t step, const char* event) {
  std::vector<CheckpointName> newer = list_checkpoints(fs_, dir_);
  std::erase_if(newer, [&](const CheckpointName& name) { return name.step <= step; });
  return newer.empty() ? std::vector<std::string>() : set_aside_all(newer, event, step_name(step));
}

std::vector<std::string> CheckpointDirectory::go_on_from(const std::string& path, std::int64_t step,
                                                         const std::string& run_id) {
  std::vector<CheckpointName> others = list_checkpoints(fs_, dir_);
  std::erase_if(others, [&](const CheckpointName& name) {
    if (name.step >= step) return false;
    const CheckpointEntry entry = look_at(fs_, name);
    return entry.manifest && entry.manifest->run_id == run_id;
  });
  return set_aside_all(others, "resume", path);
}

std::vector<std::string> CheckpointDirectory::set_aside_all(const std::vector<CheckpointName>& checkpoints,
                                                            const char* event, const std::string& to) {
  require_lock();
  const auto now = static_cast<std::int64_t>(std::time(nullptr));
  std::vector<std::string> names;
  names.reserve(checkpoints.size());
  for (const CheckpointName& c : checkpoints) names.push_back(c.name);
  record(nlohmann::json{{"event", event}, {"to", to}, {"set_aside", names}, {"unix_time", now}}.dump());
  for (const CheckpointName& c : checkpoints) fs_.rename(c.path, superseded_path(c.name, now));
  if (!checkpoints.empty()) fs_.sync_dir(dir_);
  return names;
}

void CheckpointDirectory::record_evaluation(const EvaluationRecord& record) {
  require_lock();
  for (const CheckpointName& name : list_checkpoints(fs_, dir_)) {
    if (name.step < record.step) return;  // so are all that follow
    const CheckpointEntry entry = look_at(fs_, name);
    if (entry.state != CheckpointState::committed) continue;
    const std::optional<EvaluationRecord> known = read_evaluation(fs_, entry.path);
    if (known && (known->step > record.step || *known == record)) continue;
    replace_evaluation(fs_, entry.path, record);
  }
}

void CheckpointDirectory::renew_latest() {
  require_lock();
  for (const CheckpointName& name : list_checkpoints(fs_, dir_)) {
    const CheckpointEntry entry = look_at(fs_, name);
    if (!entry.manifest) continue;
    return replace_whole_file(fs_, join_path(dir_, kLatestName),
                              latest_text(entry.name, entry.manifest_digest));
  }
}

void CheckpointDirectory::record(const std::string& line) {
  require_lock();
  const std::string path = join_path(dir_, kLineageName);
  std::string before;
  try {
    before = lineage_text(fs_, dir_);
  } catch (const Error& e) {  // another user's; nothing that cannot be copied is replaced
    const std::string aside = free_name(fmt::format("{}.old-{}", path, std::time(nullptr)));
    fs_.rename(path, aside);
    warnings_.push_back(
        fmt::format("{}; it is kept as {}, and a new one is begun", e.what(), base_name(aside)));
  }
  replace_whole_file(fs_, path, before + line + "\n");
}

void CheckpointDirectory::abandon(const std::string& id) noexcept {
  try {
    const std::string tmp = tmp_path(id);
    if (tmp != exchanged_) fs_.remove_all(tmp);
  } catch (const std::exception&) {
    // Why the save failed is being reported; the next sweep removes the rest.
  }
}

std::vector<CheckpointEntry> CheckpointDirectory::surplus(const RetentionPolicy& policy) const {
  std::vector<CheckpointEntry> entries;
  for (RetentionVerdict& v : judge_retention(fs_, scan(), policy)) {
    if (!v.stays) entries.push_back(std::move(v.entry));
  }
  return entries;
}

std::vector<std::string> CheckpointDirectory::retain(const RetentionPolicy& policy) {
  require_lock();
  warnings_.clear();
  std::vector<std::string> removed;
  const std::string trash = join_path(dir_, kTrashName);
  for (const CheckpointEntry& entry : surplus(policy)) {
    if (!fs_.exists(trash)) fs_.make_dir(trash);
    std::string to = join_path(trash, entry.name);
    for (int n = 2; fs_.exists(to); ++n) to = join_path(trash, fmt::format("{}.{}", entry.name, n));
    fs_.rename(entry.path, to);
    removed.push_back(entry.name);
  }
  if (removed.empty()) return removed;
  fs_.sync_dir(dir_);
  try {
    fs_.remove_all(trash);
  } catch (const Error& e) {
    warnings_.push_back(fmt::format("removed checkpoints still take space: {}", e.what()));
  }
  return removed;
}

}  // namespace varscope
