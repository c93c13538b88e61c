// Jobs whose workers are slow by a table (paused_varscope.cc): slowness changes no bit of BSP, and every mode
// comes to its end.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr int kSteps = 24;

// One server and so many workers; `pause`: the layer's keys, or "" for none.
Ended run_paused(int workers, const std::string& pause, const Args& more = {}) {
  const ScratchDir dir;
  const std::string layer = pause.empty() ? "" : "    - {type: pause, " + pause + "}\n";
  write_text(dir / "job.yaml", R"(job: {name: paused}
data: {train: {type: digits, samples: 1000}}
model:
  loss: softmax_cross_entropy
  layers:
    - {type: dense, scope: hidden, units: 32, activation: relu, initializer: fan_in_uniform}
)" + layer + R"(    - {type: dense, scope: output, units: 10, initializer: fan_in_uniform}
optimizer: {type: sgd, learning_rate: 0.1}
train: {batch: 60, epochs: 100, max_steps: )" +
                                   std::to_string(kSteps) + R"(}
checkpoint: {every_steps: 0, at_end: false}
)");
  Command command =
      mpirun(workers + 1, Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")}) + more);
  std::ranges::replace(command.argv, std::string(VARSCOPE_BINARY), std::string(VARSCOPE_PAUSED_BINARY));
  return run(command);
}

Summary summary_in(const Ended& job) {
  EXPECT_EQ(job.code, 0) << job.all();
  const Summary summary = summary_of(job.out);
  EXPECT_EQ(summary.step, kSteps) << job.all();
  EXPECT_FALSE(summary.hash.empty()) << job.all();
  return summary;
}

TEST(PausedJob, SlowWorkersChangeNoBitOfBsp) {
  const std::string hash = summary_in(run_paused(3, "")).hash;
  for (const char* pause :
       {"base_ms: 0, slow_ms: 20, who: rotating", "base_ms: 1, slow_ms: 20, who: fixed, worker: 2",
        "base_ms: 0, slow_ms: 20, who: random, share: 0.3, deaf: true"}) {
    EXPECT_EQ(summary_in(run_paused(3, pause)).hash, hash) << pause;
  }
}

TEST(PausedJob, EveryModeEndsWhileWorkersAreSlowAndDeaf) {
  const std::vector<Args> modes = {
      set({"cluster.consistency=ssp", "cluster.staleness=1", "cluster.dealing=static"}),
      set({"cluster.consistency=ssp", "cluster.staleness=3", "cluster.dealing=dynamic"}),
      set({"cluster.consistency=asp", "cluster.dealing=static"}),
      set({"cluster.consistency=asp", "cluster.dealing=dynamic"})};
  for (const Args& mode : modes) {
    SCOPED_TRACE(mode.back() + " of " + mode[1]);
    summary_in(run_paused(3, "base_ms: 0, slow_ms: 30, who: random, share: 0.3, deaf: true",
                          mode + set({"cluster.logical_workers=5"})));
  }
}

TEST(PausedJob, OutsideBspTheSlowWorkerIsNamed) {
  const Ended job = run_paused(3, "base_ms: 2, slow_ms: 60, who: fixed, worker: 1",
                               set({"cluster.consistency=asp", "cluster.dealing=static"}));
  summary_in(job);
  EXPECT_NE(job.out.find("\n  slowest      worker 1 computed "), std::string::npos) << job.all();
}

// What a pause that does not happen, or of another worker, would not show.
TEST(PausedJob, BspWaitsForItsSlowWorkerInEachStep) {
  const Ended job = run_paused(2, "base_ms: 0, slow_ms: 100, who: fixed, worker: 1");
  summary_in(job);
  EXPECT_GE(job.seconds, 0.1 * kSteps) << job.all();
}

}  // namespace
}  // namespace varscope::testing
