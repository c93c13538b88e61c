#include "worker/kernels/recurrent_kernels.h"

#include "common/base/vector_clones.h"
#include "worker/kernels/vector_math.h"

namespace varscope::kernels {
namespace {

// The loops over one row, inlined into each clone of the functions below.

template <class T>
VARSCOPE_INLINE void lstm_row(T* __restrict i, T* __restrict j, T* __restrict f, T* __restrict o,
                              const T* __restrict bias, T forget_bias, const T* __restrict c_before,
                              T* __restrict c, T* __restrict h, std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    const T in = vector_math::sigmoid(i[k] + bias[k]);
    const T candidate = vector_math::tanh(j[k] + bias[units + k]);
    const T forget = vector_math::sigmoid(f[k] + bias[2 * units + k] + forget_bias);
    const T out = vector_math::sigmoid(o[k] + bias[3 * units + k]);
    const T cell = forget * c_before[k] + in * candidate;
    i[k] = in, j[k] = candidate, f[k] = forget, o[k] = out;
    c[k] = cell;
    h[k] = out * vector_math::tanh(cell);
  }
}

template <class T>
VARSCOPE_INLINE void lstm_row_gradient(T* __restrict i, T* __restrict j, T* __restrict f, T* __restrict o,
                                       const T* __restrict c_before, const T* __restrict c,
                                       const T* __restrict dy, const T* __restrict dh, T* __restrict dc,
                                       std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    const T in = i[k], candidate = j[k], forget = f[k], out = o[k];
    const T t = vector_math::tanh(c[k]);
    const T g = dy[k] + dh[k];
    const T cell = g * out * (T(1) - t * t) + dc[k];
    i[k] = cell * candidate * in * (T(1) - in);
    j[k] = cell * in * (T(1) - candidate * candidate);
    f[k] = cell * c_before[k] * forget * (T(1) - forget);
    o[k] = g * t * out * (T(1) - out);
    dc[k] = cell * forget;
  }
}

template <class T>
VARSCOPE_INLINE void gru_gates_row(T* __restrict r, T* __restrict u, const T* __restrict bias,
                                   const T* __restrict h_before, T* __restrict rh, std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    const T reset = vector_math::sigmoid(r[k] + bias[k]);
    r[k] = reset;
    u[k] = vector_math::sigmoid(u[k] + bias[units + k]);
    rh[k] = reset * h_before[k];
  }
}

template <class T>
VARSCOPE_INLINE void gru_output_row(T* __restrict z, const T* __restrict bias, const T* __restrict u,
                                    const T* __restrict h_before, T* __restrict h, std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    const T candidate = vector_math::tanh(z[k] + bias[k]);
    z[k] = candidate;
    h[k] = u[k] * h_before[k] + (T(1) - u[k]) * candidate;
  }
}

template <class T>
VARSCOPE_INLINE void gru_output_row_gradient(T* __restrict z, T* __restrict u, const T* __restrict h_before,
                                             const T* __restrict dy, T* __restrict dh, std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    const T candidate = z[k], update = u[k];
    const T g = dy[k] + dh[k];
    z[k] = g * (T(1) - update) * (T(1) - candidate * candidate);
    u[k] = g * (h_before[k] - candidate) * update * (T(1) - update);
    dh[k] = g * update;
  }
}

template <class T>
VARSCOPE_INLINE void gru_gates_row_gradient(T* __restrict r, const T* __restrict h_before,
                                            const T* __restrict drh, T* __restrict dh, std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    const T reset = r[k];
    r[k] = drh[k] * h_before[k] * reset * (T(1) - reset);
    dh[k] += drh[k] * reset;
  }
}

template <class T>
VARSCOPE_INLINE void gru_reset_row(T* __restrict z, T* __restrict product, const T* __restrict bias,
                                   const T* __restrict r, std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    product[k] += bias[k];
    z[k] += r[k] * product[k];
  }
}

template <class T>
VARSCOPE_INLINE void gru_reset_row_gradient(T* __restrict r, T* __restrict product, const T* __restrict dz,
                                            std::int64_t units) {
  for (std::int64_t k = 0; k < units; ++k) {
    const T reset = r[k];
    r[k] = dz[k] * product[k] * reset * (T(1) - reset);
    product[k] = dz[k] * reset;
  }
}

}  // namespace

