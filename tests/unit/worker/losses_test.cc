#include "worker/ops/losses.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"

// Losses against their definitions, written out with std::log, and against central differences.
namespace varscope {
namespace {

using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;

// The rows of the last axis of what was fed as number `i`.
std::vector<std::vector<double>> rows_of_fed(const GradientCheck& b, std::size_t i) {
  const Tensor& t = b.fed[i].second;
  const auto cols = static_cast<std::size_t>(t.shape()[t.shape().rank() - 1]);
  const auto values = t.as<double>();
  std::vector<std::vector<double>> rows;
  for (std::size_t r = 0; r < values.size(); r += cols) rows.emplace_back(&values[r], &values[r] + cols);
  return rows;
}

double log_softmax(const std::vector<double>& x, std::size_t c) {
  double sum = 0;
  for (const double v : x) sum += std::exp(v);
  return x[c] - std::log(sum);
}

double softmax_loss(const std::vector<double>& x, std::int32_t label, double smooth, double weight) {
  double loss = 0;
  for (std::size_t c = 0; c < x.size(); ++c) {
    const double target =
        (static_cast<std::int32_t>(c) == label ? 1 - smooth : 0) + smooth / static_cast<double>(x.size());
    loss -= target * log_softmax(x, c);
  }
  return weight * loss;
}

double sigmoid_loss(double x, double t, double smooth, double positive_weight) {
  // The loss of a sample whose label is 1 (or 0), smoothed; of these the first counts positive_weight times.
  const double p = 1 / (1 + std::exp(-x)), one = 1 - smooth / 2, none = smooth / 2;
  const double positive = -one * std::log(p) - (1 - one) * std::log(1 - p);
  const double negative = -none * std::log(p) - (1 - none) * std::log(1 - p);
  return positive_weight * t * positive + (1 - t) * negative;
}

// One row, several, and sequences.
class Shapes : public ::testing::TestWithParam<std::vector<std::int64_t>> {
 protected:
  static Shape outputs(std::int64_t k) {
    std::vector<std::int64_t> dims = GetParam();
    dims.push_back(k);
    return Shape(std::move(dims));
  }
  static Shape labels() { return Shape(GetParam()); }
};
using Dims = std::vector<std::int64_t>;
INSTANTIATE_TEST_SUITE_P(Losses, Shapes,
                         ::testing::Values(Dims{1}, Dims{5}, Dims{70}, Dims{3, 4}, Dims{2, 3, 2}));

const ops::SoftmaxCrossEntropyOptions kSoftmaxOptions[] = {{},
                                                           {.label_smoothing = 0.1},
                                                           {.class_weights = {0.5, 2, 0, 1}},
                                                           {0.3, {1, 2, 3, 4}},
                                                           {.label_smoothing = 1}};

TEST_P(Shapes, SoftmaxCrossEntropyIsItsDefinition) {
  for (const auto& options : kSoftmaxOptions) {
    GradientCheck b;
    const NodeId x = b.feed_random(outputs(4));
    const NodeId loss = ops::softmax_cross_entropy(b.graph, x, b.feed_labels(labels(), 4), options);
    EXPECT_EQ(b.graph.node(loss).type, (TensorType{DType::float64, {}}));
    double wanted = 0;
    const auto label = b.fed[1].second.as<std::int32_t>();
    const auto rows = rows_of_fed(b, 0);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const auto& weights = options.class_weights;
      wanted += softmax_loss(rows[r], label[r], options.label_smoothing,
                             weights.empty() ? 1 : weights[static_cast<std::size_t>(label[r])]);
    }
    EXPECT_NEAR(b.value(loss), wanted, 1e-12 * (1 + wanted));
  }
}

TEST_P(Shapes, SoftmaxCrossEntropyHasTheGradientOfFiniteDifferences) {
  for (const auto& options : kSoftmaxOptions) {
    GradientCheck b;
    const NodeId x = b.variable("x", outputs(4)), y = b.feed_labels(labels(), 4);
    const NodeId loss = ops::softmax_cross_entropy(b.graph, x, y, options);
    b.check(ops::add(b.graph, loss, ops::softmax_cross_entropy(b.graph, x, y, options)));
  }
}

// Rows longer than a vector are summed another way than short ones.
TEST(SoftmaxCrossEntropy, IsItsDefinitionForManyClasses) {
  for (const std::int64_t k : {63, 64, 65, 200}) {
    GradientCheck b;
    const NodeId x = b.variable("x", {3, k}), fed = b.feed_random({3, k});
    const NodeId labels = b.feed_labels({3}, static_cast<std::int32_t>(k));
    const auto rows = rows_of_fed(b, 0);
    double wanted = 0;
    for (std::size_t r = 0; r < 3; ++r)
      wanted += softmax_loss(rows[r], b.fed[1].second.as<std::int32_t>()[r], 0, 1);
    EXPECT_NEAR(b.value(ops::softmax_cross_entropy(b.graph, fed, labels)), wanted, 1e-12 * wanted);
    b.check(ops::softmax_cross_entropy(b.graph, x, labels));
  }
}

const ops::SigmoidCrossEntropyOptions kSigmoidOptions[] = {
    {}, {.label_smoothing = 0.2}, {.positive_weight = 3}, {0.1, 0.25}, {.positive_weight = 0}};

TEST_P(Shapes, SigmoidCrossEntropyIsItsDefinition) {
  for (const auto& options : kSigmoidOptions) {
    GradientCheck b;
    const NodeId x = b.feed_random(outputs(1)), labels_node = b.feed_labels(labels(), 2);
    const double found = b.value(ops::sigmoid_cross_entropy(b.graph, x, labels_node, options));
    const auto label = b.fed[1].second.as<std::int32_t>();
    const auto rows = rows_of_fed(b, 0);
    double wanted = 0;
    for (std::size_t r = 0; r < rows.size(); ++r)
      wanted += sigmoid_loss(rows[r][0], label[r], options.label_smoothing, options.positive_weight);
    EXPECT_NEAR(found, wanted, 1e-12 * (1 + wanted));

    GradientCheck g;
    const NodeId z = g.variable("z", outputs(1)), many = g.variable("many", outputs(3));
    const NodeId y = g.feed_labels(labels(), 2), targets = g.feed_random(outputs(3));
    g.check(ops::add(g.graph, ops::sigmoid_cross_entropy(g.graph, z, y, options),
                     ops::sigmoid_cross_entropy(g.graph, many, targets, options)));
  }
}

// With smoothing too, a positive sample's loss is the unweighted one times the weight, and a negative's is as
// it was.
TEST(SigmoidCrossEntropy, PositiveWeightIsAFactorOfTheWholeLoss) {
  for (const std::int32_t label : {0, 1}) {
    GradientCheck b;
    const NodeId x = b.feed(Tensor::of<double>({2, 1}, {0.7, -1.3}));
    const NodeId y = b.feed(Tensor::of<std::int32_t>({2}, {label, label}));
    const double plain = b.value(ops::sigmoid_cross_entropy(b.graph, x, y, {.label_smoothing = 0.2}));
    const double weighted = b.value(ops::sigmoid_cross_entropy(b.graph, x, y, {0.2, 3}));
    EXPECT_NEAR(weighted, plain * (label == 1 ? 3 : 1), 1e-12);
  }
}

TEST(SigmoidCrossEntropy, IsStableFarOutWithEveryOption) {
  for (const double logit : {-1000.0, 1000.0}) {
    GradientCheck b;
    const NodeId x = b.feed(Tensor::of<double>({1, 1}, {logit}));
    const NodeId one = b.feed(Tensor::of<std::int32_t>({1}, {1}));
    const NodeId loss = ops::sigmoid_cross_entropy(b.graph, x, one, {.positive_weight = 2});
    EXPECT_DOUBLE_EQ(b.value(loss), logit < 0 ? 2000 : 0);
  }
}

TEST_P(Shapes, ErrorsAreMeansOverTheElementsOfASampleAndSumsOverSamples) {
  GradientCheck b;
  const NodeId p = b.feed_random(outputs(3)), t = b.feed_random(outputs(3));
  const auto predictions = rows_of_fed(b, 0), targets = rows_of_fed(b, 1);
  double absolute = 0, squared = 0, cross_entropy = 0;
  for (std::size_t r = 0; r < predictions.size(); ++r) {
    for (std::size_t c = 0; c < 3; ++c) {
      const double d = predictions[r][c] - targets[r][c];
      absolute += std::abs(d);
      squared += d * d;
      cross_entropy += sigmoid_loss(predictions[r][c], targets[r][c], 0, 1);
    }
  }
  const double per_sample = static_cast<double>(outputs(3).n_elements()) / static_cast<double>(outputs(3)[0]);
  EXPECT_NEAR(b.value(ops::absolute_error(b.graph, p, t)), absolute / per_sample, 1e-12);
  EXPECT_NEAR(b.value(ops::mean_squared_error(b.graph, p, t)), squared / per_sample, 1e-12);
  EXPECT_NEAR(b.value(ops::sigmoid_cross_entropy(b.graph, p, t)), cross_entropy / per_sample, 1e-12);
  EXPECT_NEAR(b.value(ops::absolute_error(b.graph, p, t, Reduction::sum)), absolute, 1e-11);
  EXPECT_NEAR(b.value(ops::mean_squared_error(b.graph, p, t, Reduction::sum)), squared, 1e-11);
  EXPECT_NEAR(b.value(ops::sigmoid_cross_entropy(b.graph, p, t, {.reduction = Reduction::sum})),
              cross_entropy, 1e-11);

  GradientCheck g;
  const NodeId x = g.variable("x", outputs(3)), z = g.variable("z", outputs(1));
  const NodeId fed = g.feed_random(outputs(3)), number = g.feed_labels(labels(), 9);
  g.check(ops::add_n(g.graph, {ops::absolute_error(g.graph, x, fed), ops::mean_squared_error(g.graph, x, fed),
                               ops::absolute_error(g.graph, z, number), ops::absolute_error(g.graph, x, fed),
                               ops::mean_squared_error(g.graph, x, fed, Reduction::sum),
                               ops::sigmoid_cross_entropy(g.graph, x, fed, {.reduction = Reduction::sum})}));
}

// One set of numbers in three shapes: a loss is a property of the numbers.
TEST(Losses, DoNotDependOnHowTheElementsOfASampleAreArranged) {
  const Tensor predictions = GradientCheck::random({2, 30}, 1), targets = GradientCheck::random({2, 30}, 2);
  const auto losses = [&](const Shape& shape, Reduction reduction) {
    GradientCheck b;
    const auto feed = [&](const Tensor& t) {
      Tensor copy(DType::float64, shape);
      std::ranges::copy(t.as<double>(), copy.as<double>().begin());
      return b.feed(std::move(copy));
    };
    const NodeId p = feed(predictions), t = feed(targets);
    return std::vector<double>{b.value(ops::mean_squared_error(b.graph, p, t, reduction)),
                               b.value(ops::absolute_error(b.graph, p, t, reduction)),
                               b.value(ops::sigmoid_cross_entropy(b.graph, p, t, {.reduction = reduction}))};
  };
  for (const Reduction reduction : {Reduction::mean, Reduction::sum}) {
    const std::vector<double> flat = losses({2, 30}, reduction);
    EXPECT_EQ(losses({2, 5, 6}, reduction), flat);
    EXPECT_EQ(losses({2, 5, 6, 1}, reduction), flat);
  }
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(losses({2, 30}, Reduction::sum)[i], 30 * losses({2, 30}, Reduction::mean)[i], 1e-12);
}

// With labels each label is one target, and its outputs are what is averaged.
TEST(Losses, OfOneHotLabelsAreReducedOverTheOutputsOfEachLabel) {
  GradientCheck b;
  const NodeId x = b.feed_random({2, 3, 4}), y = b.feed_labels({2, 3}, 4);
  const auto rows = rows_of_fed(b, 0);
  double squared = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto label = static_cast<std::size_t>(b.fed[1].second.as<std::int32_t>()[r]);
    for (std::size_t c = 0; c < 4; ++c) squared += std::pow(rows[r][c] - (c == label ? 1 : 0), 2);
  }
  EXPECT_NEAR(b.value(ops::mean_squared_error(b.graph, x, y)), squared / 4, 1e-12);
  EXPECT_NEAR(b.value(ops::mean_squared_error(b.graph, x, y, Reduction::sum)), squared, 1e-12);
}

