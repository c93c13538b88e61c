#pragma once

#include <cstdint>

namespace varscope {

enum class Transpose : std::uint8_t { no, yes };  // of a matrix that is multiplied

// A row-major matrix inside a wider one: `stride` elements from one row to the next.
template <class T>
struct Panel {
  T* data;
  std::int64_t stride;
};

// leaky_relu has slope 0.01 below zero (Maas et al., ICML 2013); gelu is exact, x * Phi(x) (Hendrycks and
// Gimpel, 2016), in float32 by Abramowitz and Stegun 7.1.26 (absolute error below 2e-7). elu is x above zero
// and exp(x) - 1 below (Clevert, Unterthiner, Hochreiter, ICLR 2016, with alpha 1); selu is kSeluScale times
// x or kSeluAlpha * (exp(x) - 1) (Klambauer et al., NIPS 2017); swish is x * sigmoid(x) (Ramachandran, Zoph,
// Le, 2017, with beta 1; also called SiLU).
enum class Activation : std::uint8_t {
  linear,
  relu,
  leaky_relu,
  sigmoid,
  tanh,
  gelu,
  softplus,
  elu,
  selu,
  swish
};
inline constexpr Activation kActivations[] = {
    Activation::linear, Activation::relu,     Activation::leaky_relu, Activation::sigmoid, Activation::tanh,
    Activation::gelu,   Activation::softplus, Activation::elu,        Activation::selu,    Activation::swish};
const char* to_string(Activation activation);
// True if the derivative needs the input of the activation and not only its output.
constexpr bool needs_preactivation(Activation activation) {
  return activation == Activation::gelu || activation == Activation::swish;
}
inline constexpr double kLeakyReluSlope = 0.01;
// With these, activations of mean 0 and variance 1 keep them from layer to layer.
inline constexpr double kSeluScale = 1.0507009873554804934193349852946;
inline constexpr double kSeluAlpha = 1.6732632423543772848170429916717;

// Elementwise loops over contiguous memory, vectorised for the processor that runs them. An element's bits
// depend on its own operands only: not on its position, on the length, or on the instruction set (no
// contraction, own exp and tanh, within a few ulp). Column sums add rows in ascending order. Pointers
// of one call do not overlap unless said so.
namespace kernels {

// y[r,c] = f(y[r,c] + bias[c]); bias may be null. Where z is not null and needs_preactivation(f), it gets
// the argument of f.
void bias_activate(Activation f, float* y, const float* bias, float* z, std::int64_t rows, std::int64_t cols);
void bias_activate(Activation f, double* y, const double* bias, double* z, std::int64_t rows,
                   std::int64_t cols);

// g[r,c] *= f'; f' from the output y, and from z where needs_preactivation(f). Where column_sums is not null,
// it gets (or with `add`: is increased by) the sums of the new g over rows.
enum class Sum : std::uint8_t { overwrite, add };
void activation_gradient(Activation f, float* g, const float* y, const float* z, float* column_sums, Sum sum,
                         std::int64_t rows, std::int64_t cols);
void activation_gradient(Activation f, double* g, const double* y, const double* z, double* column_sums,
                         Sum sum, std::int64_t rows, std::int64_t cols);

void copy(float* to, const float* from, std::int64_t n);  // to = from
void copy(double* to, const double* from, std::int64_t n);
void add(float* to, const float* from, std::int64_t n);  // to += from
void add(double* to, const double* from, std::int64_t n);
void add(float* to, const float* a, const float* b, std::int64_t n);  // to = a + b
void add(double* to, const double* a, const double* b, std::int64_t n);
void multiply(float* to, const float* a, const float* b, std::int64_t n);  // to = a * b
void multiply(double* to, const double* a, const double* b, std::int64_t n);
void multiply_add(float* to, const float* a, const float* b, std::int64_t n);  // to += a * b
void multiply_add(double* to, const double* a, const double* b, std::int64_t n);
void fill(float* to, float value, std::int64_t n);
void fill(double* to, double value, std::int64_t n);
void add_constant(float* to, float value, std::int64_t n);
void add_constant(double* to, double value, std::int64_t n);
void multiply_constant(float* to, const float* from, float value, std::int64_t n);  // to = from * value
void multiply_constant(double* to, const double* from, double value, std::int64_t n);

// to = log(1 + exp(-|x|)), in double.
void log_term(double* to, const float* x, std::int64_t n);
void log_term(double* to, const double* x, std::int64_t n);

// Row by row p = exp(x - max) / sum, the sum in double in an order that depends on cols. Writes log(sum) +
// max to log_sums where that is not null.
void softmax(float* p, const float* x, double* log_sums, std::int64_t rows, std::int64_t cols);
void softmax(double* p, const double* x, double* log_sums, std::int64_t rows, std::int64_t cols);

}  // namespace kernels
}  // namespace varscope
