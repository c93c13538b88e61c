#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"
#include "worker/ops/image_ops.h"

namespace varscope {
namespace {

using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;

struct Case {
  std::int64_t n, h, w, c;
  ops::Pool2dOptions pool;
};
constexpr Case kCases[] = {
    {2, 4, 6, 3, {2, 2, 2, 2, Padding::valid}}, {2, 5, 7, 17, {2, 2, 2, 2, Padding::valid}},
    {2, 5, 7, 3, {2, 2, 2, 2, Padding::same}},  {1, 7, 6, 2, {3, 3, 2, 2, Padding::same}},
    {2, 6, 7, 2, {3, 2, 1, 1, Padding::valid}}, {1, 5, 5, 1, {3, 3, 1, 1, Padding::same}},
    {2, 4, 4, 3, {4, 4, 4, 4, Padding::valid}}, {1, 7, 7, 2, {2, 2, 3, 3, Padding::valid}},
    {1, 2, 2, 2, {5, 5, 1, 1, Padding::same}},  {3, 1, 1, 1, {1, 1, 1, 1, Padding::valid}},
    {1, 6, 5, 16, {2, 3, 2, 1, Padding::same}},
};

// Both poolings of a batch, cell by cell. The padding is all that is missing at the end, halved.
struct Naive {
  std::vector<double> largest, mean;
};
Naive naive_pool(const Case& k, const double* x) {
  const auto axis = [&](std::int64_t in, std::int64_t window, std::int64_t stride) {
    if (k.pool.padding == Padding::valid) return std::pair((in - window) / stride + 1, std::int64_t{0});
    const std::int64_t out = (in - 1) / stride + 1;
    return std::pair(out, std::max<std::int64_t>(0, (out - 1) * stride + window - in) / 2);
  };
  const auto [oh, top] = axis(k.h, k.pool.window_h, k.pool.stride_h);
  const auto [ow, left] = axis(k.w, k.pool.window_w, k.pool.stride_w);
  Naive result;
  for (std::int64_t i = 0; i < k.n * oh * ow * k.c; ++i) {
    const std::int64_t c = i % k.c, q = i / k.c % ow, r = i / k.c / ow % oh, n = i / k.c / ow / oh;
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    int cells = 0;
    for (std::int64_t a = r * k.pool.stride_h - top; a < r * k.pool.stride_h - top + k.pool.window_h; ++a) {
      for (std::int64_t b = q * k.pool.stride_w - left; b < q * k.pool.stride_w - left + k.pool.window_w;
           ++b) {
        if (a < 0 || a >= k.h || b < 0 || b >= k.w) continue;
        const double v = x[((n * k.h + a) * k.w + b) * k.c + c];
        largest = std::max(largest, v);
        sum += v;
        ++cells;
      }
    }
    result.largest.push_back(largest);
    result.mean.push_back(sum / cells);
  }
  return result;
}

class Pool2d : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, Pool2d, ::testing::ValuesIn(kCases));

TEST_P(Pool2d, IsTheNaiveMaximumAndMean) {
  const Case k = GetParam();
  GradientCheck g;
  const NodeId x = g.variable("x", {k.n, k.h, k.w, k.c});
  const NodeId largest = ops::max_pool2d(g.graph, x, k.pool);
  const NodeId mean = ops::average_pool2d(g.graph, x, k.pool);
  Session session(g.graph, 5);
  const auto got = session.run({largest, mean}, {});
  const Naive want = naive_pool(k, session.value(*g.graph.node(x).variable).data<double>());
  ASSERT_EQ(got[0].as<double>().size(), want.largest.size());
  ASSERT_EQ(got[1].as<double>().size(), want.mean.size());
  for (std::size_t i = 0; i < want.mean.size(); ++i) {
    EXPECT_EQ(got[0].as<double>()[i], want.largest[i]) << i;
    EXPECT_NEAR(got[1].as<double>()[i], want.mean[i], 1e-14) << i;
  }
}

TEST_P(Pool2d, HasTheGradientOfFiniteDifferences) {
  const Case k = GetParam();
  for (const auto pool : {ops::max_pool2d, ops::average_pool2d}) {
    GradientCheck g;
    g.check(g.scalar(pool(g.graph, g.variable("x", {k.n, k.h, k.w, k.c}), k.pool, {})));
  }
}

TEST_P(Pool2d, AddsToTheGradientThatIsThere) {
  const Case k = GetParam();
  GradientCheck g;
  const NodeId x = g.variable("x", {k.n, k.h, k.w, k.c});
  const NodeId largest = ops::max_pool2d(g.graph, x, k.pool);
  const NodeId mean = ops::average_pool2d(g.graph, x, k.pool);
  g.check(g.scalar(ops::add(g.graph, ops::multiply(g.graph, largest, mean), largest)));
}

// The loops for float32 vectorise differently; both dtypes take the same decisions on values that both hold.
TEST_P(Pool2d, OfFloat32IsThatOfFloat64) {
  const Case k = GetParam();
  Graph g;
  VariableStore store;
  VariableOptions options;
  options.initializer = Initializer::uniform(-1, 1);
  const Variable& v = store.get_variable("x", {k.n, k.h, k.w, k.c}, options);
  const auto loss_of = [&](NodeId x) {
    const NodeId y = ops::max_pool2d(g, x, k.pool);
    return ops::reduce_sum(g, ops::cast(g, ops::multiply(g, y, y), DType::float64));
  };
  const NodeId narrow = loss_of(g.variable(v));
  const NodeId wide = loss_of(ops::cast(g, g.variable(v), DType::float64));
  Session session(g, 1);
  const auto a = session.gradients(narrow, {}).at("x").clone();
  const auto b = session.gradients(wide, {}).at("x").clone();
  for (std::size_t i = 0; i < a.as<float>().size(); ++i)
    EXPECT_NEAR(a.as<float>()[i], b.as<float>()[i], 1e-5) << i;
}

// Returns the pooled 2x2 image and the gradient of its sum.
std::pair<std::vector<double>, std::vector<double>> pooled(std::initializer_list<double> image,
                                                           const Shape& shape) {
  Graph g;
  VariableStore store;
  VariableOptions options;
  options.dtype = DType::float64;
  const Variable& v = store.get_variable("x", shape, options);
  const NodeId y = ops::max_pool2d(g, g.variable(v), {2, 2, 2, 2, Padding::same});
  const NodeId loss = ops::reduce_sum(g, y);
  Session session(g, 1);
  session.assign(v, Tensor::of<double>(shape, image).view());
  const auto value = session.run({y}, {});
  const auto gradient = session.gradients(loss, {});
  const auto to_vector = [](std::span<double> s) { return std::vector<double>(s.begin(), s.end()); };
  return {to_vector(value[0].as<double>()), to_vector(gradient.at("x").as<double>())};
}

TEST(MaxPool2d, GivesTheGradientToTheFirstOfEqualCells) {
  const auto [value, gradient] = pooled({1, 5, 5, 5}, {1, 2, 2, 1});
  EXPECT_EQ(value, std::vector<double>{5});
  EXPECT_EQ(gradient, (std::vector<double>{0, 1, 0, 0}));
  const auto [wide_value, wide_gradient] = pooled({2, 1, 2, 2, 2, 2}, {1, 2, 3, 1});
  EXPECT_EQ(wide_value, (std::vector<double>{2, 2}));
  EXPECT_EQ(wide_gradient, (std::vector<double>{1, 0, 1, 0, 0, 0}));
}

TEST(MaxPool2d, KeepsNotANumberWhereverItIs) {
  const double nan = std::nan("");
  for (std::size_t at = 0; at < 4; ++at) {
    double cells[] = {1, 2, 3, 4};
    cells[at] = nan;
    EXPECT_TRUE(std::isnan(pooled({cells[0], cells[1], cells[2], cells[3]}, {1, 2, 2, 1}).first[0])) << at;
    const auto odd = pooled({cells[0], cells[1], 0, cells[2], cells[3], 0, 0, 0, 0}, {1, 3, 3, 1}).first;
    EXPECT_TRUE(std::isnan(odd[0])) << at;
    EXPECT_EQ(odd[3], 0);
  }
  EXPECT_EQ(pooled({nan, nan, nan, nan}, {1, 2, 2, 1}).second, (std::vector<double>{1, 0, 0, 0}));
}

TEST(Pool2dBatch, OfNoImagesIsEmpty) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 4, 4, 2});
  const NodeId y = ops::max_pool2d(g, x);
  const NodeId z = ops::average_pool2d(g, x);
  Session session(g, 1);
  const Tensor none(DType::float32, {0, 4, 4, 2});
  for (const Tensor& t : session.run({y, z}, {{x, none.view()}})) EXPECT_EQ(t.shape(), (Shape{0, 2, 2, 2}));
  EXPECT_EQ(g.flops(y, 3), 3 * 2 * 2 * 2 * 4);
}