TEST(Losses, SayWhatDoesNotFit) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 7, 3});
  const NodeId y = g.placeholder("y", DType::int32, {kAny});
  const NodeId z = g.placeholder("z", DType::int32, {kAny, 7});
  const auto softmax = [&](const ops::SoftmaxCrossEntropyOptions& options, NodeId labels) {
    return thrown([&] { ops::softmax_cross_entropy(g, x, labels, options); });
  };
  const std::string node = "argument: node \"softmax_cross_entropy\" (softmax_cross_entropy): ";
  EXPECT_EQ(softmax({}, y),
            node + "shapes [?, 7, 3] of \"x\" and [?] of \"y\" do not fit: one label per row is needed");
  EXPECT_EQ(softmax({.label_smoothing = 1.5}, z), node + "label_smoothing is 1.5; it must be 0 .. 1");
  EXPECT_EQ(softmax({.class_weights = {1, 2}}, z), node + "has 2 class_weights for the 3 classes of \"x\"");
  EXPECT_EQ(softmax({.class_weights = {1, -2, 0}}, z),
            node + "class_weights[1] is -2; it must be finite and not negative");
  EXPECT_EQ(
      thrown([&] { ops::sigmoid_cross_entropy(g, x, x, {.positive_weight = -1}); }),
      "argument: node \"sigmoid_cross_entropy\" (sigmoid_cross_entropy): positive_weight is -1; it must be "
      "finite and not negative");
  EXPECT_EQ(thrown([&] { ops::sigmoid_cross_entropy(g, x, z); }),
            "argument: node \"sigmoid_cross_entropy\" (sigmoid_cross_entropy): shapes [?, 7, 3] of \"x\" and "
            "[?, 7] "
            "of \"z\" do not fit: with int32 targets the logits must be [..., 1]");
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(
      thrown([&] { ops::regularization_loss(g, x, 0, infinity, y); }),
      "argument: node \"regularization_loss\" (regularization_loss): has factors l1 0 and l2 inf; they must "
      "be finite and not negative");
}

