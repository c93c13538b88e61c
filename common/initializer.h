#pragma once

#include <cstdint>
#include <string>

#include "common/slice.h"
#include "common/tensor.h"

namespace varscope {

// How a variable gets its first value. A value type that travels to the servers; an element's value is a pure
// function of (seed, variable name, the element's global row-major index), so any slice, on any server, has
// the same bits.
struct Initializer {
  enum class Kind : std::uint8_t { constant = 0, uniform = 1, normal = 2 };
  Kind kind = Kind::constant;
  double a = 0;  // constant: the value; uniform: low; normal: mean
  double b = 0;  // uniform: high; normal: standard deviation

  static Initializer constant(double value) { return {Kind::constant, value, 0}; }
  static Initializer uniform(double low, double high) { return {Kind::uniform, low, high}; }
  static Initializer normal(double mean, double stddev) { return {Kind::normal, mean, stddev}; }
  // Glorot and Bengio, AISTATS 2010: U(-l, l), l = sqrt(6 / (fan_in + fan_out)). Fans of a shape: rank 0: 1,
  // 1; rank 1: n, n; rank 2: d0, d1; higher: the receptive field times the last two extents.
  static Initializer glorot_uniform(const Shape& shape);
  static Initializer glorot_normal(const Shape& shape);
  // He et al., ICCV 2015: variance 2 / fan_in.
  static Initializer he_uniform(const Shape& shape);
  static Initializer he_normal(const Shape& shape);
  // U(-1/sqrt(fan_in), 1/sqrt(fan_in)); REQUIRES fan_in > 0. The usual default of dense layers and their
  // biases.
  static Initializer fan_in_uniform(std::int64_t fan_in);

  // Fills `out` (n elements) with elements [begin, begin + n) of the row-major variable. Throws
  // Error(argument) for a random kind on a dtype that is not floating.
  void fill(TensorView out, std::uint64_t seed, const std::string& variable, std::int64_t begin) const;
  std::string str() const;  // "uniform(-0.0357, 0.0357)"

  friend bool operator==(const Initializer&, const Initializer&) = default;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& kind& a& b;
  }
};

struct Fans {
  double in, out;
};
Fans fans_of(const Shape& shape);

}  // namespace varscope
