#pragma once

#include <string>

#include "common/base/tensor.h"

namespace varscope {

// What a variable adds to the training loss: l1 * sum |w| + l2 * sum w^2, each sum in double, in row-major
// order. Its gradient is l1 * sign(w) + 2 * l2 * w, where the sign of 0 is 0. A value type; pure.
struct Regularizer {
  double l1_factor = 0;
  double l2_factor = 0;

  // Switches an inherited regularizer off.
  static Regularizer none() { return {0, 0}; }
  static Regularizer l1(double factor) { return {factor, 0}; }
  static Regularizer l2(double factor) { return {0, factor}; }
  static Regularizer l1_l2(double l1, double l2) { return {l1, l2}; }

  bool exists() const { return l1_factor != 0 || l2_factor != 0; }
  // Throws Error(argument) on a dtype that is neither float32 nor float64.
  double loss(const TensorView& w) const;
  // g += scale * d loss / d w; g has the shape and dtype of w, or Error(argument).
  void add_gradient(const TensorView& w, const TensorView& g, double scale) const;
  std::string str() const;  // "l2(0.001)", "l1_l2(0.1, 0.2)", "none"

  friend bool operator==(const Regularizer&, const Regularizer&) = default;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& l1_factor& l2_factor;
  }
};

}  // namespace varscope