TEST(Losses, NameTheRowOfABadLabelInASequence) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 2, 3});
  const NodeId y = g.placeholder("y", DType::int32, {kAny, 2});
  const NodeId loss = ops::softmax_cross_entropy(g, x, y);
  const Tensor logits(DType::float32, {2, 2, 3});
  const Tensor labels = Tensor::of<std::int32_t>({2, 2}, {0, 1, 2, 3});
  EXPECT_EQ(thrown([&] {
              Session(g, 1).run({loss}, {{x, logits.view()}, {y, labels.view()}});
            }),
            "data: row 3 of the batch has label 3; with 3 classes labels are 0 .. 2");
}

TEST(Losses, OfAnEmptyBatchAreZero) {
  GradientCheck b;
  const NodeId x = b.feed(Tensor(DType::float64, {0, 3})), y = b.feed(Tensor(DType::int32, {0}));
  EXPECT_EQ(b.value(ops::softmax_cross_entropy(b.graph, x, y)), 0);
  EXPECT_EQ(b.value(ops::absolute_error(b.graph, x, x)), 0);
  const NodeId empty = b.feed(Tensor(DType::float64, {2, 0, 3}));
  EXPECT_EQ(b.value(ops::mean_squared_error(b.graph, empty, empty)), 0);
  EXPECT_EQ(b.value(ops::regularization_loss(b.graph, x, 1, 1, x)), 0);
}