#define VARSCOPE_RECURRENT_KERNELS(T)                                                                        \
  VARSCOPE_VECTOR_CLONES void lstm_step(T* z, const T* bias, T forget_bias, const T* c_before, T* c,         \
                                        Panel<T> h, std::int64_t rows, std::int64_t units) {                 \
    for (std::int64_t r = 0; r < rows; ++r) {                                                                \
      T* gates = z + r * 4 * units;                                                                          \
      lstm_row(gates, gates + units, gates + 2 * units, gates + 3 * units, bias, forget_bias,                \
               c_before + r * units, c + r * units, h.data + r * h.stride, units);                           \
    }                                                                                                        \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void lstm_step_gradient(T* z, const T* c_before, const T* c, Panel<const T> dy,     \
                                                 const T* dh, T* dc, std::int64_t rows,                      \
                                                 std::int64_t units) {                                       \
    for (std::int64_t r = 0; r < rows; ++r) {                                                                \
      T* gates = z + r * 4 * units;                                                                          \
      lstm_row_gradient(gates, gates + units, gates + 2 * units, gates + 3 * units, c_before + r * units,    \
                        c + r * units, dy.data + r * dy.stride, dh + r * units, dc + r * units, units);      \
    }                                                                                                        \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void gru_gates(T* z, const T* bias, Panel<const T> h_before, Panel<T> rh,           \
                                        std::int64_t rows, std::int64_t units) {                             \
    for (std::int64_t r = 0; r < rows; ++r) {                                                                \
      gru_gates_row(z + r * 2 * units, z + r * 2 * units + units, bias, h_before.data + r * h_before.stride, \
                    rh.data + r * rh.stride, units);                                                         \
    }                                                                                                        \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void gru_output(T* z, const T* bias, const T* gates, Panel<const T> h_before,       \
                                         Panel<T> h, std::int64_t rows, std::int64_t units) {                \
    for (std::int64_t r = 0; r < rows; ++r) {                                                                \
      gru_output_row(z + r * units, bias, gates + r * 2 * units + units,                                     \
                     h_before.data + r * h_before.stride, h.data + r * h.stride, units);                     \
    }                                                                                                        \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void gru_output_gradient(T* z, T* gates, Panel<const T> h_before,                   \
                                                  Panel<const T> dy, T* dh, std::int64_t rows,               \
                                                  std::int64_t units) {                                      \
    for (std::int64_t r = 0; r < rows; ++r) {                                                                \
      gru_output_row_gradient(z + r * units, gates + r * 2 * units + units,                                  \
                              h_before.data + r * h_before.stride, dy.data + r * dy.stride, dh + r * units,  \
                              units);                                                                        \
    }                                                                                                        \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void gru_gates_gradient(T* gates, Panel<const T> h_before, const T* drh, T* dh,     \
                                                 std::int64_t rows, std::int64_t units) {                    \
    for (std::int64_t r = 0; r < rows; ++r) {                                                                \
      gru_gates_row_gradient(gates + r * 2 * units, h_before.data + r * h_before.stride, drh + r * units,    \
                             dh + r * units, units);                                                         \
    }                                                                                                        \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void gru_reset(T* z, T* product, const T* bias, const T* gates, std::int64_t rows,  \
                                        std::int64_t units) {                                                \
    for (std::int64_t r = 0; r < rows; ++r)                                                                  \
      gru_reset_row(z + r * units, product + r * units, bias, gates + r * 2 * units, units);                 \
  }                                                                                                          \
  VARSCOPE_VECTOR_CLONES void gru_reset_gradient(T* gates, T* product, const T* dz, std::int64_t rows,       \
                                                 std::int64_t units) {                                       \
    for (std::int64_t r = 0; r < rows; ++r)                                                                  \
      gru_reset_row_gradient(gates + r * 2 * units, product + r * units, dz + r * units, units);             \
  }

VARSCOPE_RECURRENT_KERNELS(float)
VARSCOPE_RECURRENT_KERNELS(double)
#undef VARSCOPE_RECURRENT_KERNELS

}  // namespace varscope::kernels
