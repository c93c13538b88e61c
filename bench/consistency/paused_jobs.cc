#include "bench/consistency/paused_jobs.h"

#include <fmt/format.h>

#include <fstream>

namespace varscope::bench {

Mode bsp_mode() { return {"BSP", {}}; }

Mode delay_mode(int delay) {
  return {fmt::format("delay {}", delay), {fmt::format("cluster.delay={}", delay)}};
}

Mode ssp_mode(int staleness, const std::string& dealing) {
  return {fmt::format("SSP({}), {}", staleness, dealing),
          {"cluster.consistency=ssp", fmt::format("cluster.staleness={}", staleness),
           "cluster.dealing=" + dealing}};
}

Mode asp_mode(const std::string& dealing) {
  return {"ASP, " + dealing, {"cluster.consistency=asp", "cluster.dealing=" + dealing}};
}

std::string yaml_of(const PausedJob& job) {
  // The pause is behind the layer that waits for the step's values, as a slow computation is.
  const std::string pause = job.pause.empty() ? "" : fmt::format("    - {{type: pause, {}}}\n", job.pause);
  return fmt::format(R"(job: {{name: pauses}}
cluster: {{servers: 1}}
data: {{train: {{type: digits, samples: 9600}}}}
model:
  loss: softmax_cross_entropy
  layers:
    - {{type: dense, scope: hidden, units: {}, activation: relu, initializer: fan_in_uniform}}
{}    - {{type: dense, scope: output, units: 10, initializer: fan_in_uniform}}
optimizer: {{type: sgd, learning_rate: 0.1}}
train: {{batch: {}, epochs: 10000, max_steps: {}, log_every_steps: {}}}
checkpoint: {{every_steps: 0, at_end: false}}
)",
                     job.units, pause, job.samples_of_step(), job.steps, job.log_every);
}

void run_job(const ConsistencyOptions& options, const ScratchDir& dir, const std::string& config_file,
             int workers, const Args& keys, const Args& more) {
  Args command = {options.mpirun,  "--quiet", "-n",       std::to_string(workers + 1),
                  options.program, "train",   config_file};
  for (const std::string& key : keys) command.insert(command.end(), {"--set", key});
  command.insert(command.end(), {"--set", "job.run_dir=" + dir / "run"});
  command.insert(command.end(), more.begin(), more.end());
  run_command(command, dir / "output");
}

double speed_of(const ConsistencyOptions& options, const PausedJob& job, const Mode& mode) {
  const ScratchDir dir;
  std::ofstream(dir / "job.yaml") << yaml_of(job);
  run_job(options, dir, dir / "job.yaml", job.workers, mode.keys);
  return speed_in(dir / "run/metrics.jsonl");
}

}  // namespace varscope::bench