TEST(RegularizationLoss, IsThePenaltyTimesTheRows) {
  GradientCheck b;
  const NodeId w = b.feed(Tensor::of<double>({2, 2}, {1, -2, 0, 3}));
  const NodeId rows = b.feed(Tensor(DType::int32, {5, 2}));
  EXPECT_EQ(b.value(ops::regularization_loss(b.graph, w, 0.5, 0.25, rows)), (0.5 * 6 + 0.25 * 14) * 5);
  EXPECT_EQ(b.value(ops::regularization_loss(b.graph, w, 0, 0, rows)), 0);

  GradientCheck g;
  const NodeId v = g.variable("v", {3, 4}), x = g.feed_random({7, 2});
  const NodeId penalty = ops::regularization_loss(g.graph, v, 0.1, 0.2, x);
  g.check(ops::add(g.graph, penalty, ops::regularization_loss(g.graph, v, 0, 0.3, x)));

  GradientCheck zero;
  const NodeId u = zero.variable("u", {3});
  const NodeId loss = ops::regularization_loss(zero.graph, u, 2, 0, zero.feed_random({1}));
  Session session(zero.graph, 1);
  session.assign(*zero.graph.node(u).variable, Tensor::of<double>({3}, {-1, 0, 4}).view());
  const auto gradients = session.gradients(loss, zero.feeds());
  const auto d = gradients.at("u").as<double>();
  EXPECT_EQ((std::vector<double>(d.begin(), d.end())), (std::vector<double>{-2, 0, 2}));
}

