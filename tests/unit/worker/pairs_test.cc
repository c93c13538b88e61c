#include "worker/data/pairs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "tests/support/thrown.h"
#include "worker/data/digits.h"

namespace varscope {
namespace {

std::unique_ptr<Dataset> digits(std::int64_t n) {
  DigitsOptions options;
  options.samples = n;
  options.size = 8;
  return std::make_unique<DigitsDataset>(options, DataSplit::train);
}

// One sample of one element whose value is its label.
class Labels final : public Dataset {
 public:
  explicit Labels(std::vector<std::int32_t> labels, std::int64_t n_classes)
      : labels_(std::move(labels)), n_classes_(n_classes) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
  const Shape& sample_shape() const override { return shape_; }
  std::int64_t n_classes() const override { return n_classes_; }
  void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const override {
    for (std::size_t row = 0; row < indices.size(); ++row) {
      const std::int32_t label = labels_[static_cast<std::size_t>(indices[row])];
      x.data<float>()[row] = static_cast<float>(label);
      y.data<std::int32_t>()[row] = label;
    }
  }

  Digest content() const override { return digest_of(std::as_bytes(std::span(labels_))); }

 private:
  std::vector<std::int32_t> labels_;
  std::int64_t n_classes_;
  Shape shape_{1};
};

TEST(PairDataset, LabelsSayWhetherTheClassesAgree) {
  std::vector<std::int32_t> labels;
  for (int i = 0; i < 2000; ++i) labels.push_back(i * 7 % 5);
  const PairDataset pairs(std::make_unique<Labels>(labels, 5), 3);
  ASSERT_EQ(pairs.size(), 2000);
  EXPECT_EQ(pairs.sample_shape(), (Shape{2, 1}));
  EXPECT_EQ(pairs.n_classes(), 2);
  const Tensor x(DType::float32, {1, 2, 1}), y(DType::int32, {1});
  int alike = 0;
  std::map<int, int> others;  // of sample 0's class
  for (std::int64_t i = 0; i < pairs.size(); ++i) {
    pairs.fill(std::span(&i, 1), x.view(), y.view());
    EXPECT_EQ(x.as<float>()[0], static_cast<float>(labels[static_cast<std::size_t>(i)]));
    EXPECT_EQ(y.as<std::int32_t>()[0], x.as<float>()[0] == x.as<float>()[1] ? 1 : 0);
    alike += y.as<std::int32_t>()[0];
    if (x.as<float>()[0] == 0 && x.as<float>()[1] != 0) ++others[static_cast<int>(x.as<float>()[1])];
  }
  EXPECT_NEAR(alike, 1000, 100);
  EXPECT_EQ(others.size(), 4U);  // every other class is drawn
}

// Each sample's value is its number, so that a partner can be told from the sample itself.
class Numbered final : public Dataset {
 public:
  explicit Numbered(std::vector<std::int32_t> labels) : labels_(std::move(labels)) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
  const Shape& sample_shape() const override { return shape_; }
  std::int64_t n_classes() const override { return *std::ranges::max_element(labels_) + 1; }
  void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const override {
    for (std::size_t row = 0; row < indices.size(); ++row) {
      x.data<float>()[row] = static_cast<float>(indices[row]);
      y.data<std::int32_t>()[row] = labels_[static_cast<std::size_t>(indices[row])];
    }
  }
  Digest content() const override { return {}; }

 private:
  std::vector<std::int32_t> labels_;
  Shape shape_{1};
};

TEST(PairDataset, PartnerIsAnotherSampleWhereTheClassHasOne) {
  std::vector<std::int32_t> labels;
  for (std::int32_t i = 0; i < 300; ++i) labels.push_back(i / 2);  // classes of two
  labels.push_back(150);                                           // and one of one
  std::map<int, std::map<int, int>> of_three;                      // partners in a class of three, by sample
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const PairDataset pairs(std::make_unique<Numbered>(labels), seed);
    const PairDataset threes(std::make_unique<Numbered>(std::vector<std::int32_t>{0, 1, 0, 1, 0}), seed);
    const Tensor x(DType::float32, {1, 2, 1}), y(DType::int32, {1});
    int alike = 0;
    for (std::int64_t i = 0; i < pairs.size(); ++i) {
      pairs.fill(std::span(&i, 1), x.view(), y.view());
      const auto first = static_cast<std::size_t>(x.as<float>()[0]),
                 other = static_cast<std::size_t>(x.as<float>()[1]);
      ASSERT_EQ(y.as<std::int32_t>()[0], labels[first] == labels[other] ? 1 : 0);
      alike += y.as<std::int32_t>()[0];
      EXPECT_TRUE(first == 300 || first != other) << first;
    }
    EXPECT_NEAR(alike, 150, 50);
    for (const std::int64_t i : {0, 2, 4}) {
      threes.fill(std::span(&i, 1), x.view(), y.view());
      if (y.as<std::int32_t>()[0] == 1) ++of_three[static_cast<int>(i)][static_cast<int>(x.as<float>()[1])];
    }
  }
  for (const int i : {0, 2, 4}) {
    EXPECT_EQ(of_three[i].size(), 2U) << i;  // both of the others are drawn
    EXPECT_FALSE(of_three[i].contains(i));
  }
}

TEST(PairDataset, IsAFunctionOfSeedAndIndex) {
  const PairDataset a(digits(50), 1), b(digits(50), 1), c(digits(50), 2);
  const Tensor xa(DType::float64, {50, 2, 8, 8}), xb(DType::float64, {50, 2, 8, 8}),
      xc(DType::float64, {50, 2, 8, 8});
  const Tensor y(DType::int32, {50});
  std::vector<std::int64_t> all(50);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  a.fill(all, xa.view(), y.view());
  b.fill(all, xb.view(), y.view());
  c.fill(all, xc.view(), y.view());
  const auto same = [](const Tensor& p, const Tensor& q) {
    return std::equal(p.as<double>().begin(), p.as<double>().end(), q.as<double>().begin());
  };
  EXPECT_TRUE(same(xa, xb));
  EXPECT_FALSE(same(xa, xc));
}

TEST(PairDataset, SaysWhatIsWrong) {
  EXPECT_THAT_THROWN(PairDataset(std::make_unique<Labels>(std::vector<std::int32_t>{1, 1, 1}, 2), 1),
                     ErrorKind::data, {"two classes", "all 3 are of class 1"});
  const PairDataset pairs(digits(20), 1);
  const Tensor x(DType::float32, {1, 2, 8, 8}), small(DType::float32, {1, 8, 8}), y(DType::int32, {1});
  const std::int64_t first = 0, beyond = 20;
  EXPECT_THAT_THROWN(pairs.fill(std::span(&first, 1), small.view(), y.view()), ErrorKind::argument,
                     {"do not fit"});
  EXPECT_THAT_THROWN(pairs.fill(std::span(&beyond, 1), x.view(), y.view()), ErrorKind::argument,
                     {"sample 20 was asked for; there are 20"});
}

}  // namespace
}  // namespace varscope
