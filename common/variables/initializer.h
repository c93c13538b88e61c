#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <boost/serialization/version.hpp>

#include "common/base/philox.h"
#include "common/base/tensor.h"
#include "common/variables/slice.h"

namespace varscope {

// How a variable gets its first value. A value type that travels to the servers; an element's value is a pure
// function of (seed, variable name, full shape, the element's global row-major index), so any slice or part,
// on any server, has the same bits.
struct Initializer {
  enum class Kind : std::uint8_t {
    constant = 0,
    uniform = 1,
    normal = 2,
    truncated_normal = 3,
    orthogonal = 4,
    identity = 5,
    values = 6
  };
  enum class FanMode : std::uint8_t { fan_in, fan_out, fan_avg };
  enum class Distribution : std::uint8_t { uniform, normal, truncated_normal };

  Kind kind = Kind::constant;
  double a = 0;  // constant: the value; uniform: low; normals: mean; orthogonal, identity: gain
  double b = 0;  // uniform: high; normals: standard deviation
  // Of Kind::values only: a tensor, row-major.
  DType values_dtype = DType::float32;
  Shape values_shape = {};
  std::vector<std::uint8_t> values_bytes = {};

  static Initializer constant(double value) { return {Kind::constant, value, 0}; }
  static Initializer uniform(double low, double high) { return {Kind::uniform, low, high}; }
  static Initializer normal(double mean, double stddev) { return {Kind::normal, mean, stddev}; }
  // Draws beyond two standard deviations are drawn again.
  static Initializer truncated_normal(double mean, double stddev) {
    return {Kind::truncated_normal, mean, stddev};
  }
  // Saxe, McClelland, Ganguli, ICLR 2014: gain times the Q factor (R's diagonal positive) of a matrix of
  // normal draws with rows = product of all axes but the last. The shorter side is orthonormal. Rank 2 at
  // least. Costs 8 * max * min^2 operations of the two sides, once per InitialValues.
  static Initializer orthogonal(double gain = 1) { return {Kind::orthogonal, gain, 0}; }
  // gain on the diagonal, 0 elsewhere; rank 2.
  static Initializer identity(double gain = 1) { return {Kind::identity, gain, 0}; }
  // The elements of a tensor; the variable takes its shape and dtype from it.
  static Initializer values(const TensorView& tensor);

  // Variance scale / fan (before truncation, which makes it 0.774 of that; Distribution::truncated_normal
  // makes up for it). The fans are those of fans_of(); fan_avg is their mean.
  static Initializer variance_scaling(const Shape& shape, double scale, FanMode mode, Distribution dist);
  // Glorot and Bengio, AISTATS 2010: U(-l, l), l = sqrt(6 / (fan_in + fan_out)). Fans of a shape: rank 0: 1,
  // 1; rank 1: n, n; rank 2: d0, d1; higher: the receptive field times the last two extents.
  static Initializer glorot_uniform(const Shape& shape);
  static Initializer glorot_normal(const Shape& shape);
  // He et al., ICCV 2015: variance 2 / fan_in.
  static Initializer he_uniform(const Shape& shape);
  static Initializer he_normal(const Shape& shape);
  // LeCun et al., "Efficient BackProp" (1998): variance 1 / fan_in.
  static Initializer lecun_uniform(const Shape& shape);
  static Initializer lecun_normal(const Shape& shape);
  // U(-1/sqrt(fan_in), 1/sqrt(fan_in)); REQUIRES fan_in > 0. The usual default of dense layers and their
  // biases.
  static Initializer fan_in_uniform(std::int64_t fan_in);

  bool has_values() const { return kind == Kind::values; }
  // Fills `out` (n elements) with elements [begin, begin + n) of the row-major variable of shape `full`.
  // Throws Error(argument) for a random kind on a dtype that is not floating, a shape the kind is not for,
  // and values of another shape or dtype. Many fills of one variable are cheaper through InitialValues.
  void fill(TensorView out, std::uint64_t seed, const std::string& variable, std::int64_t begin,
            const Shape& full) const;
  // The same where `full` is the shape of `out`, or does not matter (constant, uniform, normals).
  void fill(TensorView out, std::uint64_t seed, const std::string& variable, std::int64_t begin) const {
    fill(out, seed, variable, begin, out.shape());
  }
  std::string str() const;  // "uniform(-0.0357, 0.0357)"

  friend bool operator==(const Initializer&, const Initializer&) = default;
  template <class Archive>
  void serialize(Archive& ar, unsigned version) {
    ar& kind& a& b;
    if (version == 0) return;  // checkpoint format 1.0: constant, uniform and normal only
    std::vector<std::int64_t> dims(values_shape.dims().begin(), values_shape.dims().end());
    ar& values_dtype& dims& values_bytes;
    if constexpr (Archive::is_loading::value) {
      values_shape = Shape(std::move(dims));
      check_loaded();
    }
  }

 private:
  void check_loaded() const;  // throws Error(data) on what no factory makes
};

struct Fans {
  double in, out;
};
Fans fans_of(const Shape& shape);

// The first values of one variable: what an initializer computes once for all its elements is kept between
// fills. Borrows the initializer. Throws as Initializer::fill.
class InitialValues {
 public:
  InitialValues(const Initializer& initializer, std::uint64_t seed, std::string variable, Shape full);
  InitialValues(Initializer&&, std::uint64_t, std::string, Shape) = delete;
  // Elements [begin, begin + n) of the row-major variable.
  void fill(TensorView out, std::int64_t begin) const;

 private:
  template <class T>
  void fill_as(std::span<T> out, std::int64_t begin) const;
  double draw(std::int64_t element) const;  // of the kinds that fill_as() does not draw many at once of
  void copy_values(TensorView out, std::int64_t begin) const;
  const Initializer* initializer_;
  RandomStream stream_;
  std::string variable_;
  Shape full_;
  std::vector<double> matrix_;  // of Kind::orthogonal, row-major
};

}  // namespace varscope

BOOST_CLASS_VERSION(varscope::Initializer, 1)
