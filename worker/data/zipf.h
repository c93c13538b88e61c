#pragma once

#include <cstdint>
#include <optional>

namespace varscope {

// Zipf's law over the ranks 1 .. n: rank k has probability k^-exponent / (1^-exponent + ... + n^-exponent).
// Drawn by rejection-inversion: exact but for the rounding of doubles, in constant time and memory, whatever
// n is. W. Hoermann and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
// distributions" (ACM Transactions on Modeling and Computer Simulation 6(3), 1996). Immutable: safe from any
// thread.
class Zipf {
 public:
  static constexpr std::int64_t kMostRanks = std::int64_t{1} << 40U;
  // Throws Error(argument) unless n is 1 .. kMostRanks and exponent is 0 (all ranks alike) .. 10.
  Zipf(std::int64_t n, double exponent);
  // The rank of a uniform number of [0, 1), or nothing: then another one is to be drawn. Less than a third of
  // them are rejected.
  std::optional<std::int64_t> rank(double uniform) const;
  // Of a rank, k^-exponent: its probability but for the sum over all ranks.
  double mass(std::int64_t k) const;

 private:
  // The integral of x^-exponent from 1 on, and its inverse.
  double integral(double x) const;
  double inverse(double y) const;

  double n_, exponent_;
  double first_ = 0, last_ = 0;  // the interval that uniform numbers are stretched to
  double always_ = 0;            // ranks so close above their x are taken at once
};

}  // namespace varscope
