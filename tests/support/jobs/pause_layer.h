#pragma once

#include <cstdint>

#include "worker/layers/layer.h"

namespace varscope::testing {

// Which worker is slow in a step.
enum class SlowOne : std::uint8_t {
  none,
  fixed,     // always PauseTable::worker
  rotating,  // worker `step mod workers`
  random,    // each with probability PauseTable::share, independently
};

// How long a worker pauses in a step: a pure function of (worker, step), so that every run of a table is slow
// at the same places. A value type.
struct PauseTable {
  double base_ms = 5;   // of whoever is not slow
  double slow_ms = 50;  // of whoever is
  SlowOne who = SlowOne::none;
  std::int64_t worker = 0;  // of fixed
  double share = 0.1;       // of random
  std::uint64_t seed = 1;   // of random
  bool is_slow(std::int64_t at, std::int64_t workers, std::int64_t step) const;
  double pause_ms(std::int64_t at, std::int64_t workers, std::int64_t step) const {
    return is_slow(at, workers, step) ? slow_ms : base_ms;
  }
};

// This process among those that mpirun started.
struct PauseRank {
  std::int64_t rank = 0, n_ranks = 1;
  // From Open MPI's environment; one process without it.
  static PauseRank of_environment();
};

// The layer `pause`: hands on its input and its gradient as they are, and sleeps in forward, when it trains,
// by a table of its keys. One op sleeps for at most a millisecond and the trainer polls between ops, so that
// a worker that pauses still sends and receives; with `deaf` there is one op, and the worker does neither.
// Belongs behind the first layer with variables: a worker then waits for its values before it pauses. The
// workers are the ranks from `servers` on, as they are on one machine. The sleep is of the worker, whatever
// logical worker it computes, and of each run: a worker with two leaves of a step pauses twice.
LayerType pause_layer(PauseRank rank);

}  // namespace varscope::testing
