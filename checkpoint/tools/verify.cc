#include "checkpoint/tools/verify.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/verify_once.h"
#include "common/base/error.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

struct Verdict {
  std::string path;
  std::vector<std::string> problems;
  std::optional<Manifest> manifest;  // where there are none
  std::string of_metrics;            // what is wrong with METRICS, which recovery does not need
  bool is_whole() const { return manifest && of_metrics.empty(); }
};

Verdict judge(Fs& fs, const std::string& path, const VerifyFiles& verify) {
  Verification verification = verify_whole(fs, path, verify);
  return {path, std::move(verification.problems), std::move(verification.manifest),
          evaluation_problem(fs, path)};
}

std::string text_of(const Verdict& v) {
  std::string text = v.manifest ? fmt::format("{}: good, {} files, {} bytes, values hash {}\n", v.path,
                                              v.manifest->files.size(), total_bytes(*v.manifest),
                                              values_hash_of(*v.manifest).hex())
                                : fmt::format("{}: DAMAGED\n  {}\n", v.path, fmt::join(v.problems, "\n  "));
  if (v.manifest && !v.manifest->not_finite.empty())
    text += fmt::format("  not finite: {}\n", not_finite_text(*v.manifest));
  if (!v.of_metrics.empty()) text += fmt::format("  {}\n", v.of_metrics);
  return text;
}

Json json_of(const Verdict& v) {
  Json json = {{"path", v.path}, {"state", v.manifest ? "good" : "damaged"}};
  if (v.manifest) {
    json["files"] = v.manifest->files.size();
    json["bytes"] = total_bytes(*v.manifest);
    json["values_hash"] = values_hash_of(*v.manifest).hex();
    json["finite"] = v.manifest->knows_not_finite ? Json(v.manifest->not_finite.empty()) : Json(nullptr);
  } else {
    json["problems"] = v.problems;
  }
  if (!v.of_metrics.empty()) json["evaluation_problem"] = v.of_metrics;
  return json;
}

}  // namespace

int verify_tool(Fs& fs, const std::string& path_or_dir, std::string& out, ToolFormat format) {
  std::vector<std::string> paths;
  for (const CheckpointName& e : list_checkpoints(fs, directory_of_checkpoints(fs, path_or_dir)))
    paths.push_back(e.path);
  const std::string name = base_name(path_or_dir);
  const bool is_one = fs.exists(join_path(path_or_dir, kManifestName)) || name.starts_with("step-") ||
                      name.starts_with(kSupersededPrefix);
  if (paths.empty() && is_one && fs.is_directory(path_or_dir)) paths.push_back(path_or_dir);
  if (paths.empty()) fail(ErrorKind::checkpoint, "there is no checkpoint at {}", path_or_dir);
  // The newest come first in what is printed; those that wrote files which others link come first here.
  VerifyOnce once;
  const VerifyFiles verify = [&](Fs& f, const std::string& path, const Manifest& m) {
    return once(f, path, m);
  };
  std::vector<Verdict> verdicts;
  for (auto path = paths.rbegin(); path != paths.rend(); ++path) verdicts.push_back(judge(fs, *path, verify));
  std::ranges::reverse(verdicts);
  bool good = true;
  Json checkpoints = Json::array();
  for (const Verdict& verdict : verdicts) {
    good = good && verdict.is_whole();
    if (format == ToolFormat::json) {
      checkpoints.push_back(json_of(verdict));
    } else {
      out += text_of(verdict);
    }
  }
  if (format == ToolFormat::json) out += json_text({{"good", good}, {"checkpoints", checkpoints}});
  return good ? 0 : static_cast<int>(ExitCode::difference);
}

}  // namespace varscope
