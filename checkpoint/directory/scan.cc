#include "checkpoint/directory/scan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

// The step in "step-000012000", or -1 when that is not the name of a checkpoint.
std::int64_t step_of(const std::string& name) {
  std::int64_t step = -1;
  if (!name.starts_with("step-")) return -1;
  std::from_chars(name.data() + 5, name.data() + name.size(), step);
  return step >= 0 && step_name(step) == name ? step : -1;
}

// Where that cannot be known, yes: what may be pinned is not removed.
bool is_pinned(Fs& fs, const std::string& path) {
  try {
    return fs.exists(join_path(path, kPinnedName));
  } catch (const Error&) {
    return true;  // look_at() meets the same error, or it has passed
  }
}

// file_problems(); `unreadable` (may be null) is set when one of them is an error of the file system.
std::vector<std::string> size_problems(Fs& fs, const std::string& path, const Manifest& manifest,
                                       bool* unreadable) {
  std::vector<std::string> problems;
  for (const FileRecord& f : manifest.files) {
    try {
      const std::string file = join_path(path, f.name);
      if (!fs.exists(file)) {
        problems.push_back(f.name + " is missing" + writer_text(f.name));
      } else if (const std::uint64_t size = fs.open(file)->size(); size != f.size) {
        problems.push_back(
            fmt::format("{} has {} bytes instead of {}{}", f.name, size, f.size, writer_text(f.name)));
      }
    } catch (const Error& e) {
      problems.push_back(e.what());
      if (unreadable != nullptr) *unreadable = true;
    }
  }
  return problems;
}

}  // namespace

std::string temporary_path(const std::string& dir, const std::string& id) {
  return join_path(dir, kTmpPrefix + id);
}

LoadedManifest load_manifest(Fs& fs, const std::string& path) {
  const std::string file = join_path(path, kManifestName);
  if (!fs.exists(file))
    fail(ErrorKind::checkpoint, "{} is not a checkpoint: it has no {}", path, kManifestName);
  const std::string bytes = read_whole_file(fs, file, kMaxEnvelopePayload + kEnvelopeBytes);
  return {decode_manifest(bytes, file), digest_of(std::string_view(bytes))};
}

std::vector<std::string> file_problems(Fs& fs, const std::string& path, const Manifest& manifest) {
  return size_problems(fs, path, manifest, nullptr);
}

std::string writer_text(const std::string& file) {
  const std::int64_t step = step_of_linked_file(file);
  return step < 0 ? "" : fmt::format(" (the save of step {} wrote it)", step);
}

std::string name_problem(const std::string& path, const Manifest& manifest) {
  const std::int64_t step = step_of(base_name(path));
  if (step < 0 || step == manifest.step) return "";
  return fmt::format("{} is of step {}, so the directory has been renamed", kManifestName, manifest.step);
}

std::vector<CheckpointName> list_checkpoints(Fs& fs, const std::string& dir) {
  std::vector<CheckpointName> all;
  if (!fs.is_directory(dir)) return all;
  for (const std::string& name : fs.list(dir)) {
    const std::int64_t step = step_of(name);
    if (step >= 0) all.push_back({name, join_path(dir, name), step});
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return all;
}

CheckpointEntry look_at(Fs& fs, CheckpointName name) {
  CheckpointEntry entry{std::move(name)};
  entry.pinned = is_pinned(fs, entry.path);
  try {
    LoadedManifest loaded = load_manifest(fs, entry.path);
    entry.manifest = std::move(loaded.manifest);
    entry.manifest_digest = loaded.digest;
    entry.reason = name_problem(entry.path, *entry.manifest);
    if (entry.reason.empty()) {
      entry.reason = fmt::format(
          "{}", fmt::join(size_problems(fs, entry.path, *entry.manifest, &entry.unreadable), "; "));
    }
  } catch (const Error& e) {
    entry.reason = e.what();
    entry.unreadable = e.kind() == ErrorKind::io;
  }
  if (!entry.reason.empty()) entry.state = CheckpointState::damaged;
  return entry;
}

std::vector<CheckpointEntry> scan_checkpoints(Fs& fs, const std::string& dir) {
  std::vector<CheckpointEntry> entries;
  for (CheckpointName& name : list_checkpoints(fs, dir)) entries.push_back(look_at(fs, std::move(name)));
  return entries;
}

std::string latest_text(const std::string& name, const Digest& manifest) {
  return name + " " + manifest.hex() + "\n";
}

std::string latest_problem(Fs& fs, const std::string& dir, const std::vector<CheckpointEntry>& entries) {
  return entries.empty() ? "" : latest_problem(fs, dir, entries.front());
}

std::string latest_problem(Fs& fs, const std::string& dir, const CheckpointEntry& newest) {
  const std::string path = join_path(dir, kLatestName);
  try {
    if (!fs.exists(path)) return fmt::format("{} is missing; {} was found by scanning", path, newest.name);
    const std::string text = read_whole_file(fs, path, 4096);
    const std::size_t space = text.find(' ');
    const std::string name = text.substr(0, space);
    if (space == std::string::npos ||
        text != latest_text(name, Digest::from_hex(text.substr(space + 1, 32)))) {
      return fmt::format("{} is torn; {} was found by scanning", path, newest.name);
    }
    if (name != newest.name)
      return fmt::format("{} is stale: it names {}, the newest is {}", path, name, newest.name);
    if (newest.manifest && text != latest_text(name, newest.manifest_digest)) {
      return fmt::format("{} is stale: it names {} with another {}", path, name, kManifestName);
    }
  } catch (const Error& e) {
    return fmt::format("{} cannot be used ({}); {} was found by scanning", path, e.what(), newest.name);
  }
  return "";
}

std::string lineage_text(Fs& fs, const std::string& dir) {
  constexpr std::uint64_t kMost = 16 << 20;
  const std::string path = join_path(dir, kLineageName);
  if (!fs.exists(path)) return "";
  std::string text = read_whole_file(fs, path, kMost);
  text.resize(text.rfind('\n') + 1);  // npos + 1 is 0
  return text;
}

std::string directory_of_checkpoints(Fs& fs, const std::string& path) {
  const std::string below = join_path(path, "checkpoints");
  return list_checkpoints(fs, path).empty() && !list_checkpoints(fs, below).empty() ? below : path;
}

}  // namespace varscope
