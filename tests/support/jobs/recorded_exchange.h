#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "common/transport/loopback_transport.h"
#include "ps/record/recorded_order.h"

// Real servers, coordinator and clients of SSP or ASP, whose gradients depend on the values that were read:
// what is done in another order ends in other bits. Over threads of one process.
namespace varscope::testing {

struct RecordedExchange {
  StepRule rule;
  int n_servers = 2, n_workers = 3, n_leaves = 5;
  std::int64_t steps = 12;
  std::int64_t evaluates_every = 0;
  std::string run_dir;                // record and checkpoints are in it
  std::int64_t saves_every = 0;       // steps; 0: no checkpoints
  std::optional<RecordedRun> replay;  // else the run is recorded
  std::int64_t first = 0;             // not 0: goes on from the checkpoint of this step
  std::uint64_t seed = 1;             // of delays only
  int most_delay = 20;                // polls
};

struct RecordedResult {
  std::string error;  // the first rank's; empty when all went well
  std::string hash;   // of the values at the end
  std::vector<std::int64_t> saved;
  // What all workers have read, in the order of the tickets: a digest for each.
  std::vector<std::string> reads;
  // What they have read at an evaluation, by its step.
  std::map<std::int64_t, std::set<std::string>> evaluated;
};

RecordedResult run_exchange(const RecordedExchange& e);

}  // namespace varscope::testing
