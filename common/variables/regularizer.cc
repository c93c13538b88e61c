#include "common/variables/regularizer.h"

#include <cmath>

namespace varscope {
namespace {

template <class T>
double loss_of(const Regularizer& r, std::span<const T> w) {
  double absolute = 0, square = 0;
  for (T value : w) {
    const auto x = static_cast<double>(value);
    absolute += std::abs(x);
    square += x * x;
  }
  return r.l1_factor * absolute + r.l2_factor * square;
}

template <class T>
void add_gradient_of(const Regularizer& r, std::span<const T> w, std::span<T> g, double scale) {
  const double l1 = scale * r.l1_factor, l2 = 2 * scale * r.l2_factor;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const auto x = static_cast<double>(w[i]);
    const double sign = x > 0 ? 1 : x < 0 ? -1 : 0;
    g[i] = static_cast<T>(static_cast<double>(g[i]) + (l1 * sign + l2 * x));
  }
}

[[noreturn]] void fail_dtype(const Regularizer& r, DType dtype) {
  fail(ErrorKind::argument, "regularizer {} is for float32 and float64, not for {}", r.str(),
       to_string(dtype));
}

}  // namespace

double Regularizer::loss(const TensorView& w) const {
  if (w.dtype() == DType::float32) return loss_of<float>(*this, w.as<float>());
  if (w.dtype() == DType::float64) return loss_of<double>(*this, w.as<double>());
  fail_dtype(*this, w.dtype());
}

void Regularizer::add_gradient(const TensorView& w, const TensorView& g, double scale) const {
  if (w.shape() != g.shape() || w.dtype() != g.dtype()) {
    fail(ErrorKind::argument, "the gradient of {} {} cannot be added to {} {}", to_string(w.dtype()),
         w.shape().str(), to_string(g.dtype()), g.shape().str());
  }
  if (w.dtype() == DType::float32) return add_gradient_of<float>(*this, w.as<float>(), g.as<float>(), scale);
  if (w.dtype() == DType::float64)
    return add_gradient_of<double>(*this, w.as<double>(), g.as<double>(), scale);
  fail_dtype(*this, w.dtype());
}

std::string Regularizer::str() const {
  if (!exists()) return "none";
  if (l1_factor == 0) return fmt::format("l2({:g})", l2_factor);
  if (l2_factor == 0) return fmt::format("l1({:g})", l1_factor);
  return fmt::format("l1_l2({:g}, {:g})", l1_factor, l2_factor);
}

}  // namespace varscope
