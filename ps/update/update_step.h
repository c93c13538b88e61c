#pragma once

#include "common/base/types.h"

namespace varscope {

// Which step an update is, or which part of one. In BSP an update is a whole step. Where each push is applied
// by itself (docs/consistency.md) it is a share of a step: its gradient is the mean over its own samples, and
// it counts for as much as these are of the samples of the step.
struct UpdateStep {
  // The step, from 1: what schedules, times to live and findings count by.
  Clock clock;
  // Samples (by weight) of the push over those of its step's global batch, in (0, 1].
  double share = 1;
  // Steps that will have been applied, counting shares: what Adam's corrections of its means are a function
  // of. Of a whole step its clock.
  double applied = 0;
  // Multiplies the learning rate: optimizer.staleness_discount.
  double rate = 1;
  // One of several pushes of a step: others of the same clock may come before and after.
  bool is_push = false;
  // Its gradient is what compression has kept back of earlier pushes with that share: it adds to what these
  // have done, and nothing decays again.
  bool is_flush = false;

  static UpdateStep whole(Clock clock) {
    return {clock, 1, static_cast<double>(clock.value), 1, false, false};
  }
};

}  // namespace varscope
