#include "checkpoint/tools/prune.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/linked_bytes.h"
#include "checkpoint/tools/locked_directory.h"
#include "common/base/error.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

// What stays as the newest must be good to the last byte: the last good one could be among those that go.
void verify_newest(Fs& fs, const std::vector<RetentionVerdict>& verdicts, std::int64_t keep) {
  std::int64_t n = 0;
  for (const RetentionVerdict& v : verdicts) {
    if (n == keep) return;
    if (!v.stays || v.entry.pinned || v.entry.state != CheckpointState::committed ||
        !v.entry.manifest->not_finite.empty())
      continue;
    ++n;
    const std::vector<std::string> problems = verify_files(fs, v.entry.path, *v.entry.manifest);
    if (problems.empty()) continue;
    fail(ErrorKind::checkpoint,
         "{}, which would be kept as one of the newest {}, is damaged: {}; nothing was removed. Go back to "
         "an older one with varscope checkpoint rollback, or delete it, and prune again",
         v.entry.path, keep, fmt::join(problems, "; "));
  }
}

// Where a rule keeps the best by a metric that nobody has, the best one would go with the others.
void require_metric(Fs& fs, const std::string& dir, const std::vector<RetentionVerdict>& verdicts,
                    const RetentionPolicy& policy) {
  if (!policy.best || policy.best->count == 0) return;
  if (std::ranges::all_of(verdicts, &RetentionVerdict::stays)) return;
  std::set<std::string> metrics;
  for (const RetentionVerdict& v : verdicts) {
    if (v.entry.state != CheckpointState::committed) continue;
    if (const auto record = read_evaluation(fs, v.entry.path)) {
      for (const auto& [name, value] : record->values) metrics.insert(name);
    }
  }
  if (metrics.contains(policy.best->metric)) return;
  fail(ErrorKind::checkpoint,
       "no checkpoint in {} has the metric \"{}\" ({}), so the best one is not known; nothing was removed. "
       "Keep the best by another metric, or prune without that rule",
       dir, policy.best->metric,
       metrics.empty() ? "none was evaluated" : fmt::format("they have {}", fmt::join(metrics, ", ")));
}

}  // namespace

void prune_tool(Fs& fs, const std::string& dir, const RetentionPolicy& policy, PruneMode mode,
                ToolFormat format, std::string& out) {
  if (policy.keep < 1) fail(ErrorKind::argument, "cannot keep {} checkpoints: keep 1 or more", policy.keep);
  CheckpointDirectory directory = locked_directory(fs, dir, "prune");
  const std::vector<RetentionVerdict> verdicts = judge_retention(fs, directory.scan(), policy);
  const bool dry = mode == PruneMode::dry_run;
  require_metric(fs, dir, verdicts, policy);
  verify_newest(fs, verdicts, policy.keep);
  std::vector<const CheckpointEntry*> removed;
  for (const RetentionVerdict& v : verdicts) {
    if (!v.stays) removed.push_back(&v.entry);
  }
  const FreedBytes bytes = freed_bytes(fs, removed);
  if (!dry) directory.retain(policy);
  std::vector<std::string> names;
  Json kept = Json::object();
  for (const RetentionVerdict& v : verdicts) {
    if (v.stays) {
      kept[v.entry.name] = v.why;
      continue;
    }
    names.push_back(v.entry.name);
  }
  if (format == ToolFormat::json) {
    out += json_text({{"dry_run", dry},
                      {"removed", names},
                      {"kept", kept},
                      {"bytes", bytes.freed},
                      {"bytes_that_stay", bytes.stay},
                      {"warnings", directory.warnings()}});
    return;
  }
  for (const RetentionVerdict& v : verdicts) {
    if (v.stays && dry) out += fmt::format("{} stays: {}\n", v.entry.name, v.why);
    if (!v.stays) out += fmt::format("{} {}\n", v.entry.name, dry ? "would be removed" : "removed");
  }
  for (const std::string& warning : directory.warnings()) out += "warning: " + warning + "\n";
  const std::string stay =
      bytes.stay == 0 ? ""
                      : fmt::format(" ({} more are of files that other checkpoints have, too)", bytes.stay);
  out += fmt::format("{} checkpoint{}, {} bytes{}{}\n", names.size(), names.size() == 1 ? "" : "s",
                     bytes.freed, stay, dry ? ": a dry run, nothing was removed" : "");
}

}  // namespace varscope
