// What compression brings on a slow link between two hosts of this machine (M6).
#include <fmt/format.h>

#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/consistency/paused_jobs.h"

namespace varscope::bench {
namespace {

struct Compression {
  const char* name;
  Args keys;
  Goal goal;
};

// Nearly all of a step is its bytes: 1.3 MB of gradients up and as many of values down.
PausedJob wide_job(const ConsistencyOptions& options) {
  PausedJob job;
  job.workers = 1;
  job.units = options.is_small ? 64 : 1200;
  job.steps = options.is_small ? 8 : 60;
  return job;
}

Args command_of(const ConsistencyOptions& options, const ScratchDir& dir, const Args& keys) {
  Args command = {options.two_hosts,           "100mbit", options.program, "train", dir / "job.yaml", "--set",
                  "job.run_dir=" + dir / "run"};
  for (const std::string& key : keys) command.insert(command.end(), {"--set", key});
  return command;
}

double speed_over_link(const ConsistencyOptions& options, const Args& keys) {
  const ScratchDir dir;
  std::ofstream(dir / "job.yaml") << yaml_of(wide_job(options));
  run_command(command_of(options, dir, keys), dir / "output");
  return speed_in(dir / "run/metrics.jsonl");
}

// Why this machine cannot be two hosts; nothing where it can.
std::optional<std::string> why_not_two_hosts(const ConsistencyOptions& options) {
  const ScratchDir dir;
  try {
    run_command({options.two_hosts, "100mbit", "true"}, dir / "output");
  } catch (const std::runtime_error&) {
    const std::string said = text_of_file(dir / "output");
    if (said.find("no hosts of this machine's own") == std::string::npos) throw;
    return said.substr(0, said.find('\n'));
  }
  return std::nullopt;
}

}  // namespace

Figures measure_slow_link(const ConsistencyOptions& options) {
  const std::vector<Compression> types = {
      {"bf16, values bf16",
       {"model.compression.type=bf16", "model.compression.values=bf16"},
       {Bound::at_least, 1.6}},
      {"onebit, values bf16",
       {"model.compression.type=onebit", "model.compression.start_step=0", "model.compression.values=bf16"},
       {Bound::at_least, 2.5}}};
  const std::string what = "100 Mbit/s between server and worker: ";
  const std::optional<std::string> why = why_not_two_hosts(options);
  Figures figures;
  std::vector<double> whole;
  std::vector<std::vector<double>> speeds(types.size()), ratios(types.size());
  for (int t = 0; !why && t < options.trials; ++t) {
    whole.push_back(speed_over_link(options, {}));
    for (std::size_t i = 0; i < types.size(); ++i) {
      speeds[i].push_back(speed_over_link(options, types[i].keys));
      ratios[i].push_back(speeds[i].back() / whole.back());
    }
  }
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (why) {
      figures.push_back(skipped_figure("M6", what + types[i].name, types[i].goal, *why));
    } else {
      figures.push_back({"M6", what + types[i].name, "samples/s", Spread::of(speeds[i]), Spread::of(whole),
                         Spread::of(ratios[i]), types[i].goal});
    }
  }
  return figures;
}

}  // namespace varscope::bench