// Parts of a batch, each seeded with 1 / (rows of the whole), together have one penalty.
TEST(RegularizationLoss, OfPartsOfABatchSumsToOne) {
  VariableStore store;
  Graph g;
  const Variable& w = store.get_variable("w", {2}, {.dtype = DType::float64});
  const NodeId x = g.placeholder("x", DType::float32, {kAny});
  const NodeId loss = ops::regularization_loss(g, g.variable(w), 0.5, 0.25, x);
  Executor executor(g, loss, 4);
  const Tensor value = Tensor::of<double>({2}, {2, -4}), gradient(DType::float64, {2});
  executor.bind(w, value.view(), gradient.view());
  std::vector<double> sum(2);
  for (const std::int64_t n : {1, 3, 4}) {
    const Tensor rows(DType::float32, {n});
    executor.set_batch(n);
    executor.feed(x, rows.view());
    for (const auto& step : executor.forward_steps()) executor.forward(step);
    executor.start_backward(1.0 / 8);
    for (const auto& step : executor.backward_steps()) executor.backward(step);
    for (std::size_t i = 0; i < 2; ++i) sum[i] += gradient.as<double>()[i];
  }
  EXPECT_EQ(sum, (std::vector<double>{0.5 + 0.25 * 2 * 2, -0.5 - 0.25 * 2 * 4}));
}

double huber_of(double e, double delta) {
  return std::abs(e) <= delta ? e * e / 2 : delta * std::abs(e) - delta * delta / 2;
}

TEST_P(Shapes, HuberIsItsDefinition) {
  for (const double delta : {0.2, 1.0, 50.0}) {
    GradientCheck b;
    const NodeId x = b.feed_random(outputs(3)), t = b.feed_random(outputs(3));
    double wanted = 0;
    const auto of_x = b.fed[0].second.as<double>(), of_t = b.fed[1].second.as<double>();
    for (std::size_t i = 0; i < of_x.size(); ++i) wanted += huber_of(of_x[i] - of_t[i], delta);
    EXPECT_NEAR(b.value(ops::huber(b.graph, x, t, {delta, Reduction::sum})), wanted, 1e-12 * (1 + wanted));
    const double elements = static_cast<double>(of_x.size()) / static_cast<double>(outputs(3)[0]);
    EXPECT_NEAR(b.value(ops::huber(b.graph, x, t, {delta})), wanted / elements, 1e-12 * (1 + wanted));
  }
}

