#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/tensor.h"
#include "common/base/types.h"
#include "common/config/job_config.h"
#include "ps/store/slot.h"
#include "ps/update/schedule.h"

namespace varscope {

const char* to_string(OptimizerType type);

// An update rule over contiguous spans. With g the gradient (plus weight_decay * v, but for adamw), t the
// clock, lr the schedule's rate at t, all per element (hyperparameters by their YAML names):
//   sgd       v -= lr g
//   momentum  m = mu m + g;  v -= lr m                           (Polyak 1964; Sutskever et al. 2013)
//   nesterov  m = mu m + g;  v -= lr (g + mu m)
//   adagrad   a += g^2;  v -= lr g / (sqrt(a) + eps)             (Duchi et al. 2011)
//             a starts at initial_accumulator
//   rmsprop   a = rho a + (1 - rho) g^2;
//             v -= lr g / (sqrt(a) + eps)                        (Tieleman and Hinton 2012)
//   adam      m = b1 m + (1 - b1) g;  a = b2 a + (1 - b2) g^2;
//             v -= lr / (1 - b1^t) * m / (sqrt(a / (1 - b2^t)) + eps)   (Kingma and Ba 2015, algorithm 1)
//   adamw     v -= lr wd v, then adam without L2                 (Loshchilov and Hutter 2019)
// 1 - rho and 1 - b are formed in double, also for float32 values. Adam's powers are functions of t, not
// state. An element's result does not depend on its place in the span. Immutable, so safe from any thread on
// disjoint spans.
class Optimizer {
 public:
  // Throws Error(argument) on hyperparameters outside their range.
  explicit Optimizer(const OptimizerConfig& config);

  const OptimizerConfig& config() const { return config_; }
  // {"momentum"}, {"m", "v"}, ...
  const std::vector<Slot>& slots() const { return slots_; }
  std::vector<std::string> slot_names() const;
  const Schedule& schedule() const { return schedule_; }
  // Updates `n` elements in place; slots[i] is the i-th slot's memory. `gradient` may be overwritten.
  // `clock` is the step being applied, from 1. Throws Error(argument) for a dtype other than float32 and
  // float64. Does not clip: see Updater. False when a value or slot is not finite now (optimizer_kernels.h).
  bool update(DType dtype, std::byte* value, std::byte* gradient, const std::vector<std::byte*>& slots,
              std::int64_t n, Clock clock) const;

 private:
  OptimizerConfig config_;
  Schedule schedule_;
  std::vector<Slot> slots_;
};

}  // namespace varscope
