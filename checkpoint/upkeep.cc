#include "checkpoint/upkeep.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "checkpoint/committer.h"
#include "checkpoint/reader.h"
#include "checkpoint/scan.h"
#include "common/error.h"

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

}  // namespace

void rollback_tool(Fs& fs, const std::string& dir, std::int64_t step, ToolFormat format, std::string& out) {
  CheckpointDirectory directory = locked(fs, dir, "rollback");
  const CheckpointEntry target = entry_of(directory, step);
  if (const auto problems = verify_checkpoint(fs, target.path); !problems.empty()) {
    fail(ErrorKind::checkpoint, "cannot go back to {}, which is damaged: {}; nothing was changed",
         target.path, fmt::join(problems, "; "));
  }
  std::vector<std::string> newer;
  for (const CheckpointEntry& entry : directory.scan()) {
    if (entry.step > step) newer.push_back(entry.name);
  }
  // The record comes first: a crash leaves a rollback that is known and can be repeated.
  if (!newer.empty()) {
    directory.record(Json{{"event", "rollback"},
                          {"to", target.name},
                          {"set_aside", newer},
                          {"unix_time", static_cast<std::int64_t>(std::time(nullptr))}}
                         .dump());
    directory.set_aside_after(step);
  }
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

void prune_tool(Fs& fs, const std::string& dir, int keep, PruneMode mode, ToolFormat format,
                std::string& out) {
  if (keep < 1) fail(ErrorKind::argument, "cannot keep {} checkpoints: keep 1 or more", keep);
  CheckpointDirectory directory = locked(fs, dir, "prune");
  const std::vector<CheckpointEntry> surplus = directory.surplus(keep);
  const bool dry = mode == PruneMode::dry_run;
  if (!dry) directory.retain(keep);
  std::vector<std::string> names;
  std::uint64_t bytes = 0;
  for (const CheckpointEntry& entry : surplus) {
    names.push_back(entry.name);
    bytes += bytes_of(entry);
  }
  if (format == ToolFormat::json) {
    out += json_text(
        {{"dry_run", dry}, {"removed", names}, {"bytes", bytes}, {"warnings", directory.warnings()}});
    return;
  }
  for (const std::string& name : names)
    out += fmt::format("{} {}\n", name, dry ? "would be removed" : "removed");
  for (const std::string& warning : directory.warnings()) out += "warning: " + warning + "\n";
  out += fmt::format("{} checkpoint{}, {} bytes{}\n", names.size(), names.size() == 1 ? "" : "s", bytes,
                     dry ? ": a dry run, nothing was removed" : "");
}

}  // namespace varscope
