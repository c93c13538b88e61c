#include "worker/data/digits.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "common/base/philox.h"

namespace varscope {
namespace {

struct Point {
  double x, y;  // in the unit square, y downwards
};
using Stroke = std::vector<Point>;
using Glyph = std::vector<Stroke>;

// Part of an ellipse from angle `from` to `to` in degrees; 0 is right, 90 is down.
Stroke arc(Point center, double rx, double ry, double from, double to) {
  const int n = std::max(4, static_cast<int>(std::abs(to - from) / 24.0));
  Stroke stroke;
  for (int i = 0; i <= n; ++i) {
    const double angle = (from + (to - from) * i / n) * std::numbers::pi / 180.0;
    stroke.push_back({center.x + rx * std::cos(angle), center.y + ry * std::sin(angle)});
  }
  return stroke;
}

Stroke join(Stroke a, const Stroke& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const std::array<Glyph, 10>& glyphs() {
  static const std::array<Glyph, 10> all = {{
      {arc({0.5, 0.5}, 0.27, 0.4, 0, 360)},
      {{{0.34, 0.28}, {0.54, 0.1}, {0.54, 0.9}}},
      {join(arc({0.5, 0.33}, 0.26, 0.23, 180, 390), {{0.24, 0.9}, {0.78, 0.9}})},
      {join(arc({0.47, 0.3}, 0.25, 0.2, 200, 450), arc({0.47, 0.7}, 0.28, 0.2, -90, 155))},
      {{{0.64, 0.9}, {0.64, 0.1}, {0.2, 0.64}, {0.82, 0.64}}},
      {join({{0.74, 0.1}, {0.32, 0.1}, {0.29, 0.48}}, arc({0.47, 0.65}, 0.28, 0.25, -125, 150))},
      {join({{0.68, 0.12}, {0.48, 0.22}, {0.33, 0.42}}, arc({0.51, 0.67}, 0.24, 0.23, 190, 550))},
      {{{0.22, 0.1}, {0.78, 0.1}, {0.42, 0.9}}},
      {arc({0.5, 0.3}, 0.21, 0.2, 0, 360), arc({0.5, 0.7}, 0.26, 0.2, 0, 360)},
      {join(arc({0.49, 0.33}, 0.24, 0.23, 370, 10), {{0.7, 0.55}, {0.66, 0.7}, {0.52, 0.9}})},
  }};
  return all;
}

// Numbers in order, drawn by counter: four per element of the stream.
class Draws {
 public:
  Draws(const RandomStream& stream, std::uint64_t first) : stream_(&stream), element_(first) {}
  std::uint32_t word() {
    if (used_ == 4) {
      words_ = stream_->words(element_++);
      used_ = 0;
    }
    return words_[used_++];
  }
  double between(double low, double high) { return low + (high - low) * (word() * 0x1p-32); }

 private:
  const RandomStream* stream_;
  std::uint64_t element_;
  std::array<std::uint32_t, 4> words_{};
  std::size_t used_ = 4;
};

// How one sample distorts its glyph: p -> matrix * (p - center) + shift, in pixels.
struct Pose {
  double xx, xy, yx, yy, dx, dy;
  double bend;            // a sideways bow, in units of the glyph
  double half_thickness;  // pixels
  double ink;             // 0 .. 1
};

Pose draw_pose(Draws& draws, double size) {
  const double angle = draws.between(-26.0, 26.0) * std::numbers::pi / 180.0;
  const double scale = draws.between(0.62, 0.92) * size;
  const double aspect = draws.between(0.8, 1.15);
  const double slant = draws.between(-0.25, 0.25);
  const double c = std::cos(angle) * scale;
  const double s = std::sin(angle) * scale;
  Pose pose{};
  pose.xx = c * aspect;
  pose.xy = c * slant - s;
  pose.yx = s * aspect;
  pose.yy = s * slant + c;
  pose.dx = size * (0.5 + draws.between(-0.12, 0.12));
  pose.dy = size * (0.5 + draws.between(-0.12, 0.12));
  pose.bend = draws.between(-0.25, 0.25);
  pose.half_thickness = size * draws.between(0.022, 0.055);
  pose.ink = draws.between(0.6, 1.0);
  return pose;
}

Point place(const Pose& pose, Point p) {
  const double y = p.y - 0.5;
  const double x = p.x - 0.5 + pose.bend * (y * y - 0.08);
  return {pose.xx * x + pose.xy * y + pose.dx, pose.yx * x + pose.yy * y + pose.dy};
}

// Lowers the squared distances (pixel centres to ink) near the segment a-b; pixels beyond `reach` are left
// alone.
void draw_segment(Point a, Point b, double reach, std::int64_t size, std::vector<double>& squared) {
  const auto first = [](double v) {
    return std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(v)));
  };
  const std::int64_t x_begin = first(std::min(a.x, b.x) - reach);
  const std::int64_t y_begin = first(std::min(a.y, b.y) - reach);
  const std::int64_t x_end = std::min(size, first(std::max(a.x, b.x) + reach) + 1);
  const std::int64_t y_end = std::min(size, first(std::max(a.y, b.y) + reach) + 1);
  const double vx = b.x - a.x;
  const double vy = b.y - a.y;
  const double inverse = 1.0 / std::max(1e-12, vx * vx + vy * vy);
  for (std::int64_t y = y_begin; y < y_end; ++y) {
    for (std::int64_t x = x_begin; x < x_end; ++x) {
      const double px = static_cast<double>(x) + 0.5 - a.x;
      const double py = static_cast<double>(y) + 0.5 - a.y;
      const double t = std::clamp((px * vx + py * vy) * inverse, 0.0, 1.0);
      const double ex = px - t * vx;
      const double ey = py - t * vy;
      double& d = squared[static_cast<std::size_t>(y * size + x)];
      d = std::min(d, ex * ex + ey * ey);
    }
  }
}

void draw_digit(std::size_t digit, const DigitsOptions& options, Draws& draws, std::vector<double>& squared,
                std::span<std::uint8_t> out) {
  const Pose pose = draw_pose(draws, static_cast<double>(options.size));
  const double reach = pose.half_thickness + 1.0;
  std::fill(squared.begin(), squared.end(), reach * reach);
  for (const Stroke& stroke : glyphs()[digit]) {
    for (std::size_t i = 0; i + 1 < stroke.size(); ++i) {
      draw_segment(place(pose, stroke[i]), place(pose, stroke[i + 1]), reach, options.size, squared);
    }
  }
  std::uint32_t noise = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    // Two pixels share a word of 32 bits.
    noise = i % 2 == 0 ? draws.word() : noise >> 16;
    const double u = (static_cast<double>(noise & 0xFFFF) + 0.5) * 0x1p-15 - 1.0;  // (-1, 1)
    const double ink = std::clamp(pose.half_thickness + 0.5 - std::sqrt(squared[i]), 0.0, 1.0) * pose.ink;
    out[i] = static_cast<std::uint8_t>(
        std::clamp(std::floor(255.0 * (ink + options.noise * u) + 0.5), 0.0, 255.0));
  }
}

}  // namespace

