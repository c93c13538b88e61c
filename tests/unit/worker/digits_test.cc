#include "worker/data/digits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <vector>

#include "common/base/hash.h"
#include "worker/data/order.h"
#include "worker/graph/session.h"
#include "worker/kernels/blas.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

std::vector<std::uint8_t> bytes_of(const DigitsDataset& data, std::int64_t i) {
  const auto p = data.pixels(i);
  std::vector<std::uint8_t> bytes(p.begin(), p.end());
  bytes.push_back(static_cast<std::uint8_t>(data.label(i)));
  return bytes;
}

TEST(Digits, SampleIsAPureFunctionOfSeedSplitAndIndex) {
  const DigitsDataset few({.samples = 20}, DataSplit::train);
  const DigitsDataset many({.samples = 50}, DataSplit::train);
  const DigitsDataset test({.samples = 20}, DataSplit::test);
  const DigitsDataset other({.samples = 20, .seed = 8}, DataSplit::train);
  for (std::int64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(bytes_of(few, i), bytes_of(many, i)) << "a shorter set is a prefix";
    EXPECT_NE(bytes_of(few, i), bytes_of(test, i));
    EXPECT_NE(bytes_of(few, i), bytes_of(other, i));
  }
}

TEST(Digits, HaveTheBytesTheyAlwaysHad) {
  // A change of the generator changes what every published number was measured on.
  const DigitsDataset data({.samples = 200}, DataSplit::train);
  Digester digester;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const auto bytes = bytes_of(data, i);
    digester.update(std::as_bytes(std::span(bytes)));
  }
  EXPECT_EQ(digester.finish().hex(), "145ee3e3cc9f1bf25214d09fb10b1775");
}

TEST(Digits, EveryClassOccursAndHasInk) {
  const DigitsDataset data({.samples = 1000, .noise = 0}, DataSplit::train);
  EXPECT_EQ(data.sample_shape(), (Shape{16, 16}));
  EXPECT_EQ(data.n_classes(), 10);
  std::map<int, int> count;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    ++count[data.label(i)];
    const auto p = data.pixels(i);
    EXPECT_GT(*std::max_element(p.begin(), p.end()), 60) << "sample " << i;
    EXPECT_LT(std::accumulate(p.begin(), p.end(), 0), 256 * 110) << "sample " << i;
  }
  ASSERT_EQ(count.size(), 10U);
  for (const auto& [label, n] : count) EXPECT_NEAR(n, 100, 57) << label;
}

TEST(Digits, WorksAtBothEndsOfTheSizes) {
  EXPECT_EQ(DigitsDataset({.samples = 3, .size = 8}, DataSplit::train).pixels(2).size(), 64U);
  EXPECT_EQ(DigitsDataset({.samples = 3, .size = 64}, DataSplit::train).pixels(2).size(), 4096U);
  EXPECT_THROW(DigitsDataset({.samples = 3, .size = 7}, DataSplit::train), Error);
  EXPECT_THROW(DigitsDataset({.samples = 3, .size = 65}, DataSplit::train), Error);
  EXPECT_THROW(DigitsDataset({.samples = 0}, DataSplit::train), Error);
  EXPECT_THROW(DigitsDataset({.samples = 3, .noise = 1.5}, DataSplit::train), Error);
}

// Test accuracy after some epochs of SGD with momentum 0.9, batch 64.
double train(const std::vector<std::int64_t>& widths, int n_epochs) {
  const DigitsDataset training({.samples = 10000}, DataSplit::train);
  const DigitsDataset test({.samples = 2000}, DataSplit::test);
  VariableStore store;
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {Shape::kUnknown, 16, 16});
  const NodeId y = g.placeholder("y", DType::int32, {Shape::kUnknown});
  NodeId h = ops::flatten(g, x);
  std::int64_t width = 256;
  for (std::size_t l = 0; l < widths.size(); ++l) {
    const auto scope = store.scope(fmt::format("layer{}", l));
    const NodeId w = g.variable(store.get_variable("weights", {width, widths[l]}));
    const NodeId b = g.variable(store.get_variable("bias", {widths[l]}));
    h = ops::dense(g, h, w, b, l + 1 < widths.size() ? Activation::relu : Activation::linear);
    width = widths[l];
  }
  const NodeId loss = ops::softmax_cross_entropy(g, h, y);
  const NodeId correct = ops::correct_count(g, h, y);
  Session session(g, 1);
  std::map<std::string, Tensor> velocity;
  const auto fetch = [&](const Dataset& data, std::span<const std::int64_t> rows, Tensor& images,
                         Tensor& labels) {
    const auto n = static_cast<std::int64_t>(rows.size());
    images = Tensor(DType::float32, {n, 16, 16});
    labels = Tensor(DType::int32, {n});
    data.fill(rows, images.view(), labels.view());
  };
  Tensor images;
  Tensor labels;
  EpochOrder order;
  for (std::int64_t step = 0; step < n_epochs * steps_per_epoch(10000, 64); ++step) {
    const BatchRange r = batch_at(step, 10000, 64);
    if (order.epoch() != r.epoch) order = EpochOrder(1, r.epoch, 10000, Shuffle::yes);
    fetch(training, order.part(r.begin, r.end), images, labels);
    const auto gradients = session.gradients(loss, {{x, images.view()}, {y, labels.view()}});
    for (const Variable* v : g.variables()) {
      if (!velocity.contains(v->name())) velocity.emplace(v->name(), Tensor(v->dtype(), v->shape()));
      const auto m = velocity.at(v->name()).as<float>();
      const auto d = gradients.at(v->name()).as<float>();
      const auto value = session.value(*v).as<float>();
      for (std::size_t i = 0; i < m.size(); ++i) {
        m[i] = 0.9F * m[i] + d[i] / 64.0F;
        value[i] -= 0.03F * m[i];
      }
    }
  }
  order = EpochOrder(0, 0, 2000, Shuffle::no);
  fetch(test, order.part(0, 2000), images, labels);
  const auto result = session.run({correct}, {{x, images.view()}, {y, labels.view()}});
  return static_cast<double>(result[0].as<std::int64_t>()[0]) / 2000;
}

TEST(Digits, AreARealTask) {
  set_blas_threads(1);
  const double linear = train({10}, 8);
  const double network = train({128, 64, 10}, 8);
  EXPECT_GT(linear, 0.5);
  EXPECT_GT(network, 0.93);
  EXPECT_GT(network, linear + 0.06);
}

}  // namespace
}  // namespace varscope
