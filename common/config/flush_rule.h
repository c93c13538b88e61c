#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "common/base/types.h"

namespace varscope {

// After which steps workers hold nothing that a checkpoint has not. With compression these are steps whose
// gradients go up in full, with what earlier ones have lost (docs/compression.md); with cluster.delay steps
// whose values all workers have before they begin another one (docs/consistency.md). Only such a step can be
// cut, for residuals and older values are not saved. What gradients have lost does not go up at once: some
// steps before have gradients in full, too, each with a part of it. The config alone says which steps these
// are, so that a save that somebody asks for changes no bits: it waits for the next one. A value type, the
// same on every rank; a default one: a run with neither.
struct FlushRule {
  bool has_residuals = false;
  std::int64_t every = 0;             // cluster.drain_every_steps
  std::int64_t checkpoint_every = 0;  // checkpoint.every_steps
  std::int64_t evaluation_every = 0;  // steps between evaluations
  Clock last{0};                      // the step that the run is planned to end with
  std::int64_t delay = 0;             // cluster.delay
  std::int64_t settle = 1;            // cluster.settle_steps

  // Whether step `clock` is one.
  bool is_flush(Clock clock) const {
    const auto divides = [clock](std::int64_t n) { return n > 0 && clock.value % n == 0; };
    return clock == last || divides(every) || divides(checkpoint_every) || divides(evaluation_every);
  }
  // Whether other steps cannot be cut.
  bool is_needed() const { return has_residuals || delay > 0; }
  bool may_cut(Clock clock) const { return !is_needed() || is_flush(clock); }
  // The first step from `clock` on that may be cut.
  Clock next_cut(Clock clock) const { return may_cut(clock) ? clock : next_flush(clock); }
  // The first flush from `clock` on.
  Clock next_flush(Clock clock) const {
    if (is_flush(clock)) return clock;
    std::int64_t next = last >= clock ? last.value : INT64_MAX;
    for (const std::int64_t n : std::array{every, checkpoint_every, evaluation_every})
      if (n > 0) next = std::min(next, (clock.value / n + 1) * n);
    return Clock(next);
  }
  // Which part of what is kept back goes up with the gradients of step `step`, which are in full: all of it
  // at a flush, half in the step before, a third before that, so that each of `settle` steps sends as much.
  // At most half of the steps between two flushes are such. 0: none, gradients are encoded.
  double part_sent(Clock step) const {
    const std::int64_t next = next_flush(step).value, left = next - step.value;
    std::int64_t before = last < step ? last.value : 0;
    for (const std::int64_t n : std::array{every, checkpoint_every, evaluation_every})
      if (n > 0) before = std::max(before, (step.value - 1) / n * n);
    const std::int64_t window = std::max<std::int64_t>(1, std::min(settle, (next - before) / 2));
    return left < window ? 1 / static_cast<double>(left + 1) : 0;
  }
  // After which step the values are that step `step` of a BSP run is computed with: `delay` steps behind
  // those of the step before, but none that is older than the last flush, or than `first`, which the run
  // begins with.
  Clock read_by(Clock step, Clock first) const {
    const std::int64_t before = step.value - 1;
    std::int64_t read = std::max(first.value, before - delay);
    for (const std::int64_t n : std::array{every, checkpoint_every, evaluation_every})
      if (n > 0) read = std::max(read, before / n * n);
    return Clock(last < step ? std::max(read, last.value) : read);
  }
  // The last step that is computed with the values after step `read`; nothing where none is.
  std::optional<Clock> last_reader(Clock read, Clock first) const {
    for (std::int64_t step = read.value + 1 + delay; step > read.value; --step)
      if (read_by(Clock(step), first) == read) return Clock(step);
    return std::nullopt;
  }
};

}  // namespace varscope
