#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config/data_split.h"
#include "worker/data/dataset.h"

namespace varscope {

// Data sets without files, drawn from formulas: sample i is a pure function of (seed, split, i), so that a
// shorter set is a prefix of a longer one, and train and test are different streams. Both are immutable: safe
// from any thread.
struct SyntheticOptions {
  std::int64_t samples = 10000;
  double noise = 0;
  std::int64_t size = 16;  // of images: pixels of a side, 8 .. 64
  std::uint64_t seed = 7;
};

// The regression problem of Friedman [1], called #1 since Breiman [2]: ten numbers x1 .. x10, uniform in
// [0, 1), and
//   y = 10 sin(pi x1 x2) + 20 (x3 - 1/2)^2 + 10 x4 + 5 x5 + noise * N(0, 1).
// The other five say nothing. No model can be better than rmse = noise; the best linear one reaches 2.6 or so
// with noise 1; the variance of y without noise is 23.8. x is [10], y is [1].
//
// [1] Friedman: Multivariate adaptive regression splines, The Annals of Statistics 19(1), 1991
// [2] Breiman: Bagging predictors, Machine Learning 24, 1996
class Friedman1Dataset final : public Dataset {
 public:
  static constexpr std::int64_t kFeatures = 10;
  // Throws Error(argument) for samples below 1, noise that is negative or not finite.
  Friedman1Dataset(const SyntheticOptions& options, DataSplit split);

  std::int64_t size() const override { return static_cast<std::int64_t>(y_.size()); }
  const Shape& sample_shape() const override { return sample_shape_; }
  const Shape& label_shape() const override { return label_shape_; }
  std::int64_t n_classes() const override { return 0; }
  Target target() const override { return Target::numbers; }
  std::int64_t n_bytes() const override { return size() * (kFeatures + 1) * 8; }
  void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const override;
  Digest content() const override;

  // y without noise. REQUIRES kFeatures numbers.
  static double noiseless(std::span<const double> x);

 private:
  Shape sample_shape_{kFeatures}, label_shape_{1};
  std::vector<double> x_, y_;
};

// Colour images [size, size, 3]: a disc, a square or a cross in red, green or blue, of any size and place,
// over a grey background, all under pixel noise (0 .. 1, of 1 = full colour). Nine classes, named "red disc"
// and so on. The brightness is drawn, too: colours cannot be told apart in grey.
class ColourShapesDataset final : public ByteImages {
 public:
  // Throws Error(argument) on options out of range.
  ColourShapesDataset(const SyntheticOptions& options, DataSplit split);
  std::vector<std::string> class_names() const override;
};

}  // namespace varscope
