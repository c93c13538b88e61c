#pragma once

#include "common/config/job_config.h"
#include "ps/update/schedule.h"
#include "ps/update/update_step.h"

namespace varscope {

// What adam's means are multiplied or divided by at t, since they began at 0.
struct AdamCorrection {
  double mean = 1;    // 1 - beta1^t
  double square = 1;  // 1 / (1 - beta2^t)
};

// How much of a moving mean stays, and how much of the new value comes.
struct MovingMean {
  double decay = 0, rest = 1;
};

// A mean that keeps `decay` of itself in a step, in [0, 1], after `share` of a step: decay^share, and the
// rest to 1, which is not formed by a subtraction: of 1 - 0.9999999^(1/64) that would keep seven digits. Of a
// whole step exactly decay and 1 - decay.
MovingMean moving_mean(double decay, double share);

// The correction after t steps of `config`'s betas; t need not be whole where `share` is not 1. The powers of
// a whole step are those of std::pow.
AdamCorrection adam_correction(const OptimizerConfig& config, double t, double share);

// Throws Error(argument) unless the share is in (0, 1], and the rate's factor finite and above 0.
void check_update_step(const UpdateStep& step);

// The constants of the rules (Optimizer) for one push, formed in double; the loops have them in the type of
// the variable. Of a whole step they are those of the formulas, and `scale` is 1. An immutable value.
struct PushConstants {
  // Throws Error(argument) as check_update_step() does, and where adam's count of applied steps is not above
  // 0.
  PushConstants(const OptimizerConfig& config, const Schedule& schedule, const UpdateStep& step);

  UpdateStep step;
  double rate = 0;       // lr q r
  double scale = 1;      // what the gradient is multiplied by before the loop
  double loop_rate = 0;  // the loop's rate, of a gradient that has been multiplied
  MovingMean first;      // momentum, rmsprop's rho, adam's beta1
  MovingMean second;     // beta2
  AdamCorrection adam;   // by UpdateStep::applied
};

}  // namespace varscope
