#pragma once

#include <cstdint>

namespace varscope::kernels {

// Element-wise loops over n elements, for float32 and float64; no element depends on another.
// Compiled once per vector width on x86-64, all with the same bits: see common/base/vector_clones.h.
#define VARSCOPE_DECLARE_KERNELS(T)                                                                        \
  void add_scaled(T* into, const T* from, T scale, std::int64_t n);                                        \
  void sgd(T* v, const T* g, T lr, std::int64_t n);                                                        \
  void momentum(T* v, const T* g, T* m, T lr, T mu, std::int64_t n);                                       \
  void nesterov(T* v, const T* g, T* m, T lr, T mu, std::int64_t n);                                       \
  void adagrad(T* v, const T* g, T* a, T lr, T eps, std::int64_t n);                                       \
  void rmsprop(T* v, const T* g, T* a, T lr, T rho, T eps, std::int64_t n);                                \
  void adam(T* v, const T* g, T* m, T* a, T lr_t, T beta1, T beta2, T correction2, T eps, std::int64_t n); \
  void decay(T* v, T factor, std::int64_t n);

VARSCOPE_DECLARE_KERNELS(float)
VARSCOPE_DECLARE_KERNELS(double)
#undef VARSCOPE_DECLARE_KERNELS

}  // namespace varscope::kernels
