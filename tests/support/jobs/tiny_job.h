#pragma once

#include <map>
#include <string>

#include "tests/support/jobs/job.h"

namespace varscope::testing {

// A job as small as it can be with something on each of its two servers: 300 steps, a fraction of a second.
// It ends in the same bits on one worker or two, under mpirun or in one process.
inline constexpr std::int64_t kTinySteps = 300;

inline Args tiny_arguments(const std::string& run_dir, const Args& more = {}) {
  return Args{"train", config_file("digits_mlp.yaml")} +
         set({"job.run_dir=" + run_dir, "cluster.servers=2", "cluster.logical_workers=2",
              "data.train.samples=640", "data.test.samples=64", "model.layers.0.units=16",
              "model.layers.1.units=16", "train.epochs=100000",
              "train.max_steps=" + std::to_string(kTinySteps), "train.eval_every_epochs=0",
              "checkpoint.every_steps=100"}) +
         more;
}

// On ranks 0 and 1 the servers, on rank 2 the worker.
inline Command tiny_mpirun(const std::string& run_dir, const Args& more = {}) {
  return mpirun(3, tiny_arguments(run_dir, more));
}
inline Command tiny_alone(const std::string& run_dir, const Args& more = {}) {
  return varscope(tiny_arguments(run_dir, more));
}

// Saves after step 5, and again as soon as a save is done, however long the disk takes for it.
inline constexpr std::int64_t kFirstSave = 5;
inline Args saving_always() {
  return set({"checkpoint.every_steps=" + std::to_string(kFirstSave), "checkpoint.when_busy=queue",
              "checkpoint.timeout_s=600"});
}

// For tests that must not see the end of training before the second save. A step takes some 0.1 ms, an fsync
// of a busy disk more than all of them: they leave fsync out as well (Syncs::left_out), where it does not
// matter.
inline constexpr std::int64_t kLongerSteps = 3000;
inline Args longer() { return set({"train.max_steps=" + std::to_string(kLongerSteps)}); }

// The values hash of a run that nothing happened to.
inline const std::string& tiny_hash(std::int64_t steps = kTinySteps) {
  static std::map<std::int64_t, std::string> hashes;
  std::string& hash = hashes[steps];
  if (hash.empty()) {
    const ScratchDir dir;
    hash = train(tiny_alone(dir / "run", set({"train.max_steps=" + std::to_string(steps)}))).hash;
  }
  return hash;
}

}  // namespace varscope::testing
