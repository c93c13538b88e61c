#include "worker/data/zipf.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"

namespace varscope {
namespace {

// log(1 + x) / x and (exp(x) - 1) / x, continued at 0.
double log_ratio(double x) { return std::abs(x) > 1e-8 ? std::log1p(x) / x : 1 - x * (0.5 - x / 3); }
double exp_ratio(double x) { return std::abs(x) > 1e-8 ? std::expm1(x) / x : 1 + x * (0.5 + x / 6); }

}  // namespace

Zipf::Zipf(std::int64_t n, double exponent) : n_(static_cast<double>(n)), exponent_(exponent) {
  if (n < 1 || n > kMostRanks || !(exponent >= 0 && exponent <= 10)) {
    fail(ErrorKind::argument,
         "Zipf's law over {} ranks with exponent {}; needs 1 to {} ranks, exponent 0 to 10", n, exponent,
         kMostRanks);
  }
  first_ = integral(1.5) - 1;
  last_ = integral(n_ + 0.5);
  always_ = 2 - inverse(integral(2.5) - mass(2));
}

double Zipf::mass(std::int64_t k) const { return std::exp(-exponent_ * std::log(static_cast<double>(k))); }

// (x^(1 - s) - 1) / (1 - s), or log(x) for s = 1.
double Zipf::integral(double x) const {
  const double log = std::log(x);
  return exp_ratio((1 - exponent_) * log) * log;
}

double Zipf::inverse(double y) const {
  const double t = std::max(-1.0, y * (1 - exponent_));  // rounding must not go below what log1p takes
  return std::exp(log_ratio(t) * y);
}

std::optional<std::int64_t> Zipf::rank(double uniform) const {
  const double y = last_ + uniform * (first_ - last_);
  const double x = inverse(y);
  const double k = std::clamp(std::floor(x + 0.5), 1.0, n_);
  const auto found = static_cast<std::int64_t>(k);
  if (k - x <= always_ || y >= integral(k + 0.5) - mass(found)) return found;
  return std::nullopt;
}

}  // namespace varscope
