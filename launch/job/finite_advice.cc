#include "launch/job/finite_advice.h"

#include <optional>
#include <string_view>

#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/finite.h"
#include "common/base/error.h"
#include "launch/process/go_on.h"
#include "launch/process/launcher.h"

namespace varscope {
namespace {

struct Finite {
  std::string path;
  std::int64_t step = 0;
};

std::optional<Finite> newest_finite(Fs& fs, const StartPacket& start, const std::string& resumed) {
  try {
    if (const auto own = newest_finite_checkpoint(fs, start.job.checkpoint_dir()))
      return Finite{own->path, own->step};
    if (resumed.empty()) return std::nullopt;
    const Manifest manifest = load_manifest(fs, resumed).manifest;
    if (is_finite(fs, resumed, manifest)) return Finite{resumed, manifest.step};
    return std::nullopt;
  } catch (const Error&) {
    return std::nullopt;  // why the run ends is being told; that nothing can be named is all that is lost
  }
}

// The command that goes on from that checkpoint. A launch script knows best how it was called.
std::string command_from(const StartPacket& start, const std::string& checkpoint) {
  const std::string resume = "--resume=" + shell_word(checkpoint);
  if (start.go_on.empty() || has_launcher()) return "the same command with " + resume;
  std::string command = start.go_on + " ";
  constexpr std::string_view kResume = " --resume ";
  for (std::size_t at = command.find(kResume); at != std::string::npos; at = command.find(kResume, at))
    command.replace(at, kResume.size(), " " + resume + " ");
  command.pop_back();
  return command;
}

// Of a recorded run the very same is done again.
std::string how_to_see_it(const StartPacket& start) {
  const std::string replay =
      start.job.cluster.record ? "--replay " + shell_word(start.job.run_dir()) + " " : "";
  return replay + "--check-numerics names the op that makes the first one";
}

}  // namespace

std::string finite_advice(Fs& fs, const StartPacket& start, const std::string& resumed) {
  if (start.is_replay()) {
    return start.check_numerics
               ? "as in the recorded run"
               : "as in the recorded run; with --check-numerics, too, the op is named that makes the "
                 "first one";
  }
  const std::optional<Finite> finite = newest_finite(fs, start, resumed);
  if (!finite) {
    return "there is no finite checkpoint to go on from: start anew with a lower optimizer.learning_rate or "
           "optimizer.clip; " +
           how_to_see_it(start);
  }
  return fmt::format(
      "the newest finite checkpoint is {} (step {}); go on from it with a lower optimizer.learning_rate or "
      "with optimizer.clip: {}; {}",
      finite->path, finite->step, command_from(start, finite->path), how_to_see_it(start));
}

std::string start_warning(Fs& fs, const StartPacket& start, const std::string& path,
                          const std::vector<NotFiniteTensor>& not_finite) {
  if (not_finite.empty()) return "";
  const std::string text = fmt::format("checkpoint {} is not finite: {}", path, not_finite_text(not_finite));
  if (start.job.train.on_nan == OnNan::warn)
    return text + "; the run starts from it all the same (train.on_nan: warn)";
  fail(ErrorKind::not_finite, "{}; nothing was started (train.on_nan: stop); {}", text,
       finite_advice(fs, start, ""));
}

}  // namespace varscope
