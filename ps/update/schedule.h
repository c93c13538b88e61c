#pragma once

#include "common/base/types.h"
#include "common/config/job_config.h"

namespace varscope {

// The learning rate as a pure function of the clock. With r = learning_rate, w = warmup_steps, t the step
// that is being applied (from 1) and n = t - w - 1 the steps that are done since the end of the warm-up:
//   t <= w       r t / w                                        (Goyal et al. 2017, section 2.2)
//   constant     r
//   step         r factor^floor(n / every_steps)
//   piecewise    r factors[i] of the last i with n >= boundaries[i]; r before the first
//   exponential  r rate^(n / decay_steps); with staircase the exponent is rounded down
//   polynomial   e + (r - e) (1 - m / decay_steps)^power,  e = end_learning_rate
//   cosine       r (alpha + (1 - alpha) (1 + cos(pi m / decay_steps)) / 2)
//                                              (Loshchilov and Hutter 2017, without restarts)
// where m = min(n, decay_steps). An immutable value.
class Schedule {
 public:
  // Throws Error(argument) on numbers outside their range.
  Schedule(double learning_rate, const ScheduleConfig& config);
  explicit Schedule(const OptimizerConfig& config) : Schedule(config.learning_rate, config.schedule) {}

  // The rate of step `clock`, from 1.
  double rate(Clock clock) const;

 private:
  double after_warmup(std::int64_t done) const;

  double learning_rate_;
  ScheduleConfig config_;
};

}  // namespace varscope
