// What a record of an ASP run costs, and whether its replay ends with the same bits (M7).
#include <fmt/format.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/consistency/paused_jobs.h"

namespace varscope::bench {
namespace {

PausedJob job_of(const ConsistencyOptions& options) {
  PausedJob job;
  job.steps = options.steps;
  job.pause = fmt::format("base_ms: {}, slow_ms: {}, who: random, share: 0.2", options.is_small ? 1 : 5,
                          options.is_small ? 4 : 20);
  return job;
}

std::string hash_in(const std::string& output) {
  std::istringstream lines(text_of_file(output));
  for (std::string line; std::getline(lines, line);) {
    if (line.find("values hash") != std::string::npos) return line.substr(line.rfind(' ') + 1);
  }
  throw std::runtime_error(output + " has no hash of the values");
}

}  // namespace

Figures measure_recording(const ConsistencyOptions& options) {
  const PausedJob job = job_of(options);
  const Mode mode = asp_mode("dynamic");
  Args keys = mode.keys;
  keys.push_back("cluster.record=true");
  std::vector<double> recorded, plain, ratios, others;
  for (int t = 0; t < options.trials; ++t) {
    plain.push_back(speed_of(options, job, mode));
    const ScratchDir dir;
    std::ofstream(dir / "job.yaml") << yaml_of(job);
    run_job(options, dir, dir / "job.yaml", job.workers, keys);
    recorded.push_back(speed_in(dir / "run/metrics.jsonl"));
    ratios.push_back(recorded.back() / plain.back());
    const std::string hash = hash_in(dir / "output");
    run_job(options, dir, dir / "job.yaml", job.workers, keys, {"--replay", dir / "run"});
    others.push_back(hash_in(dir / "output") == hash ? 0 : 1);
  }
  const std::string what = fmt::format("a recorded run of {}, W={}", mode.name, job.workers);
  return {{"M7",
           what + ": speed, over one that is not",
           "samples/s",
           Spread::of(recorded),
           Spread::of(plain),
           Spread::of(ratios),
           {Bound::at_least, 0.99}},
          count_figure("M7", what + ": replays with other bits", others, {Bound::at_most, 0})};
}

}  // namespace varscope::bench
