#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ps/observe/run_observer.h"

namespace varscope::testing {

// A job as a config says it, with the real trainers, servers and coordinator, as threads of this process.
struct TrainerJobResult {
  std::string error;  // the first rank's; empty when all went well
  std::string hash;   // of the values at the end
  std::vector<EpochSummary> epochs;
  std::vector<EvalSummary> evaluations;
  std::vector<StepSummary> steps;
  std::vector<std::string> notes;
  FinishSummary finish;
  std::uint64_t bytes_up = 0;  // data of all workers
  std::uint64_t bytes_down = 0;
};

// `config`: YAML, which says cluster.servers. Without checkpoints.
TrainerJobResult run_trainers(const std::string& config, int n_workers);

}  // namespace varscope::testing
