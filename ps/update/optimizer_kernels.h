#pragma once

#include <cstdint>

#include "common/config/job_config.h"
#include "ps/update/push_constants.h"

namespace varscope::kernels {

// How much of a moving mean stays, and how much of the new value comes: 1 - decay is formed in double, since
// float32 keeps little of it (of 1 - 0.99999 three digits).
template <class T>
struct Decay {
  T decay, rest;
  explicit Decay(const MovingMean& mean)
      : decay(static_cast<T>(mean.decay)), rest(static_cast<T>(mean.rest)) {}
};

// The constants of ftrl. Its accumulator's root is multiplied by 1 / learning_rate, which is rounded once.
template <class T>
struct Ftrl {
  T inverse_rate, beta, l1, l2;
  T share;   // multiplies the square of the gradient
  T weight;  // multiplies the gradient itself
  Ftrl(const OptimizerConfig& c, const UpdateStep& step)
      : inverse_rate(static_cast<T>(1 / c.learning_rate)),
        beta(static_cast<T>(c.beta)),
        l1(static_cast<T>(c.l1)),
        l2(static_cast<T>(c.l2)),
        share(static_cast<T>(step.share)),
        weight(static_cast<T>(step.share * step.rate)) {}
};

// Element-wise loops over n elements, for float32 and float64; no element depends on another. Those that
// return a bool look at what they make while it is in a register: false when a value, or a sum of squares
// that hides in a denominator, is NaN or infinite. (A momentum that is not finite makes such a value.)
// A zero gradient leaves ftrl's value as it is: the first one need not be what z gives, to the last bit.
// rowwise_adagrad is no such loop: its n elements are one row with one accumulator. The squares are summed in
// double, in eight lanes whatever the vector width.
// Compiled once per vector width on x86-64, all with the same bits: see common/base/vector_clones.h.
#define VARSCOPE_DECLARE_KERNELS(T)                                                                     \
  void add_scaled(T* into, const T* from, T scale, std::int64_t n);                                     \
  bool sgd(T* v, const T* g, T lr, std::int64_t n);                                                     \
  bool momentum(T* v, const T* g, T* m, T lr, T mu, std::int64_t n);                                    \
  bool nesterov(T* v, const T* g, T* m, T lr, T mu, std::int64_t n);                                    \
  bool adagrad(T* v, const T* g, T* a, T lr, T eps, std::int64_t n);                                    \
  bool rowwise_adagrad(T* v, const T* g, T* row, T lr, T eps, std::int64_t n);                          \
  bool ftrl(T* v, const T* g, T* z, T* sum, Ftrl<T> rule, std::int64_t n);                              \
  bool rmsprop(T* v, const T* g, T* a, T lr, Decay<T> rho, T eps, std::int64_t n);                      \
  bool adam(T* v, const T* g, T* m, T* a, T lr_t, Decay<T> beta1, Decay<T> beta2, T correction2, T eps, \
            std::int64_t n);                                                                            \
  void decay(T* v, T factor, std::int64_t n);

VARSCOPE_DECLARE_KERNELS(float)
VARSCOPE_DECLARE_KERNELS(double)
#undef VARSCOPE_DECLARE_KERNELS

}  // namespace varscope::kernels
