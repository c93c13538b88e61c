#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ps/server_rank.h"
#include "tests/support/jobs/ps_exchange.h"

// Real servers and clients with backup workers, over a loopback transport, and what must come of it.
namespace varscope::testing {

struct CountedExchange {
  Exchange exchange;  // variables, optimizer, seed, steps, first, checkpoints and limits are used
  int n_servers = 1, n_workers = 4, n_backups = 1;
  // Whether a worker has no gradient of a step in time: it waits until that has been let go without it. At
  // most `n_backups` of a step are late.
  std::function<bool(Clock, WorkerId)> is_late = [](Clock, WorkerId) { return false; };
  // How many samples of a step a worker has; what they weigh is 1 + the worker's number each.
  std::function<std::int64_t(Clock, WorkerId)> samples = [](Clock, WorkerId) { return 2; };
  // This worker takes no message and no data from its first step on, until the others have done so many.
  std::optional<WorkerId> sleeper = {};
  int sleeps_until = 0;
  std::string record_dir = {};  // a recorded run is written there
  std::string replay_dir = {};  // or done again
};

struct CountedResult {
  std::string error;  // the first rank's; "" when all went well
  std::optional<FinishSummary> finish;
  std::vector<StepSummary> steps;
  IdVector<WorkerId, Digest> worker_hash;  // without rows of tables
  IdVector<WorkerId, int> n_dropped;       // steps, as the worker saw it
  IdVector<WorkerId, int> n_catch_ups;     // how often it went on with the newest values
};
CountedResult run_counted(const CountedExchange& e);

// The run by definition, where in each step the workers count that are not late: one process, whole
// variables.
Digest counted_reference_hash(const CountedExchange& e);
// What all samples of the step weigh over what the counted ones weigh; and their numbers.
CountedPush counted_push(const CountedExchange& e, Clock step, const CountedWorkers& counted);

}  // namespace varscope::testing
