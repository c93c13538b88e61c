#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "common/base/types.h"

namespace varscope {

// After which steps workers hold no residuals of compression (docs/compression.md): gradients of these go up
// in full, with what earlier ones have lost. Only such a step can be cut for a checkpoint, for residuals are
// not saved. The config alone says which they are, so that a save that somebody asks for changes no bits: it
// waits for the next one. A value type, the same on every rank; a default one: a run without residuals.
struct FlushRule {
  bool has_residuals = false;
  std::int64_t every = 0;             // cluster.drain_every_steps
  std::int64_t checkpoint_every = 0;  // checkpoint.every_steps
  std::int64_t evaluation_every = 0;  // steps between evaluations
  Clock last{0};                      // the step that the run is planned to end with

  // Whether step `clock` is one.
  bool is_flush(Clock clock) const {
    const auto divides = [clock](std::int64_t n) { return n > 0 && clock.value % n == 0; };
    return clock == last || divides(every) || divides(checkpoint_every) || divides(evaluation_every);
  }
  bool may_cut(Clock clock) const { return !has_residuals || is_flush(clock); }
  // The first step from `clock` on that may be cut.
  Clock next_cut(Clock clock) const {
    if (may_cut(clock)) return clock;
    std::int64_t next = last >= clock ? last.value : INT64_MAX;
    for (const std::int64_t n : std::array{every, checkpoint_every, evaluation_every})
      if (n > 0) next = std::min(next, (clock.value / n + 1) * n);
    return Clock(next);
  }
};

}  // namespace varscope
