#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/compression/compression.h"
#include "common/config/flush_rule.h"
#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "common/transport/loopback_transport.h"
#include "common/variables/variable_table.h"
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
  Compression compression = {};       // of the float32 weights
  FlushRule flush = {};               // of what that keeps back
  // Gradients count, see counted_gradient(), in place of those that depend on values; sgd with rate 1.
  bool is_counting = false;
  std::optional<Shape> weights = {};  // of the first one; nothing: two slices
  bool forgets_residuals = false;     // a counter-test: what compression keeps back is forgotten at once
};

VariableTable recorded_variables(const RecordedExchange& e);
// What a ticket's gradient has for an element of a weight, where it counts: a small number, so that with
// shares that are powers of two nothing is rounded, in any order.
float counted_gradient(std::int64_t element, int leaf, std::int64_t step);
// What a run of counted gradients has taken off an element at its end: each times its share.
double counted_sum(const RecordedExchange& e, std::int64_t element);

struct RecordedResult {
  std::string error;  // the first rank's; empty when all went well
  std::string hash;   // of the values at the end
  std::vector<std::int64_t> saved;
  // What a worker has at the end: the first weight, whose first values are 0 where gradients count.
  std::vector<float> weights;
  double kept_back = 0;        // the largest that a worker's coder has kept back in a drain
  double most_kept_back = 0;   // the same, at any time
  std::uint64_t bytes_up = 0;  // data that all workers have sent
  // What all workers have read, in the order of the tickets: a digest for each.
  std::vector<std::string> reads;
  // What they have read at an evaluation, by its step.
  std::map<std::int64_t, std::set<std::string>> evaluated;
};

RecordedResult run_exchange(const RecordedExchange& e);

}  // namespace varscope::testing
