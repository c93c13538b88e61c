#include "common/initializer.h"

#include <cmath>

#include "common/hash.h"
#include "common/philox.h"

namespace varscope {
namespace {

template <class T>
void fill_as(const Initializer& init, std::span<T> out, const RandomStream& stream, std::int64_t begin) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t element = static_cast<std::uint64_t>(begin) + i;
    switch (init.kind) {
      case Initializer::Kind::constant:
        out[i] = static_cast<T>(init.a);
        break;
      case Initializer::Kind::uniform:
        out[i] = static_cast<T>(init.a + (init.b - init.a) * stream.uniform(element));
        break;
      case Initializer::Kind::normal:
        out[i] = static_cast<T>(init.a + init.b * stream.normal(element));
        break;
    }
  }
}

}  // namespace

Fans fans_of(const Shape& shape) {
  if (shape.rank() == 0) return {1, 1};
  if (shape.rank() == 1) return {static_cast<double>(shape[0]), static_cast<double>(shape[0])};
  double field = 1;
  for (std::size_t axis = 0; axis + 2 < shape.rank(); ++axis) field *= static_cast<double>(shape[axis]);
  return {field * static_cast<double>(shape[shape.rank() - 2]),
          field * static_cast<double>(shape[shape.rank() - 1])};
}

Initializer Initializer::glorot_uniform(const Shape& shape) {
  const Fans fans = fans_of(shape);
  const double limit = std::sqrt(6.0 / std::max(1.0, fans.in + fans.out));
  return uniform(-limit, limit);
}

Initializer Initializer::glorot_normal(const Shape& shape) {
  const Fans fans = fans_of(shape);
  return normal(0, std::sqrt(2.0 / std::max(1.0, fans.in + fans.out)));
}

Initializer Initializer::he_uniform(const Shape& shape) {
  const double limit = std::sqrt(6.0 / std::max(1.0, fans_of(shape).in));
  return uniform(-limit, limit);
}

Initializer Initializer::he_normal(const Shape& shape) {
  return normal(0, std::sqrt(2.0 / std::max(1.0, fans_of(shape).in)));
}

Initializer Initializer::fan_in_uniform(std::int64_t fan_in) {
  const double limit = 1.0 / std::sqrt(static_cast<double>(fan_in));
  return uniform(-limit, limit);
}

void Initializer::fill(TensorView out, std::uint64_t seed, const std::string& variable,
                       std::int64_t begin) const {
  const RandomStream stream(seed, RandomPurpose::initializer, hash64(variable));
  switch (out.dtype()) {
    case DType::float32:
      return fill_as(*this, out.as<float>(), stream, begin);
    case DType::float64:
      return fill_as(*this, out.as<double>(), stream, begin);
    case DType::int32:
    case DType::int64:
      if (kind == Kind::constant) {
        return out.dtype() == DType::int32 ? fill_as(*this, out.as<std::int32_t>(), stream, begin)
                                           : fill_as(*this, out.as<std::int64_t>(), stream, begin);
      }
      break;
    default:
      break;
  }
  fail(ErrorKind::argument, "variable \"{}\" of dtype {} cannot be initialized with {}", variable,
       to_string(out.dtype()), str());
}

std::string Initializer::str() const {
  switch (kind) {
    case Kind::constant:
      return fmt::format("constant({:g})", a);
    case Kind::uniform:
      return fmt::format("uniform({:.4g}, {:.4g})", a, b);
    case Kind::normal:
      return fmt::format("normal({:.4g}, {:.4g})", a, b);
  }
  return "unknown";
}

}  // namespace varscope
