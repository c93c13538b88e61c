#include <gtest/gtest.h>

#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"
#include "worker/kernels/im2col.h"
#include "worker/ops/image_ops.h"

namespace varscope {
namespace {

using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;

// Images n, h, w, c; filters kh, kw, m; strides; padding.
struct Case {
  std::int64_t n, h, w, c, kh, kw, m, stride_h, stride_w;
  Padding padding;
  ops::Conv2dOptions options() const { return {stride_h, stride_w, padding}; }
};

constexpr Case kCases[] = {
    {2, 5, 5, 1, 3, 3, 2, 1, 1, Padding::same},  {2, 5, 4, 2, 3, 2, 3, 1, 1, Padding::valid},
    {1, 7, 6, 3, 3, 3, 2, 2, 2, Padding::same},  {2, 6, 7, 2, 3, 3, 1, 2, 3, Padding::valid},
    {3, 4, 4, 3, 1, 1, 5, 1, 1, Padding::valid}, {2, 5, 5, 3, 1, 1, 2, 2, 2, Padding::same},
    {1, 2, 3, 2, 5, 5, 2, 1, 1, Padding::same},  {2, 3, 3, 2, 3, 3, 4, 1, 1, Padding::valid},
    {2, 1, 1, 1, 1, 1, 1, 1, 1, Padding::same},  {1, 5, 8, 2, 2, 4, 3, 3, 1, Padding::same},
    {1, 4, 9, 17, 2, 3, 2, 1, 2, Padding::same},
};

// TensorFlow's definition, straight from its documentation: the padding of one axis, before the input.
std::int64_t padding_before(std::int64_t in, std::int64_t k, std::int64_t stride, Padding padding) {
  if (padding == Padding::valid) return 0;
  const std::int64_t total = in % stride == 0 ? k - stride : k - in % stride;
  return total > 0 ? total / 2 : 0;
}
std::int64_t output_size(std::int64_t in, std::int64_t k, std::int64_t stride, Padding padding) {
  std::int64_t n = 0;
  const std::int64_t last = padding == Padding::valid ? in - k : in - 1;
  for (std::int64_t at = 0; at <= last; at += stride) ++n;
  return n;
}

std::vector<double> naive_conv(const Case& k, const double* x, const double* filter, const double* bias) {
  const std::int64_t oh = output_size(k.h, k.kh, k.stride_h, k.padding);
  const std::int64_t ow = output_size(k.w, k.kw, k.stride_w, k.padding);
  const std::int64_t top = padding_before(k.h, k.kh, k.stride_h, k.padding);
  const std::int64_t left = padding_before(k.w, k.kw, k.stride_w, k.padding);
  std::vector<double> y;
  for (std::int64_t n = 0; n < k.n; ++n)
    for (std::int64_t r = 0; r < oh; ++r)
      for (std::int64_t q = 0; q < ow; ++q)
        for (std::int64_t m = 0; m < k.m; ++m) {
          double sum = bias == nullptr ? 0 : bias[m];
          for (std::int64_t i = 0; i < k.kh; ++i)
            for (std::int64_t j = 0; j < k.kw; ++j) {
              const std::int64_t a = r * k.stride_h + i - top, b = q * k.stride_w + j - left;
              if (a < 0 || a >= k.h || b < 0 || b >= k.w) continue;
              for (std::int64_t c = 0; c < k.c; ++c)
                sum += x[((n * k.h + a) * k.w + b) * k.c + c] * filter[((i * k.kw + j) * k.c + c) * k.m + m];
            }
          y.push_back(sum);
        }
  return y;
}

class Conv2d : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, Conv2d, ::testing::ValuesIn(kCases));

TEST_P(Conv2d, IsTheNaiveSum) {
  const Case k = GetParam();
  GradientCheck g;
  const NodeId x = g.variable("x", {k.n, k.h, k.w, k.c});
  const NodeId filter = g.variable("filter", {k.kh, k.kw, k.c, k.m});
  const NodeId bias = g.variable("bias", {k.m});
  const NodeId y = ops::conv2d(g.graph, x, filter, bias, Activation::linear, k.options());
  const NodeId plain = ops::conv2d(g.graph, x, filter, std::nullopt, Activation::linear, k.options());
  EXPECT_EQ(g.graph.node(y).type.shape, (Shape{k.n, output_size(k.h, k.kh, k.stride_h, k.padding),
                                               output_size(k.w, k.kw, k.stride_w, k.padding), k.m}));
  Session session(g.graph, 5);
  const auto value = [&](NodeId id) { return session.value(*g.graph.node(id).variable).data<double>(); };
  const auto got = session.run({y, plain}, {});
  const auto with_bias = naive_conv(k, value(x), value(filter), value(bias));
  const auto without = naive_conv(k, value(x), value(filter), nullptr);
  ASSERT_EQ(got[0].as<double>().size(), with_bias.size());
  for (std::size_t i = 0; i < with_bias.size(); ++i) {
    EXPECT_NEAR(got[0].as<double>()[i], with_bias[i], 1e-12) << i;
    EXPECT_NEAR(got[1].as<double>()[i], without[i], 1e-12) << i;
  }
}

TEST_P(Conv2d, HasTheGradientOfFiniteDifferences) {
  const Case k = GetParam();
  for (const Activation f : {Activation::tanh, Activation::linear, Activation::gelu, Activation::swish}) {
    SCOPED_TRACE(to_string(f));
    GradientCheck g;
    const NodeId x = g.variable("x", {k.n, k.h, k.w, k.c});
    const NodeId filter = g.variable("filter", {k.kh, k.kw, k.c, k.m});
    g.check(g.scalar(ops::conv2d(g.graph, x, filter, g.variable("bias", {k.m}), f, k.options())));
  }
}

TEST(Conv2dGradient, AddsToWhatIsThere) {
  GradientCheck g;
  const NodeId x = g.variable("x", {2, 4, 3, 2});
  const NodeId filter = g.variable("filter", {3, 3, 2, 2});
  const NodeId bias = g.variable("bias", {2});
  const NodeId once = ops::conv2d(g.graph, x, filter, bias, Activation::sigmoid);
  const NodeId twice = ops::conv2d(g.graph, once, filter, bias, Activation::tanh);
  g.check(g.scalar(ops::add(g.graph, ops::multiply(g.graph, twice, x), once)));
}

TEST(Conv2dGradient, OneVariableCanBeImagesAndFilter) {
  for (const std::int64_t size : {1, 3}) {
    GradientCheck g;
    const NodeId x = g.variable("x", {size, size, 3, 3});
    g.check(g.scalar(ops::conv2d(g.graph, x, x, std::nullopt, Activation::linear)));
  }
}

// More output pixels than a block, and a last block that is not full.
TEST(Conv2dBlocks, JoinWithoutSeams) {
  const Case k{3, 21, 19, 40, 5, 5, 3, 1, 1, Padding::same};
  GradientCheck g;
  const NodeId x = g.feed(GradientCheck::random({k.n, k.h, k.w, k.c}, 1), {kAny, k.h, k.w, k.c});
  const NodeId filter = g.variable("filter", {k.kh, k.kw, k.c, k.m});
  const Window2d window = make_window({k.n, k.h, k.w, k.c}, {5, 5, 1, 1}, Padding::same);
  const std::int64_t rows = kernels::column_block_rows(window, DType::float64);
  ASSERT_GT(k.n * window.outputs(), 2 * rows);
  ASSERT_NE(k.n * window.outputs() % rows, 0);
  const NodeId y = ops::conv2d(g.graph, x, filter, std::nullopt, Activation::linear, k.options());
  Session session(g.graph, 5);
  const auto got = session.run({y}, g.feeds());
  const double* w = session.value(*g.graph.node(filter).variable).data<double>();
  const auto want = naive_conv(k, g.fed[0].second.as<double>().data(), w, nullptr);
  ASSERT_EQ(got[0].as<double>().size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[0].as<double>()[i], want[i], 1e-11) << i;
}

// Blocks that end within an image, and a variable as images, whose gradient starts at zero.
TEST(Conv2dBlocks, HaveTheGradientOfFiniteDifferences) {
  const Shape images{2, 9, 9, 7};
  const Window2d window = make_window(images, {9, 9, 1, 1}, Padding::same);
  ASSERT_LT(kernels::column_block_rows(window, DType::float64), window.outputs());
  GradientCheck g;
  const NodeId x = g.variable("x", images);
  const NodeId filter = g.variable("filter", {9, 9, 7, 1});
  g.check(g.scalar(ops::conv2d(g.graph, x, filter, g.variable("bias", {1}), Activation::sigmoid)));
}

TEST(Conv2dBatch, OfNoImagesHasZeroGradients) {
  VariableStore store;
  Graph graph;
  const NodeId x = graph.placeholder("x", DType::float32, {kAny, 4, 4, 1});
  const NodeId filter = graph.variable(store.get_variable("filter", {3, 3, 1, 2}));
  const NodeId bias = graph.variable(store.get_variable("bias", {2}));
  const NodeId y = ops::conv2d(graph, x, filter, bias, Activation::relu);
  Session session(graph, 3);
  const Tensor none(DType::float32, {0, 4, 4, 1});
  EXPECT_EQ(session.run({y}, {{x, none.view()}})[0].shape(), (Shape{0, 4, 4, 2}));
  for (const auto& [name, gradient] : session.gradients(ops::reduce_sum(graph, y), {{x, none.view()}})) {
    for (const float v : gradient.as<float>()) EXPECT_EQ(v, 0.0F) << name;
  }
}

// The copies of im2col run ahead by whole vectors; the last image must not be left for it.
TEST(Im2col, ReadsNothingBeyondTheImages) {
  for (const std::int64_t c : {1, 3, 20}) {
    const Window2d w = make_window({2, 4, 5, c}, {3, 3, 1, 1}, Padding::same);
    const std::int64_t size = 2 * w.image_size();
    std::vector<float> images(static_cast<std::size_t>(size), 1.0F);  // its end is guarded by the sanitizer
    std::vector<float> columns(static_cast<std::size_t>(2 * w.outputs() * w.cells() + kernels::kColumnSlack),
                               -1.0F);
    kernels::im2col(columns.data(), images.data(), 2, w, {0, 2 * w.outputs()});
    double inside = 0;
    for (std::size_t i = 0; i + kernels::kColumnSlack < columns.size(); ++i) {
      ASSERT_TRUE(columns[i] == 0.0F || columns[i] == 1.0F);
      inside += static_cast<double>(columns[i]);
    }
    EXPECT_EQ(inside, static_cast<double>(2 * (2 * 2 + 2 * 3) * (2 * 2 + 3 * 3) * c));
  }
}

TEST(Conv2dFlops, CountMultiplicationsAndAdditions) {
  VariableStore store;
  Graph graph;
  const NodeId x = graph.placeholder("x", DType::float32, {kAny, 28, 28, 3});
  const NodeId filter = graph.variable(store.get_variable("filter", {5, 5, 3, 32}));
  const NodeId y = ops::conv2d(graph, x, filter, std::nullopt, Activation::relu, {2, 2, Padding::same});
  EXPECT_EQ(graph.flops(y, 10), 2 * 10 * 14 * 14 * 5 * 5 * 3 * 32);
}

TEST(Conv2dErrors, NameTheNodeAndBothShapes) {
  VariableStore store;
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 28, 28, 3});
  const NodeId flat = g.placeholder("flat", DType::float32, {kAny, 784});
  const NodeId open = g.placeholder("open", DType::float32, {kAny, kAny, 28, 3});
  const NodeId filter = g.variable(store.get_variable("filter", {5, 5, 1, 32}));
  const NodeId fits = g.variable(store.get_variable("fits", {5, 5, 3, 32}));
  const NodeId tall = g.variable(store.get_variable("tall", {29, 5, 3, 32}));
  const NodeId bias = g.variable(store.get_variable("bias", {3}));
  const auto conv = [&](NodeId a, NodeId w, std::optional<NodeId> b, const ops::Conv2dOptions& o = {}) {
    return thrown([&] { ops::conv2d(g, a, w, b, Activation::relu, o, {"c1/conv2d", ""}); });
  };
  EXPECT_EQ(conv(x, filter, std::nullopt),
            "argument: node \"c1/conv2d\" (conv2d): shapes [?, 28, 28, 3] of \"x\" and [5, 5, 1, 32] of "
            "\"filter\" cannot be convolved: a filter [height, width, 3, filters] is needed, of at least 1 "
            "filter");
  EXPECT_EQ(conv(x, fits, bias),
            "argument: node \"c1/conv2d\" (conv2d): shapes [5, 5, 3, 32] of \"fits\" and [3] of \"bias\" do "
            "not fit: a bias of 32 elements is needed");
  EXPECT_EQ(conv(x, tall, std::nullopt, {1, 1, Padding::valid}),
            "argument: node \"c1/conv2d\" (conv2d): a window of 29 x 5 with padding valid does not fit into "
            "images [?, 28, 28, 3] of \"x\"; make it smaller, or use padding same");
  EXPECT_EQ(conv(x, fits, std::nullopt, {0, 1, Padding::same}),
            "argument: node \"c1/conv2d\" (conv2d): has a window of 5 x 5 and strides 0 x 1; each must be at "
            "least 1");
  EXPECT_EQ(conv(open, fits, std::nullopt),
            "argument: node \"c1/conv2d\" (conv2d): needs images [n, height, width, channels] of known "
            "extents of at least 1 in \"open\", which has shape [?, ?, 28, 3]");
  EXPECT_EQ(conv(flat, fits, std::nullopt),
            "argument: node \"c1/conv2d\" (conv2d): needs rank 4 for \"flat\", which has shape [?, 784]");
  EXPECT_EQ(g.size(), 7U) << "a node that does not fit must not stay";
}

}  // namespace
}  // namespace varscope
