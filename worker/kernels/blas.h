#pragma once

#include <cblas.h>

#include <algorithm>
#include <cstdint>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "worker/kernels/blas_clock.h"
#include "worker/kernels/kernels.h"

namespace varscope {

namespace detail {
// Adds what passes until its end to this thread's BlasClock.
class BlasTimer {
 public:
  BlasTimer() : started_(blas_clock.on ? now_ns() : 0) {}
  ~BlasTimer() {
    if (started_ != 0) blas_clock.ns += now_ns() - started_;
  }
  BlasTimer(const BlasTimer&) = delete;
  BlasTimer& operator=(const BlasTimer&) = delete;

 private:
  std::int64_t started_;
};
inline CBLAS_TRANSPOSE to_cblas(Transpose t) { return t == Transpose::yes ? CblasTrans : CblasNoTrans; }
inline blasint to_blas(std::int64_t n) { return static_cast<blasint>(n); }
inline blasint leading(std::int64_t columns) { return to_blas(std::max<std::int64_t>(1, columns)); }
inline void call_gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k, const float* a,
                      blasint lda, const float* b, blasint ldb, float beta, float* c, blasint ldc) {
  cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1.0F, a, lda, b, ldb, beta, c, ldc);
}
inline void call_gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, blasint m, blasint n, blasint k,
                      const double* a, blasint lda, const double* b, blasint ldb, double beta, double* c,
                      blasint ldc) {
  cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1.0, a, lda, b, ldb, beta, c, ldc);
}
}  // namespace detail

// c = op(a) * op(b) + beta * c, row-major: op(a) is m x k, op(b) k x n, c m x n. With beta 0 c is
// overwritten, whatever it holds. Throws Error(argument) for extents beyond 2^31 - 1, more than BLAS takes.
template <class T>
void gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, Panel<const T> a,
          Panel<const T> b, T beta, Panel<T> c) {
  if (m == 0 || n == 0) return;
  if (k == 0) {  // an empty batch: some BLAS return without touching c
    for (std::int64_t row = 0; beta == T{0} && row < m; ++row) std::fill_n(c.data + row * c.stride, n, T{0});
    return;
  }
  if (std::max({m, n, k, a.stride, b.stride, c.stride}) > INT32_MAX) {
    fail(ErrorKind::argument,
         "a product of {} x {} and {} x {} elements; BLAS takes extents up to 2^31 - 1: use a smaller batch",
         m, k, k, n);
  }
  using detail::leading;
  using detail::to_blas;
  const detail::BlasTimer timer;
  detail::call_gemm(detail::to_cblas(ta), detail::to_cblas(tb), to_blas(m), to_blas(n), to_blas(k), a.data,
                    leading(a.stride), b.data, leading(b.stride), beta, c.data, leading(c.stride));
}

// The same for dense matrices.
template <class T>
void gemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, const T* a, const T* b,
          T beta, T* c) {
  gemm<T>(ta, tb, m, n, k, {a, ta == Transpose::yes ? m : k}, {b, tb == Transpose::yes ? k : n}, beta,
          {c, n});
}

// Threads that BLAS calls of this process use. The bits of a result may depend on it.
inline void set_blas_threads(int n) { openblas_set_num_threads(n); }

}  // namespace varscope
