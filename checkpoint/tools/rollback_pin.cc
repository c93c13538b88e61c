#include "checkpoint/tools/rollback_pin.h"

#include <fmt/ranges.h>

#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/locked_directory.h"
#include "common/base/error.h"

namespace varscope {
namespace {

CheckpointEntry entry_of(const CheckpointDirectory& directory, std::int64_t step) {
  std::vector<std::string> names;
  for (CheckpointEntry& entry : directory.scan()) {
    if (entry.step == step) return std::move(entry);
    names.push_back(entry.name);
  }
  fail(ErrorKind::checkpoint, "there is no checkpoint of step {} in {}; {}", step, directory.dir(),
       names.empty() ? "it holds none" : fmt::format("it holds {}", fmt::join(names, ", ")));
}

}  // namespace

void rollback_tool(Fs& fs, const std::string& dir, std::int64_t step, ToolFormat format, std::string& out) {
  CheckpointDirectory directory = locked_directory(fs, dir, "rollback");
  const CheckpointEntry target = entry_of(directory, step);
  if (const auto problems = verify_checkpoint(fs, target.path); !problems.empty()) {
    fail(ErrorKind::checkpoint, "cannot go back to {}, which is damaged: {}; nothing was changed",
         target.path, fmt::join(problems, "; "));
  }
  const std::vector<std::string> newer = directory.go_back_to(step, "rollback");
  directory.renew_latest();
  if (format == ToolFormat::json) {
    out += json_text({{"newest", target.name}, {"set_aside", newer}, {"warnings", directory.warnings()}});
    return;
  }
  for (const std::string& warning : directory.warnings()) out += "warning: " + warning + "\n";
  for (const std::string& name : newer) out += fmt::format("{} set aside\n", name);
  out += fmt::format("{} is the newest checkpoint{}\n", target.name,
                     newer.empty() ? " already: nothing was set aside" : "");
}

void pin_tool(Fs& fs, const std::string& dir, std::int64_t step, PinChange change, ToolFormat format,
              std::string& out) {
  const CheckpointDirectory directory = locked_directory(fs, dir, "pin");
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

}  // namespace varscope
