#include "worker/data/synthetic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
#include <vector>

#include "common/base/error.h"
#include "common/base/hash.h"

namespace varscope {
namespace {

using ::testing::HasSubstr;

struct Rows {
  std::vector<double> x, y;  // [n, 10], [n]
};

Rows rows_of(const Friedman1Dataset& data) {
  const std::int64_t n = data.size();
  std::vector<std::int64_t> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  const Tensor x(DType::float64, Shape{n, 10}), y(DType::float64, Shape{n, 1});
  data.fill(all, x.view(), y.view());
  return {{x.view().data<double>(), x.view().data<double>() + 10 * n},
          {y.view().data<double>(), y.view().data<double>() + n}};
}

TEST(Friedman1, IsItsFormulaWithoutNoise) {
  const Rows rows = rows_of(Friedman1Dataset({.samples = 500, .noise = 0}, DataSplit::train));
  for (std::size_t i = 0; i < rows.y.size(); ++i) {
    const double* x = &rows.x[10 * i];
    for (int k = 0; k < 10; ++k) {
      EXPECT_GE(x[k], 0);
      EXPECT_LT(x[k], 1);
    }
    const double y =
        10 * std::sin(std::numbers::pi * x[0] * x[1]) + 20 * std::pow(x[2] - 0.5, 2) + 10 * x[3] + 5 * x[4];
    EXPECT_NEAR(rows.y[i], y, 1e-12);
  }
}

TEST(Friedman1, NoiseHasItsStandardDeviation) {
  const Friedman1Dataset quiet({.samples = 20000, .noise = 0}, DataSplit::test);
  const Friedman1Dataset noisy({.samples = 20000, .noise = 1.5}, DataSplit::test);
  const Rows a = rows_of(quiet), b = rows_of(noisy);
  EXPECT_EQ(a.x, b.x);
  double sum = 0, squares = 0, mean = 0, spread = 0;
  for (std::size_t i = 0; i < a.y.size(); ++i) {
    const double d = b.y[i] - a.y[i];
    sum += d / 20000;
    squares += d * d / 20000;
    mean += a.y[i] / 20000;
    spread += a.y[i] * a.y[i] / 20000;
  }
  EXPECT_NEAR(sum, 0, 0.04);
  EXPECT_NEAR(std::sqrt(squares), 1.5, 0.03);
  EXPECT_NEAR(spread - mean * mean, 23.8, 0.7);
}

TEST(Friedman1, SampleIsAPureFunctionOfSeedSplitAndIndex) {
  const auto rows = [](std::int64_t n, std::uint64_t seed, DataSplit split) {
    return rows_of(Friedman1Dataset({.samples = n, .noise = 1, .seed = seed}, split));
  };
  const Rows few = rows(20, 7, DataSplit::train), many = rows(50, 7, DataSplit::train);
  EXPECT_TRUE(std::equal(few.y.begin(), few.y.end(), many.y.begin()));
  EXPECT_TRUE(std::equal(few.x.begin(), few.x.end(), many.x.begin()));
  EXPECT_NE(few.y, rows(20, 7, DataSplit::test).y);
  EXPECT_NE(few.y, rows(20, 8, DataSplit::train).y);
}

std::vector<double> mean_colour(const ColourShapesDataset& data, std::int64_t i, std::int64_t size) {
  const auto pixels = data.pixels(i);
  const auto centre = static_cast<std::size_t>(size / 2 * size + size / 2) * 3;
  return {double(pixels[centre]), double(pixels[centre + 1]), double(pixels[centre + 2])};
}

TEST(ColourShapes, TheCentreHasTheColourOfTheClass) {
  const ColourShapesDataset data({.samples = 900, .noise = 0, .size = 16}, DataSplit::train);
  EXPECT_EQ(data.sample_shape(), Shape({16, 16, 3}));
  const std::vector<std::string> names = data.class_names();
  ASSERT_EQ(names.size(), 9U);
  EXPECT_EQ(names.front(), "red disc");
  std::map<std::int32_t, int> counts;
  int right = 0;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    ++counts[data.label(i)];
    const std::vector<double> rgb = mean_colour(data, i, 16);
    const auto strongest = std::ranges::max_element(rgb) - rgb.begin();
    const std::string& name = names[static_cast<std::size_t>(data.label(i))];
    const char* colours[] = {"red ", "green ", "blue "};
    right += name.starts_with(colours[strongest]) ? 1 : 0;
  }
  EXPECT_EQ(counts.size(), 9U);
  // The arms of a cross may miss the centre.
  EXPECT_GT(right, 700);
  for (const auto& [label, n] : counts) EXPECT_GT(n, 60) << names[static_cast<std::size_t>(label)];
}

TEST(ColourShapes, HaveTheBytesTheyAlwaysHad) {
  // A change of the generator changes what every published number was measured on.
  const ColourShapesDataset data({.samples = 50, .noise = 0.25, .size = 16}, DataSplit::train);
  EXPECT_EQ(data.content().hex(), "235244cf3fde585c8cbe7367e12cefb8");
}

TEST(Synthetic, OptionsOutOfRangeAreTold) {
  const auto words = [](const auto& f) {
    try {
      f();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  EXPECT_THAT(words([] { ColourShapesDataset({.samples = 1, .noise = 2}, DataSplit::train); }),
              HasSubstr("colour_shapes: 1 samples of size 16 with noise 2; needs"));
  EXPECT_THAT(words([] { Friedman1Dataset({.samples = 0}, DataSplit::train); }),
              HasSubstr("friedman1: 0 samples with noise 0; needs at least 1"));
}

}  // namespace
}  // namespace varscope