TEST(Pool2dErrors, NameTheNodeAndTheShape) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 3, 8, 2});
  const NodeId flat = g.placeholder("flat", DType::float32, {kAny, 48});
  const NodeId labels = g.placeholder("labels", DType::int32, {kAny, 3, 8, 2});
  const auto pool = [&](NodeId of, const ops::Pool2dOptions& o) {
    return thrown([&] { ops::max_pool2d(g, of, o, {"p1/pool", "job.yaml:9:3"}); });
  };
  EXPECT_EQ(pool(x, {4, 2, 2, 2, Padding::valid}),
            "config: job.yaml:9:3: node \"p1/pool\" (max_pool2d): a window of 4 x 2 with padding valid does "
            "not fit into images [?, 3, 8, 2] of \"x\"; make it smaller, or use padding same");
  EXPECT_EQ(pool(x, {2, 0, 2, 2, Padding::same}),
            "config: job.yaml:9:3: node \"p1/pool\" (max_pool2d): has a window of 2 x 0 and strides 2 x 2; "
            "each must be at least 1");
  EXPECT_EQ(pool(flat, {}),
            "config: job.yaml:9:3: node \"p1/pool\" (max_pool2d): needs rank 4 for \"flat\", which has shape "
            "[?, 48]");
  EXPECT_EQ(pool(labels, {}),
            "config: job.yaml:9:3: node \"p1/pool\" (max_pool2d): needs float32 or float64 for \"labels\", "
            "which is int32 [?, 3, 8, 2]");
}

