#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/tensor.h"
#include "common/base/types.h"
#include "common/config/job_config.h"
#include "ps/store/slot.h"
#include "ps/update/schedule.h"

namespace varscope {

const char* to_string(OptimizerType type);

// What adam's means are multiplied or divided by at t, since they began at 0.
struct AdamCorrection {
  double mean = 1;    // 1 - beta1^t
  double square = 1;  // 1 / (1 - beta2^t)
};

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
//   ftrl      s = (sqrt(n + g^2) - sqrt(n)) / lr;  z += g - s v;  n += g^2;
//             v = 0 if |z| <= l1, else (sgn(z) l1 - z) / D,  D = (beta + sqrt(n)) / lr + l2
//             (McMahan et al. 2013, algorithm 1); n starts at initial_accumulator, z at -(v D + sgn(v) l1),
//             so that the first value is not lost. v stays where g is 0, which is v of (z, n), or the first.
//             s is formed as g^2 / (sqrt(n + g^2) + sqrt(n)) / lr: nothing cancels
//   rowwise_adagrad   of a row of d elements: a += (sum of g^2) / d;  v -= lr g / (sqrt(a) + eps), with one
//             a a row (FBGEMM); of dense variables adagrad
// 1 - rho and 1 - b are formed in double, also for float32 values. Adam's powers are functions of t, not
// state. An element's result does not depend on its place in the span; of rowwise_adagrad in a table a row's
// does not on anything beyond the row. Immutable, so safe from any thread on disjoint spans.
class Optimizer {
 public:
  // Throws Error(argument) on hyperparameters outside their range, and for a schedule of ftrl, whose z holds
  // sums of values over rates.
  explicit Optimizer(const OptimizerConfig& config);

  const OptimizerConfig& config() const { return config_; }
  // Of dense variables: {"momentum"}, {"m", "v"}, ... None is per row.
  const std::vector<Slot>& slots() const { return slots_; }
  // Of the rows of a table, in order: of each `units` elements or, where is_per_row, one.
  const std::vector<Slot>& row_slots() const { return row_slots_; }
  std::vector<std::string> slot_names() const;
  const Schedule& schedule() const { return schedule_; }
  // Updates `n` elements in place; slots[i] is the i-th slot's memory. `gradient` may be overwritten.
  // `clock` is the step being applied, from 1. Throws Error(argument) for a dtype other than float32 and
  // float64. Does not clip: see Updater. False when a value or slot is not finite now (optimizer_kernels.h).
  bool update(DType dtype, std::byte* value, std::byte* gradient, std::span<std::byte* const> slots,
              std::int64_t n, Clock clock) const;
  // update() for one row of a table, in a step that has it: its `count`-th update, this one included. Slots
  // as in row_slots(). For rules without a slot per row the same bits as update() on a dense variable; adam
  // and adamw count t by OptimizerConfig::correction (by the row, as Monolith and Paddle do, or by the clock,
  // as LazyAdam of TensorFlow Addons).
  bool update_row(DType dtype, std::byte* value, std::byte* gradient, std::span<std::byte* const> slots,
                  std::int64_t units, Clock clock, std::int64_t count) const;
  // True if a zero gradient changes nothing, so that one that is left out does not show: sgd, adagrad,
  // rowwise_adagrad and ftrl, all without weight_decay.
  bool is_exact() const;

  // Sets the slots of n elements whose values are `value` to what they start with. Throws Error(argument) as
  // update() does.
  void start_slots(DType dtype, const std::byte* value, std::span<std::byte* const> slots,
                   std::int64_t n) const;
  // The same of one row of a table.
  void start_row_slots(DType dtype, const std::byte* value, std::span<std::byte* const> slots,
                       std::int64_t units) const;

 private:
  enum class Of : std::uint8_t { dense, row };
  bool update(Of of, DType dtype, std::byte* value, std::byte* gradient, std::span<std::byte* const> slots,
              std::int64_t n, Clock clock, const AdamCorrection& adam) const;
  AdamCorrection row_correction(std::int64_t t) const;

  OptimizerConfig config_;
  Schedule schedule_;
  std::vector<Slot> slots_, row_slots_;
  std::vector<AdamCorrection> row_corrections_;  // for t from 1 on
};

}  // namespace varscope
