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
#include "ps/update/push_constants.h"
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
//   ftrl      s = (sqrt(n + g^2) - sqrt(n)) / lr;  z += g - s v;  n += g^2;
//             v = 0 if |z| <= l1, else (sgn(z) l1 - z) / D,  D = (beta + sqrt(n)) / lr + l2
//             (McMahan et al. 2013, algorithm 1); n starts at initial_accumulator, z at -(v D + sgn(v) l1),
//             so that the first value is not lost. v stays where g is 0, which is v of (z, n), or the first.
//             s is formed as g^2 / (sqrt(n + g^2) + sqrt(n)) / lr: nothing cancels
//   rowwise_adagrad   of a row of d elements: a += (sum of g^2) / d;  v -= lr g / (sqrt(a) + eps), with one
//             a a row (FBGEMM); of dense variables adagrad
// That is of a whole step. Of a push that is a share q of a step (UpdateStep), with r its factor of the rate
// and g the mean over its own samples, so that q of all pushes of a step add up to 1:
//   sgd       v -= lr q r g
//   momentum  m = mu^q m + c g;  v -= lr q r m,  c = (1 - mu^q) / (1 - mu)
//   nesterov  the same m;  v -= lr q r (c g + mu^q m)
//   adagrad, rowwise_adagrad   a += q g^2, of a row q times the mean;  the rate is lr q r
//   rmsprop, adam, adamw       rho^q, b1^q and b2^q for rho, b1 and b2;  the rate is lr q r
//             t of the corrections is UpdateStep::applied, the decay of adamw lr q r wd v
//   ftrl      s = (sqrt(n + q g^2) - sqrt(n)) / lr;  z += q r g - s v;  n += q g^2;  v as above. n is what it
//             was after a step whatever the shares that it came in; r is what lr q r is to adagrad, which
//             this rule is with l1 = l2 = beta = 0
// The gradient is scaled first (c, or the root of q), then comes the loop of the whole step with other
// constants. With q = r = 1 all is as above, to the last bit. Pushes of one gradient g whose q add up to 1
// leave in m, a and n what one step does, but for rounding: powers of mu, rho and b multiply. This is CNTK's
// momentum_as_time_constant_schedule, where the size of a minibatch does not matter.
// A flush (UpdateStep::is_flush) is the rest r of pushes with share q, which have done without it:
//   sgd       v -= lr q r
//   momentum  m += c r;  v -= lr q c r;  nesterov v -= lr q (1 + mu^q) c r. What these pushes and their rest
//             have done together is what the pushes with it would have done, but for rounding
//   adagrad, rowwise_adagrad, ftrl  as a push of r. There is no decay of weights, and rmsprop, adam and adamw
//             take none: Error(argument)
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
  // `step` is what is being applied, its clock from 1. Throws Error(argument) for a dtype other than float32
  // and float64, and as constants() does. Does not clip: see Updater. False when a value or slot is not
  // finite now (optimizer_kernels.h).
  bool update(DType dtype, std::byte* value, std::byte* gradient, std::span<std::byte* const> slots,
              std::int64_t n, const UpdateStep& step) const;
  // What update_row() needs of a push, formed once for all of its rows. Throws Error(argument) for a share
  // that is not in (0, 1], a factor of the rate that is not above 0, and where adam has applied no step.
  PushConstants constants(const UpdateStep& step) const { return {config_, schedule_, step}; }
  // update() for one row of a table, in a step that has it: its `count`-th update, this one included. Slots
  // as in row_slots(). For rules without a slot per row the same bits as update() on a dense variable; adam
  // and adamw count t by OptimizerConfig::correction (by the row, as Monolith and Paddle do, or by the clock,
  // as LazyAdam of TensorFlow Addons). By the row, t is count times the push's share: as if all of the row's
  // pushes had had the same.
  bool update_row(DType dtype, std::byte* value, std::byte* gradient, std::span<std::byte* const> slots,
                  std::int64_t units, const PushConstants& push, std::int64_t count) const;
  // The same of one row alone.
  bool update_row(DType dtype, std::byte* value, std::byte* gradient, std::span<std::byte* const> slots,
                  std::int64_t units, const UpdateStep& step, std::int64_t count) const {
    return update_row(dtype, value, gradient, slots, units, constants(step), count);
  }
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
              std::int64_t n, const PushConstants& push, const AdamCorrection& adam) const;
  AdamCorrection row_correction(std::int64_t count, double share) const;

  OptimizerConfig config_;
  Schedule schedule_;
  std::vector<Slot> slots_, row_slots_;
  std::vector<AdamCorrection> row_corrections_;  // of whole steps, for t from 1 on
};

}  // namespace varscope