TEST_P(Shapes, HuberHasTheGradientOfFiniteDifferences) {
  for (const double delta : {0.2, 1.0, 50.0}) {
    GradientCheck b;
    const NodeId x = b.variable("x", outputs(3)), t = b.feed_random(outputs(3));
    b.check(ops::add(b.graph, ops::huber(b.graph, x, t, {delta}),
                     ops::huber(b.graph, x, b.feed_labels(labels(), 3), {delta, Reduction::sum})));
  }
}

TEST_P(Shapes, PoissonIsItsDefinition) {
  GradientCheck b;
  const NodeId x = b.feed_random(outputs(3)), t = b.feed_random(outputs(3));
  double wanted = 0;
  const auto of_x = b.fed[0].second.as<double>(), of_t = b.fed[1].second.as<double>();
  for (double& v : of_t) v = std::floor(4 * (v + 1));
  for (std::size_t i = 0; i < of_x.size(); ++i) {
    // -log(rate^t exp(-rate) / t!) without t!.
    const double rate = std::exp(of_x[i]);
    wanted -= std::log(std::pow(rate, of_t[i]) * std::exp(-rate));
  }
  EXPECT_NEAR(b.value(ops::poisson(b.graph, x, t, Reduction::sum)), wanted, 1e-12 * (1 + std::abs(wanted)));
  const double elements = static_cast<double>(of_x.size()) / static_cast<double>(outputs(3)[0]);
  EXPECT_NEAR(b.value(ops::poisson(b.graph, x, t)), wanted / elements, 1e-12 * (1 + std::abs(wanted)));
}

TEST_P(Shapes, PoissonHasTheGradientOfFiniteDifferences) {
  GradientCheck b;
  const NodeId x = b.variable("x", outputs(1));
  Tensor counts(DType::float64, outputs(1));
  double next = 0;
  for (double& v : counts.as<double>()) v = next++;
  const NodeId of_counts = ops::poisson(b.graph, x, b.feed(std::move(counts)));
  b.check(ops::add(b.graph, of_counts, ops::poisson(b.graph, x, b.feed_labels(labels(), 9), Reduction::sum)));
}

// The least loss is where the rate is the count.
TEST(Poisson, IsLeastAtTheLogarithmOfTheCount) {
  Graph g;
  VariableStore store;
  VariableOptions options;
  options.dtype = DType::float64;
  options.initializer = Initializer::constant(std::log(7.0));
  const NodeId x = g.variable(store.get_variable("x", {1, 1}, options));
  const NodeId t = g.placeholder("t", DType::int32, {1});
  const NodeId loss = ops::poisson(g, x, t);
  const Tensor seven = Tensor::of<std::int32_t>({1}, {7});
  EXPECT_NEAR(Session(g, 1).gradients(loss, {{t, seven.view()}}).at("x").as<double>()[0], 0, 1e-14);
}

TEST(Poisson, NamesTheRowOfATargetThatIsNoCount) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 1});
  const NodeId t = g.placeholder("t", DType::float32, {kAny, 1}),
               labels = g.placeholder("l", DType::int32, {kAny});
  const NodeId loss = ops::poisson(g, x, t), of_labels = ops::poisson(g, x, labels);
  const Tensor outputs(DType::float32, {3, 1});
  for (const float bad :
       {-0.5F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const Tensor targets = Tensor::of<float>({3, 1}, {0, 2, bad});
    EXPECT_EQ(
        thrown([&] {
          Session(g, 1).run({loss}, {{x, outputs.view()}, {t, targets.view()}});
        }),
        fmt::format("data: row 2 of the batch has target {}; loss poisson is for counts, which are 0 or more",
                    bad));
  }
  const Tensor negative = Tensor::of<std::int32_t>({3}, {0, -1, 4});
  EXPECT_EQ(thrown([&] {
              Session(g, 1).run({of_labels}, {{x, outputs.view()}, {labels, negative.view()}});
            }),
            "data: row 1 of the batch has target -1; loss poisson is for counts, which are 0 or more");
  const NodeId wide = g.placeholder("wide", DType::float32, {kAny, 2});
  EXPECT_EQ(
      thrown([&] { ops::poisson(g, wide, labels); }),
      "argument: node \"poisson_2\" (poisson): shapes [?, 2] of \"wide\" and [?] of \"l\" do not fit: with "
      "int32 targets, which are counts, the outputs must be [..., 1]");
}