DigitsDataset::DigitsDataset(const DigitsOptions& options, DataSplit split) {
  if (options.samples < 1 || options.size < 8 || options.size > 64 ||
      !(options.noise >= 0 && options.noise <= 1)) {
    fail(ErrorKind::argument,
         "digits: {} samples of size {} with noise {}; needs at least 1 sample, size 8 .. 64, noise 0 .. 1",
         options.samples, options.size, options.noise);
  }
  size_ = options.samples;
  n_classes_ = 10;
  sample_shape_ = Shape{options.size, options.size};
  const auto area = static_cast<std::size_t>(options.size * options.size);
  pixels_.resize(area * static_cast<std::size_t>(size_));
  labels_.resize(static_cast<std::size_t>(size_));
  std::vector<double> squared(area);
  const RandomStream stream(options.seed, RandomPurpose::digits, static_cast<std::uint64_t>(split));
  constexpr std::uint64_t kElementsPerSample = 4096;  // more than a 64 x 64 image needs (520)
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    Draws draws(stream, i * kElementsPerSample);
    const std::size_t digit = draws.word() % 10;
    labels_[i] = static_cast<std::uint8_t>(digit);
    draw_digit(digit, options, draws, squared, std::span(pixels_).subspan(i * area, area));
  }
}

}  // namespace varscope
