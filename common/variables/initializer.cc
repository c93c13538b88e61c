#include "common/variables/initializer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "common/base/hash.h"

namespace varscope {
namespace {

// The standard deviation of a standard normal that is cut off at two.
constexpr double kTruncatedStddev = 0.87962566103423978;

// Attempt k of element e draws at counter e + k 2^56: no variable has as many elements.
double truncated_normal_at(const RandomStream& stream, std::uint64_t element) {
  for (std::uint64_t attempt = 0; attempt < 256; ++attempt) {
    const double x = stream.normal(element + (attempt << 56));
    if (std::abs(x) <= 2) return x;
  }
  return 0;  // probability 0.0455^256
}

// Modified Gram-Schmidt on the columns of a row-major matrix, row by row so that the inner loops are
// contiguous. The diagonal of R is positive. A column that depends on those before it becomes zero.
void orthonormalize_columns(std::vector<double>& m, std::size_t rows, std::size_t cols) {
  std::vector<double> dots(cols);
  for (std::size_t k = 0; k < cols; ++k) {
    double square = 0;
    for (std::size_t i = 0; i < rows; ++i) square += m[i * cols + k] * m[i * cols + k];
    const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
    std::fill(dots.begin(), dots.end(), 0.0);
    for (std::size_t i = 0; i < rows; ++i) {
      double* row = m.data() + i * cols;
      row[k] *= scale;
      for (std::size_t j = k + 1; j < cols; ++j) dots[j] += row[k] * row[j];
    }
    for (std::size_t i = 0; i < rows; ++i) {
      double* row = m.data() + i * cols;
      for (std::size_t j = k + 1; j < cols; ++j) row[j] -= row[k] * dots[j];
    }
  }
}

// A second pass brings the columns to working precision (Giraud, Langou, Rozloznik 2005).
std::vector<double> orthogonal_matrix(const RandomStream& stream, const Shape& full) {
  const auto cols = static_cast<std::size_t>(full[full.rank() - 1]);
  const auto n = static_cast<std::size_t>(full.n_elements());
  if (n == 0) return {};
  const std::size_t rows = n / cols, tall = std::max(rows, cols), narrow = std::min(rows, cols);
  std::vector<double> q(n);
  for (std::size_t i = 0; i < n; ++i) q[i] = stream.normal(i);
  orthonormalize_columns(q, tall, narrow);
  orthonormalize_columns(q, tall, narrow);
  if (rows >= cols) return q;
  std::vector<double> transposed(n);
  for (std::size_t i = 0; i < tall; ++i) {
    for (std::size_t j = 0; j < narrow; ++j) transposed[j * tall + i] = q[i * narrow + j];
  }
  return transposed;
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

Initializer Initializer::variance_scaling(const Shape& shape, double scale, FanMode mode, Distribution dist) {
  const Fans fans = fans_of(shape);
  const double fan = mode == FanMode::fan_in    ? std::max(1.0, fans.in)
                     : mode == FanMode::fan_out ? std::max(1.0, fans.out)
                                                : std::max(1.0, fans.in + fans.out) / 2;
  if (dist == Distribution::uniform) {
    const double limit = std::sqrt(3 * scale / fan);
    return uniform(-limit, limit);
  }
  const double stddev = std::sqrt(scale / fan);
  if (dist == Distribution::normal) return normal(0, stddev);
  return truncated_normal(0, stddev / kTruncatedStddev);
}

Initializer Initializer::glorot_uniform(const Shape& shape) {
  return variance_scaling(shape, 1, FanMode::fan_avg, Distribution::uniform);
}
Initializer Initializer::glorot_normal(const Shape& shape) {
  return variance_scaling(shape, 1, FanMode::fan_avg, Distribution::normal);
}
Initializer Initializer::he_uniform(const Shape& shape) {
  return variance_scaling(shape, 2, FanMode::fan_in, Distribution::uniform);
}
Initializer Initializer::he_normal(const Shape& shape) {
  return variance_scaling(shape, 2, FanMode::fan_in, Distribution::normal);
}
Initializer Initializer::lecun_uniform(const Shape& shape) {
  return variance_scaling(shape, 1, FanMode::fan_in, Distribution::uniform);
}
Initializer Initializer::lecun_normal(const Shape& shape) {
  return variance_scaling(shape, 1, FanMode::fan_in, Distribution::normal);
}

Initializer Initializer::fan_in_uniform(std::int64_t fan_in) {
  const double limit = 1.0 / std::sqrt(static_cast<double>(fan_in));
  return uniform(-limit, limit);
}

Initializer Initializer::values(const TensorView& tensor) {
  Initializer init{Kind::values, 0, 0, tensor.dtype(), tensor.shape()};
  init.values_bytes.resize(tensor.n_bytes());
  if (tensor.n_bytes() > 0) std::memcpy(init.values_bytes.data(), tensor.bytes(), tensor.n_bytes());
  return init;
}

void Initializer::check_loaded() const {
  if (kind > Kind::values) fail(ErrorKind::data, "an initializer has kind {}", static_cast<int>(kind));
  const std::size_t expected =
      has_values() ? static_cast<std::size_t>(values_shape.n_elements()) * size_of(values_dtype) : 0;
  if (values_bytes.size() != expected) {
    fail(ErrorKind::data, "an initializer holds {} bytes of values for shape {} of {}", values_bytes.size(),
         values_shape.str(), to_string(values_dtype));
  }
}

void Initializer::fill(TensorView out, std::uint64_t seed, const std::string& variable, std::int64_t begin,
                       const Shape& full) const {
  InitialValues(*this, seed, variable, full).fill(out, begin);
}

std::string Initializer::str() const {
  switch (kind) {
    case Kind::constant:
      return fmt::format("constant({:g})", a);
    case Kind::uniform:
      return fmt::format("uniform({:.4g}, {:.4g})", a, b);
    case Kind::normal:
      return fmt::format("normal({:.4g}, {:.4g})", a, b);
    case Kind::truncated_normal:
      return fmt::format("truncated_normal({:.4g}, {:.4g})", a, b);
    case Kind::orthogonal:
      return fmt::format("orthogonal({:g})", a);
    case Kind::identity:
      return fmt::format("identity({:g})", a);
    case Kind::values:
      return fmt::format("values({} {})", to_string(values_dtype), values_shape.str());
  }
  return "unknown";
}

InitialValues::InitialValues(const Initializer& initializer, std::uint64_t seed, std::string variable,
                             Shape full)
    : initializer_(&initializer),
      stream_(seed, RandomPurpose::initializer, hash64(variable)),
      variable_(std::move(variable)),
      full_(std::move(full)) {
  const bool orthogonal = initializer.kind == Initializer::Kind::orthogonal;
  if (orthogonal ? full_.rank() < 2 : initializer.kind == Initializer::Kind::identity && full_.rank() != 2) {
    fail(ErrorKind::argument, "variable \"{}\" of shape {} cannot be initialized with {}: it needs rank 2{}",
         variable_, full_.str(), initializer.str(), orthogonal ? " or more" : "");
  }
  if (orthogonal) matrix_ = orthogonal_matrix(stream_, full_);
}

double InitialValues::draw(std::int64_t element) const {
  const auto at = static_cast<std::uint64_t>(element);
  const double a = initializer_->a, b = initializer_->b;
  switch (initializer_->kind) {
    case Initializer::Kind::truncated_normal:
      return a + b * truncated_normal_at(stream_, at);
    case Initializer::Kind::orthogonal:
      return a * matrix_[at];
    case Initializer::Kind::identity:
      return element / full_[1] == element % full_[1] ? a : 0;
    default:
      return a;
  }
}

template <class T>
void InitialValues::fill_as(std::span<T> out, std::int64_t begin) const {
  // Of a table's row the numbers of elements wrap around.
  const auto first = static_cast<std::uint64_t>(begin);
  const double a = initializer_->a, b = initializer_->b;
  const auto fill_draws = [&](auto draws, double scale) {
    std::array<double, 16> drawn;
    for (std::size_t i = 0; i < out.size(); i += drawn.size()) {
      const std::size_t n = std::min(drawn.size(), out.size() - i);
      draws(first + i, std::span(drawn).first(n));
      for (std::size_t j = 0; j < n; ++j) out[i + j] = static_cast<T>(a + scale * drawn[j]);
    }
  };
  if (initializer_->kind == Initializer::Kind::uniform)
    return fill_draws([&](auto at, auto to) { stream_.uniform(at, to); }, b - a);
  if (initializer_->kind == Initializer::Kind::normal)
    return fill_draws([&](auto at, auto to) { stream_.normal(at, to); }, b);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<T>(draw(static_cast<std::int64_t>(first + i)));
}

void InitialValues::copy_values(TensorView out, std::int64_t begin) const {
  const Initializer& init = *initializer_;
  const std::size_t at = static_cast<std::size_t>(begin) * size_of(out.dtype());
  if (out.dtype() != init.values_dtype || at + out.n_bytes() > init.values_bytes.size()) {
    fail(ErrorKind::argument, "variable \"{}\": elements {} to {} of {} are not among {}", variable_, begin,
         begin + out.n_elements(), to_string(out.dtype()), init.str());
  }
  if (out.n_bytes() > 0) std::memcpy(out.bytes(), init.values_bytes.data() + at, out.n_bytes());
}

void InitialValues::fill(TensorView out, std::int64_t begin) const {
  const Initializer::Kind kind = initializer_->kind;
  if (kind == Initializer::Kind::values) return copy_values(out, begin);
  const bool any_dtype = kind == Initializer::Kind::constant || kind == Initializer::Kind::identity;
  if (out.dtype() == DType::float32) return fill_as(out.as<float>(), begin);
  if (out.dtype() == DType::float64) return fill_as(out.as<double>(), begin);
  if (any_dtype && out.dtype() == DType::int32) return fill_as(out.as<std::int32_t>(), begin);
  if (any_dtype && out.dtype() == DType::int64) return fill_as(out.as<std::int64_t>(), begin);
  if (any_dtype && out.dtype() == DType::uint8) return fill_as(out.as<std::uint8_t>(), begin);
  fail(ErrorKind::argument, "variable \"{}\" of dtype {} cannot be initialized with {}", variable_,
       to_string(out.dtype()), initializer_->str());
}

}  // namespace varscope