TEST(Huber, SaysWhichDeltaFits) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 1});
  EXPECT_EQ(thrown([&] { ops::huber(g, x, x, {0}); }),
            "argument: node \"huber\" (huber): delta is 0; it must be finite and above 0");
}

// Weights: a sample of weight w is w samples, in the loss and in its gradient.
using WeightedLoss = NodeId (*)(Graph&, NodeId, NodeId, ops::WeightsOf);
struct NamedLoss {
  const char* name;
  WeightedLoss add;
  std::int64_t k;
  bool labels;
};
const NamedLoss kWeighted[] = {{"softmax_cross_entropy",
                                [](Graph& g, NodeId x, NodeId y, ops::WeightsOf w) {
                                  return ops::softmax_cross_entropy(g, x, y, {0.1, {1, 2, 3}}, {}, w);
                                },
                                3, true},
                               {"sigmoid_cross_entropy",
                                [](Graph& g, NodeId x, NodeId y, ops::WeightsOf w) {
                                  return ops::sigmoid_cross_entropy(g, x, y, {.positive_weight = 2}, {}, w);
                                },
                                1, true},
                               {"mean_squared_error",
                                [](Graph& g, NodeId x, NodeId y, ops::WeightsOf w) {
                                  return ops::mean_squared_error(g, x, y, Reduction::mean, {}, w);
                                },
                                2, false},
                               {"absolute_error",
                                [](Graph& g, NodeId x, NodeId y, ops::WeightsOf w) {
                                  return ops::absolute_error(g, x, y, Reduction::sum, {}, w);
                                },
                                2, false},
                               {"huber",
                                [](Graph& g, NodeId x, NodeId y, ops::WeightsOf w) {
                                  return ops::huber(g, x, y, {.delta = 0.4}, {}, w);
                                },
                                2, false},
                               {"poisson",
                                [](Graph& g, NodeId x, NodeId y, ops::WeightsOf w) {
                                  return ops::poisson(g, x, y, Reduction::mean, {}, w);
                                },
                                1, true}};

class Weighted : public ::testing::TestWithParam<NamedLoss> {};
INSTANTIATE_TEST_SUITE_P(Losses, Weighted, ::testing::ValuesIn(kWeighted),
                         [](const auto& info) { return std::string(info.param.name); });

Tensor some_rows(const Tensor& t, const std::vector<std::int64_t>& rows) {
  Tensor out(t.dtype(), t.shape().with_dim(0, std::ssize(rows)));
  const std::size_t bytes = t.view().n_bytes() / static_cast<std::size_t>(t.shape()[0]);
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::copy_n(t.view().bytes() + static_cast<std::size_t>(rows[i]) * bytes, bytes,
                out.view().bytes() + i * bytes);
  return out;
}

