#pragma once

#include <algorithm>
#include <cstdint>

#include "common/base/types.h"

namespace varscope {

// How far apart workers may be (docs/consistency.md): bulk-synchronous parallel (Valiant, CACM 1990), stale
// synchronous parallel (Ho et al., NIPS 2013), or not at all.
enum class Consistency : std::uint8_t { bsp, ssp, asp };

// Who computes which leaf of a step: each worker its own, or whoever asks next.
enum class Dealing : std::uint8_t { in_place, to_whoever_asks };

// The rule by which values may be read and pushes applied; the same on every rank. A value type.
struct StepRule {
  Consistency consistency = Consistency::bsp;
  std::int64_t staleness = 0;  // ssp: steps
  Dealing dealing = Dealing::in_place;
  std::int64_t delay = 0;    // bsp: steps that a worker may begin before it has the values of the one before
  std::int64_t backups = 0;  // bsp: so many workers' gradients of a step are not waited for, and are dropped

  bool is_bsp() const { return consistency == Consistency::bsp; }
  bool has_backups() const { return backups > 0; }
  bool is_dynamic() const { return dealing == Dealing::to_whoever_asks; }
  // The last step whose pushes, and those of all steps before, must be in values that step `step` is computed
  // with. A run begins with the values of `first`.
  Clock least_read(Clock step, Clock first) const {
    if (consistency == Consistency::asp) return first;
    const std::int64_t behind = consistency == Consistency::ssp ? staleness : 0;
    return Clock(std::max(first.value, step.value - 1 - behind));
  }
};

}  // namespace varscope