TEST(GlobalAveragePool2d, IsTheMeanOfEachChannel) {
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 1, 1, 1}, Shape{3, 7, 2, 130}}) {
    SCOPED_TRACE(shape.str());
    GradientCheck g;
    const NodeId x = g.variable("x", shape);
    const NodeId y = ops::global_average_pool2d(g.graph, x);
    ASSERT_EQ(g.graph.node(y).type.shape, (Shape{shape[0], shape[3]}));
    Session session(g.graph, 5);
    const Tensor got = std::move(session.run({y}, {})[0]);
    const double* values = session.value(*g.graph.node(x).variable).data<double>();
    for (std::int64_t i = 0; i < shape[0] * shape[3]; ++i) {
      const std::int64_t pixels = shape[1] * shape[2], n = i / shape[3], c = i % shape[3];
      double sum = 0;
      for (std::int64_t p = 0; p < pixels; ++p) sum += values[(n * pixels + p) * shape[3] + c];
      EXPECT_NEAR(got.as<double>()[static_cast<std::size_t>(i)], sum / static_cast<double>(pixels), 1e-15)
          << i;
    }
    g.check(ops::add(g.graph, g.scalar(y), g.scalar(ops::global_average_pool2d(g.graph, x))));
  }
}

// A sum in float32 would be off by 1e-3 of it after a million pixels.
TEST(GlobalAveragePool2d, OfALargeImageIsExact) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 1000, 1000, 1});
  const NodeId y = ops::global_average_pool2d(g, x);
  Tensor image(DType::float32, {1, 1000, 1000, 1});
  for (float& v : image.as<float>()) v = 0.1F;
  EXPECT_EQ(Session(g, 1).run({y}, {{x, image.view()}})[0].as<float>()[0], 0.1F);
}

TEST(GlobalAveragePool2d, NamesWhatIsNoImage) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 4});
  EXPECT_EQ(
      thrown([&] { ops::global_average_pool2d(g, x); }),
      "argument: node \"global_average_pool2d\" (global_average_pool2d): needs rank 4 for \"x\", which has "
      "shape [?, 4]");
}

}  // namespace
}  // namespace varscope
