#include "worker/data/synthetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string_view>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/philox.h"

namespace varscope {
namespace {

constexpr std::array<std::string_view, 3> kColours = {"red", "green", "blue"};
constexpr std::array<std::string_view, 3> kShapes = {"disc", "square", "cross"};

template <class T>
void copy_rows(std::span<const double> from, std::int64_t width, std::span<const std::int64_t> indices,
               T* to) {
  for (const std::int64_t i : indices) {
    for (std::int64_t k = 0; k < width; ++k)
      *to++ = static_cast<T>(from[static_cast<std::size_t>(i * width + k)]);
  }
}

void copy_rows(std::span<const double> from, std::int64_t width, std::span<const std::int64_t> indices,
               const TensorView& to) {
  if (to.shape().n_elements() != std::ssize(indices) * width)
    fail(ErrorKind::argument, "{} samples of {} numbers do not fit into {}", indices.size(), width,
         to.shape().str());
  if (to.dtype() == DType::float32) return copy_rows(from, width, indices, to.data<float>());
  if (to.dtype() == DType::float64) return copy_rows(from, width, indices, to.data<double>());
  fail(ErrorKind::argument, "samples are numbers, not {}", to_string(to.dtype()));
}

// How much of a pixel whose centre is (dx, dy) away from the shape's is covered, for a radius in pixels.
double coverage(std::size_t shape, double dx, double dy, double radius) {
  const double x = std::abs(dx), y = std::abs(dy);
  double outside = 0;  // the distance to the outline, negative inside
  if (shape == 0) {
    outside = std::sqrt(x * x + y * y) - radius;
  } else if (shape == 1) {
    outside = std::max(x, y) - 0.85 * radius;
  } else {
    outside = std::max(std::min(x, y) - 0.3 * radius, std::max(x, y) - radius);
  }
  return std::clamp(0.5 - outside, 0.0, 1.0);
}

}  // namespace

Friedman1Dataset::Friedman1Dataset(const SyntheticOptions& options, DataSplit split) {
  if (options.samples < 1 || !(options.noise >= 0) || !std::isfinite(options.noise))
    fail(ErrorKind::argument, "friedman1: {} samples with noise {}; needs at least 1, and noise from 0 on",
         options.samples, options.noise);
  const auto n = static_cast<std::size_t>(options.samples);
  constexpr auto kWidth = static_cast<std::size_t>(kFeatures);
  x_.resize(n * kWidth);
  y_.resize(n);
  const RandomStream stream(options.seed, RandomPurpose::friedman1, static_cast<std::uint64_t>(split));
  for (std::size_t i = 0; i < n; ++i) {
    const std::span<double> x = std::span(x_).subspan(i * kWidth, kWidth);
    const std::uint64_t first = i * (kWidth + 1);
    for (std::size_t k = 0; k < kWidth; ++k) x[k] = stream.uniform(first + k);
    y_[i] = noiseless(x) + options.noise * stream.normal(first + kWidth);
  }
}

double Friedman1Dataset::noiseless(std::span<const double> x) {
  return 10 * std::sin(std::numbers::pi * x[0] * x[1]) + 20 * (x[2] - 0.5) * (x[2] - 0.5) + 10 * x[3] +
         5 * x[4];
}

void Friedman1Dataset::fill(std::span<const std::int64_t> indices, const TensorView& x,
                            const TensorView& y) const {
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= size()) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, size());
  }
  copy_rows(x_, kFeatures, indices, x);
  copy_rows(y_, 1, indices, y);
}

Digest Friedman1Dataset::content() const {
  Digester digester;
  digester.update(std::as_bytes(std::span(x_)));
  digester.update(std::as_bytes(std::span(y_)));
  return digester.finish();
}

ColourShapesDataset::ColourShapesDataset(const SyntheticOptions& options, DataSplit split) {
  if (options.samples < 1 || options.size < 8 || options.size > 64 ||
      !(options.noise >= 0 && options.noise <= 1)) {
    fail(ErrorKind::argument,
         "colour_shapes: {} samples of size {} with noise {}; needs at least 1 sample, size 8 .. 64, noise "
         "0 .. 1",
         options.samples, options.size, options.noise);
  }
  size_ = options.samples;
  n_classes_ = static_cast<std::int64_t>(kColours.size() * kShapes.size());
  sample_shape_ = Shape{options.size, options.size, 3};
  const auto area = static_cast<std::size_t>(options.size * options.size);
  pixels_.resize(3 * area * static_cast<std::size_t>(size_));
  labels_.resize(static_cast<std::size_t>(size_));
  const RandomStream stream(options.seed, RandomPurpose::colour_shapes, static_cast<std::uint64_t>(split));
  constexpr std::uint64_t kElementsPerSample = 1U << 16U;  // more than a 64 x 64 image needs
  const auto side = static_cast<double>(options.size);
  const auto width = static_cast<std::size_t>(options.size);
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    std::uint64_t at = i * kElementsPerSample;
    const std::uint64_t label = stream.below(at++, static_cast<std::uint64_t>(n_classes_));
    labels_[i] = static_cast<std::uint8_t>(label);
    const std::size_t colour = label / kShapes.size(), shape = label % kShapes.size();
    const auto between = [&](double low, double high) { return low + (high - low) * stream.uniform(at++); };
    const double radius = between(0.18, 0.36) * side;
    const double x = between(0.36, 0.64) * side, y = between(0.36, 0.64) * side;
    const double grey = between(0.1, 0.5), strong = between(0.5, 1.0), weak = between(0.0, 0.25);
    for (std::size_t pixel = 0; pixel < area; ++pixel) {
      const std::size_t row = pixel / width, column = pixel % width;
      const double ink =
          coverage(shape, static_cast<double>(column) + 0.5 - x, static_cast<double>(row) + 0.5 - y, radius);
      const std::array<std::uint32_t, 4> words = stream.words(at++);
      for (std::size_t channel = 0; channel < 3; ++channel) {
        const double u = (static_cast<double>(words[channel]) + 0.5) * 0x1p-31 - 1.0;  // (-1, 1)
        const double paint = channel == colour ? strong : weak;
        const double value = grey + ink * (paint - grey) + options.noise * u;
        pixels_[(i * area + pixel) * 3 + channel] =
            static_cast<std::uint8_t>(std::clamp(std::floor(255.0 * value + 0.5), 0.0, 255.0));
      }
    }
  }
}

std::vector<std::string> ColourShapesDataset::class_names() const {
  std::vector<std::string> names;
  for (const std::string_view colour : kColours) {
    for (const std::string_view shape : kShapes)
      names.push_back(std::string(colour) + " " + std::string(shape));
  }
  return names;
}

}  // namespace varscope