TEST_P(Weighted, ASampleCountsAsOftenAsItsWeightSays) {
  const NamedLoss& loss = GetParam();
  const Tensor weights = Tensor::of<double>({5}, {1, 3, 0, 2, 1});
  const std::vector<std::int64_t> repeated{0, 1, 1, 1, 3, 3, 4};
  Tensor x = GradientCheck::random({5, loss.k}, 4);
  Tensor y =
      loss.labels ? Tensor::of<std::int32_t>({5}, {0, 1, 1, 0, 1}) : GradientCheck::random({5, loss.k}, 5);
  Graph g;
  const NodeId px = g.placeholder("x", DType::float64, {kAny, loss.k});
  const NodeId py = g.placeholder("y", y.dtype(), y.shape().with_dim(0, kAny));
  const NodeId pw = g.placeholder("w", DType::float64, {kAny});
  const NodeId weighted = loss.add(g, px, py, pw), plain = loss.add(g, px, py, {});
  const Tensor x_rows = some_rows(x, repeated), y_rows = some_rows(y, repeated);
  Session session(g, 1);
  const double wanted = session.run({plain}, {{px, x_rows.view()}, {py, y_rows.view()}})[0].as<double>()[0];
  for (std::int64_t c = 0; c < loss.k; ++c)  // of the sample that does not count
    x.as<double>()[static_cast<std::size_t>(2 * loss.k + c)] = std::numeric_limits<double>::quiet_NaN();
  const double got =
      session.run({weighted}, {{px, x.view()}, {py, y.view()}, {pw, weights.view()}})[0].as<double>()[0];
  EXPECT_NEAR(got, wanted, 1e-13 * std::abs(wanted));
}

TEST_P(Weighted, HaveTheGradientOfFiniteDifferences) {
  const NamedLoss& loss = GetParam();
  GradientCheck b;
  const NodeId x = b.variable("x", {5, loss.k});
  const NodeId y = loss.labels ? b.feed_labels({5}, loss.k == 1 ? 2 : static_cast<std::int32_t>(loss.k))
                               : b.feed_random({5, loss.k});
  const NodeId w = b.feed(Tensor::of<double>({5}, {0.5, 3, 0, 1e-3, 1}));
  b.check(ops::add(b.graph, loss.add(b.graph, x, y, w), loss.add(b.graph, x, y, w)));
}

TEST_P(Weighted, OneForEachSampleIsNoWeight) {
  const NamedLoss& loss = GetParam();
  GradientCheck b;
  const NodeId x = b.feed_random({4, loss.k});
  const NodeId y = loss.labels ? b.feed_labels({4}, 2) : b.feed_random({4, loss.k});
  const NodeId w = b.feed(Tensor::of<double>({4}, {1, 1, 1, 1}));
  EXPECT_EQ(b.value(loss.add(b.graph, x, y, w)), b.value(loss.add(b.graph, x, y, {})));
  const NodeId few = b.feed(Tensor::of<double>({3}, {1, 1, 1}));
  EXPECT_NE(thrown([&] { loss.add(b.graph, x, y, few); }).find("one weight per sample is needed"),
            std::string::npos);
}

TEST(SoftmaxCrossEntropy, AllStepsOfASequenceHaveItsWeight) {
  GradientCheck b;
  const NodeId x = b.feed_random({2, 3, 4}), y = b.feed_labels({2, 3}, 4);
  const auto rows = rows_of_fed(b, 0);
  double wanted = 0;
  for (std::size_t r = 0; r < 6; ++r)
    wanted += (r < 3 ? 0.25 : 2) * softmax_loss(rows[r], b.fed[1].second.as<std::int32_t>()[r], 0, 1);
  const NodeId w = b.feed(Tensor::of<double>({2}, {0.25, 2}));
  EXPECT_NEAR(b.value(ops::softmax_cross_entropy(b.graph, x, y, {}, {}, w)), wanted, 1e-12);
}

TEST(RegularizationLoss, IsTimesTheSumOfTheWeights) {
  GradientCheck b;
  const NodeId v = b.variable("v", {3});
  const NodeId rows = b.feed_random({4, 2}), w = b.feed(Tensor::of<double>({4}, {1, 0.5, 0, 2}));
  EXPECT_NEAR(b.value(ops::regularization_loss(b.graph, v, 0.3, 0.2, w, {}, ops::PenaltyTimes::sum)),
              b.value(ops::regularization_loss(b.graph, v, 0.3, 0.2, rows)) * 3.5 / 4, 1e-13);
  b.check(ops::regularization_loss(b.graph, v, 0.3, 0.2, w, {}, ops::PenaltyTimes::sum));
}

}  // namespace
}  // namespace varscope
