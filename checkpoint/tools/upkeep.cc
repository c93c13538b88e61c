#include "checkpoint/tools/upkeep.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/directory/scan.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/restore/reader.h"
#include "common/base/error.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

// An existing directory, locked: nobody makes one by a mistyped name.
CheckpointDirectory locked(Fs& fs, const std::string& dir, const char* tool) {
  if (!fs.is_directory(dir)) fail(ErrorKind::checkpoint, "there is no checkpoint directory {}", dir);
  CheckpointDirectory directory(fs, dir);
  directory.lock(fmt::format("(varscope checkpoint {})", tool));
  return directory;
}

CheckpointEntry entry_of(const CheckpointDirectory& directory, std::int64_t step) {
  std::vector<std::string> names;
  for (CheckpointEntry& entry : directory.scan()) {
    if (entry.step == step) return std::move(entry);
    names.push_back(entry.name);
  }
  fail(ErrorKind::checkpoint, "there is no checkpoint of step {} in {}; {}", step, directory.dir(),
       names.empty() ? "it holds none" : fmt::format("it holds {}", fmt::join(names, ", ")));
}

std::uint64_t bytes_of(const CheckpointEntry& entry) {
  std::uint64_t n = 0;
  if (entry.manifest) {
    for (const FileRecord& f : entry.manifest->files) n += f.size;
  }
  return n;
}

// What stays as the newest must be good to the last byte: the last good one could be among those that go.
void verify_newest(Fs& fs, const std::vector<RetentionVerdict>& verdicts, std::int64_t keep) {
  std::int64_t n = 0;
  for (const RetentionVerdict& v : verdicts) {
    if (n == keep) return;
    if (!v.stays || v.entry.pinned || v.entry.state != CheckpointState::committed) continue;
    ++n;
    const std::vector<std::string> problems = verify_files(fs, v.entry.path, *v.entry.manifest);
    if (problems.empty()) continue;
    fail(
        ErrorKind::checkpoint,
        "{}, which would be kept as one of the newest {}, is damaged: {}; nothing was removed. Go back to an "
        "older one with varscope checkpoint rollback, or delete it, and prune again",
        v.entry.path, keep, fmt::join(problems, "; "));
  }
}

// Where a rule keeps the best by a figure that nobody has, the best one would go with the others.
void require_figures(Fs& fs, const std::string& dir, const std::vector<RetentionVerdict>& verdicts,
                     const RetentionPolicy& policy) {
  if (!policy.best || policy.best->count == 0) return;
  if (std::ranges::all_of(verdicts, &RetentionVerdict::stays)) return;
  std::set<std::string> figures;
  for (const RetentionVerdict& v : verdicts) {
    if (v.entry.state != CheckpointState::committed) continue;
    if (const auto record = read_evaluation(fs, v.entry.path)) {
      for (const auto& [name, value] : record->values) figures.insert(name);
    }
  }
  if (figures.contains(policy.best->metric)) return;
  fail(ErrorKind::checkpoint,
       "no checkpoint in {} has the figure \"{}\" ({}), so the best one is not known; nothing was removed. "
       "Keep the best by another figure, or prune without that rule",
       dir, policy.best->metric,
       figures.empty() ? "none was evaluated" : fmt::format("they have {}", fmt::join(figures, ", ")));
}

}  // namespace

void rollback_tool(Fs& fs, const std::string& dir, std::int64_t step, ToolFormat format, std::string& out) {
  CheckpointDirectory directory = locked(fs, dir, "rollback");
  const CheckpointEntry target = entry_of(directory, step);
  if (const auto problems = verify_checkpoint(fs, target.path); !problems.empty()) {
    fail(ErrorKind::checkpoint, "cannot go back to {}, which is damaged: {}; nothing was changed",
         target.path, fmt::join(problems, "; "));
  }
  const std::vector<std::string> newer = directory.go_back_to(step, "rollback");
  directory.renew_latest();
  if (format == ToolFormat::json) {
    out += json_text({{"newest", target.name}, {"set_aside", newer}});
    return;
  }
  for (const std::string& name : newer) out += fmt::format("{} set aside\n", name);
  out += fmt::format("{} is the newest checkpoint{}\n", target.name,
                     newer.empty() ? " already: nothing was set aside" : "");
}

void pin_tool(Fs& fs, const std::string& dir, std::int64_t step, PinChange change, ToolFormat format,
              std::string& out) {
  const CheckpointDirectory directory = locked(fs, dir, "pin");
  const CheckpointEntry entry = entry_of(directory, step);
  const bool pin = change == PinChange::pin;
  const std::string file = join_path(entry.path, kPinnedName);
  if (pin && !entry.pinned) write_whole_file(fs, file, "kept by varscope checkpoint pin\n");
  if (!pin) fs.remove_all(file);
  fs.sync_dir(entry.path);
  if (format == ToolFormat::json) {
    out += json_text({{"name", entry.name}, {"pinned", pin}});
    return;
  }
  out += fmt::format("{} {}\n", entry.name,
                     pin ? "is pinned: it is never removed" : "is not pinned: it is removed when it is old");
}

void prune_tool(Fs& fs, const std::string& dir, const RetentionPolicy& policy, PruneMode mode,
                ToolFormat format, std::string& out) {
  if (policy.keep < 1) fail(ErrorKind::argument, "cannot keep {} checkpoints: keep 1 or more", policy.keep);
  CheckpointDirectory directory = locked(fs, dir, "prune");
  const std::vector<RetentionVerdict> verdicts = judge_retention(fs, directory.scan(), policy);
  const bool dry = mode == PruneMode::dry_run;
  require_figures(fs, dir, verdicts, policy);
  verify_newest(fs, verdicts, policy.keep);
  if (!dry) directory.retain(policy);
  std::vector<std::string> names;
  Json kept = Json::object();
  std::uint64_t bytes = 0;
  for (const RetentionVerdict& v : verdicts) {
    if (v.stays) {
      kept[v.entry.name] = v.why;
      continue;
    }
    names.push_back(v.entry.name);
    bytes += bytes_of(v.entry);
  }
  if (format == ToolFormat::json) {
    out += json_text({{"dry_run", dry},
                      {"removed", names},
                      {"kept", kept},
                      {"bytes", bytes},
                      {"warnings", directory.warnings()}});
    return;
  }
  for (const RetentionVerdict& v : verdicts) {
    if (v.stays && dry) out += fmt::format("{} stays: {}\n", v.entry.name, v.why);
    if (!v.stays) out += fmt::format("{} {}\n", v.entry.name, dry ? "would be removed" : "removed");
  }
  for (const std::string& warning : directory.warnings()) out += "warning: " + warning + "\n";
  out += fmt::format("{} checkpoint{}, {} bytes{}\n", names.size(), names.size() == 1 ? "" : "s", bytes,
                     dry ? ": a dry run, nothing was removed" : "");
}

}  // namespace varscope
