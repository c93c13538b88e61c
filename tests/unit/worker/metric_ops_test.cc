#include "worker/ops/metric_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"

// Metrics against counts by hand and brute force.
namespace varscope {
namespace {

using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;
const double kNan = std::numeric_limits<double>::quiet_NaN();

// What a metric of logits and labels counts; make(graph, logits, labels) adds its node.
template <class T, class Make>
std::vector<T> counted(Tensor logits, Tensor labels, Make make) {
  Graph g;
  const NodeId x = g.placeholder("x", logits.dtype(), logits.shape().with_dim(0, kAny));
  const NodeId y = g.placeholder("y", DType::int32, labels.shape().with_dim(0, kAny));
  const NodeId metric = make(g, x, y);
  const auto result = Session(g, 1).run({metric}, {{x, logits.view()}, {y, labels.view()}});
  const auto values = result[0].template as<T>();
  return {values.begin(), values.end()};
}

// Four rows in two sequences; the third has a tie, and the last a logit that is no number.
Tensor logits() { return Tensor::of<double>({2, 2, 3}, {3, 2, 1, 0, 5, 9, 4, 4, 1, 7, kNan, 6}); }

std::int64_t top(std::initializer_list<std::int32_t> labels, std::int64_t k) {
  return counted<std::int64_t>(logits(), Tensor::of<std::int32_t>({2, 2}, labels),
                               [&](Graph& g, NodeId x, NodeId y) { return ops::top_k_count(g, x, y, k); })[0];
}

TEST(TopKCount, CountsClassesBeforeTheLabel) {
  EXPECT_EQ(top({0, 2, 0, 0}, 1), 3);  // NaN is before any label
  EXPECT_EQ(top({0, 2, 1, 0}, 1), 2);  // of equal logits the smaller class is before
  EXPECT_EQ(top({1, 1, 1, 2}, 1), 0);
  EXPECT_EQ(top({1, 1, 1, 0}, 2), 4);
  EXPECT_EQ(top({2, 0, 2, 2}, 2), 0);
  EXPECT_EQ(top({2, 0, 2, 1}, 3), 4);
  EXPECT_EQ(top({0, 2, 0, 1}, 2), 3);  // a label whose logit is NaN is last
}

TEST(TopKCount, SaysWhatDoesNotFit) {
  for (const std::int64_t k : {0, 4}) {
    EXPECT_EQ(
        thrown([&] {
          top({0, 0, 0, 0}, k);
        }),
        fmt::format("argument: node \"top_k_count\" (top_k_count): k is {}; with 3 classes it is 1 .. 3", k));
  }
  EXPECT_EQ(thrown([&] {
              top({0, 0, 0, 3}, 1);
            }),
            "data: row 3 of the batch has label 3; with 3 classes labels are 0 .. 2");
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 1});
  const NodeId y = g.placeholder("y", DType::int32, {kAny});
  EXPECT_EQ(thrown([&] { ops::top_k_count(g, x, y, 1); }),
            "argument: node \"top_k_count\" (top_k_count): \"x\" has one column; top-k needs one per class");
}

TEST(CorrectCount, CountsTheStepsOfSequences) {
  const auto correct = [](Tensor x, Tensor y) {
    return counted<std::int64_t>(std::move(x), std::move(y),
                                 [](Graph& g, NodeId a, NodeId b) { return ops::correct_count(g, a, b); })[0];
  };
  EXPECT_EQ(correct(Tensor::of<float>({2, 2, 2}, {3, 2, 0, 1, 1, 1, 2, 4}),
                    Tensor::of<std::int32_t>({2, 2}, {0, 1, 1, 0})),
            2);
  EXPECT_EQ(
      correct(Tensor::of<float>({2, 2, 1}, {3, -2, 0, 1}), Tensor::of<std::int32_t>({2, 2}, {1, 1, 0, 0})),
      2);
  EXPECT_EQ(correct(Tensor(DType::float32, {0, 2, 3}), Tensor(DType::int32, {0, 2})), 0);
}

TEST(ConfusionMatrix, HasLabelsAsRowsAndAnswersAsColumns) {
  const auto confusion = [](Tensor x, Tensor y) {
    return counted<std::int64_t>(std::move(x), std::move(y),
                                 [](Graph& g, NodeId a, NodeId b) { return ops::confusion_matrix(g, a, b); });
  };
  const Tensor x = Tensor::of<float>({5, 3}, {9, 0, 0, 0, 9, 0, 0, 9, 0, 0, 0, 9, 1, 1, 0});
  EXPECT_EQ(confusion(x.clone(), Tensor::of<std::int32_t>({5}, {0, 1, 2, 2, 1})),
            (std::vector<std::int64_t>{1, 0, 0, 1, 1, 0, 0, 1, 1}));
  EXPECT_EQ(confusion(Tensor::of<float>({5, 1}, {0.1F, -1, 2, 3, 0}),
                      Tensor::of<std::int32_t>({5}, {1, 0, 0, 1, 1})),
            (std::vector<std::int64_t>{1, 1, 1, 2}));
  EXPECT_EQ(confusion(Tensor(DType::float32, {0, 2}), Tensor(DType::int32, {0})),
            (std::vector<std::int64_t>(4)));
  EXPECT_EQ(thrown([&] {
              confusion(Tensor(DType::float32, {1, 1}), Tensor::of<std::int32_t>({1}, {2}));
            }),
            "data: row 0 of the batch has label 2; with 2 classes labels are 0 .. 1");
}

// The AUC of a graph's logits and labels.
double auc_of(Tensor x, Tensor y) {
  const auto scored = counted<double>(
      std::move(x), std::move(y), [](Graph& g, NodeId a, NodeId b) { return ops::scored_labels(g, a, b); });
  ScoreCounts scores;
  for (std::size_t i = 0; i < scored.size(); i += 2) scores.add(scored[i], scored[i + 1] == 1);
  return scores.auc();
}

TEST(ScoredLabels, AreLogitsAndLabelsSideBySide) {
  const auto scored = [](Tensor x, Tensor y) {
    return counted<double>(std::move(x), std::move(y),
                           [](Graph& g, NodeId a, NodeId b) { return ops::scored_labels(g, a, b); });
  };
  EXPECT_EQ(scored(Tensor::of<float>({2, 1}, {0.5F, -3}), Tensor::of<std::int32_t>({2}, {1, 0})),
            (std::vector<double>{0.5, 1, -3, 0}));
  EXPECT_EQ(scored(Tensor::of<double>({1, 2, 1}, {1, 2}), Tensor::of<std::int32_t>({1, 2}, {0, 1})),
            (std::vector<double>{1, 0, 2, 1}));
  EXPECT_EQ(
      thrown([&] {
        scored(Tensor(DType::float32, {1, 2}), Tensor(DType::int32, {1}));
      }),
      "argument: node \"scored_labels\" (scored_labels): needs logits [..., 1]; \"x\" has shape [?, 2]");
  EXPECT_EQ(thrown([&] {
              scored(Tensor(DType::float32, {1, 1}), Tensor::of<std::int32_t>({1}, {2}));
            }),
            "data: row 0 of the batch has label 2; with 2 classes labels are 0 .. 1");
}

TEST(Auc, EqualsTheShareOfOrderedPairs) {
  const std::int64_t n = 300;
  Tensor x = GradientCheck::random({n, 1}, 5), y(DType::int32, {n});
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    x.as<double>()[i] = std::round(x.as<double>()[i] * 100) / 50;  // so that there are ties
    y.as<std::int32_t>()[i] = x.as<double>()[i] + std::sin(static_cast<double>(i)) > 0.3 ? 1 : 0;
  }
  double ordered = 0, pairs = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    for (std::size_t j = 0; j < static_cast<std::size_t>(n); ++j) {
      if (y.as<std::int32_t>()[i] != 1 || y.as<std::int32_t>()[j] != 0) continue;
      const double a = x.as<double>()[i], b = x.as<double>()[j];
      ordered += a > b ? 1 : a == b ? 0.5 : 0;
      pairs += 1;
    }
  }
  const double auc = auc_of(std::move(x), std::move(y));
  EXPECT_NEAR(auc, ordered / pairs, 1e-14);
  EXPECT_GT(auc, 0.6);
}

TEST(PrecisionRecall, AreThoseByHand) {
  const std::vector<std::int64_t> two{50, 10, 5, 35};
  const PrecisionRecall yes = precision_recall(two, 1);
  EXPECT_DOUBLE_EQ(yes.precision, 35.0 / 45);
  EXPECT_DOUBLE_EQ(yes.recall, 35.0 / 40);
  EXPECT_DOUBLE_EQ(yes.f1(), 2 * 35.0 / (45 + 40));
  EXPECT_DOUBLE_EQ(accuracy(two), 0.85);
  // Class 1 was never the answer; class 3 does not occur at all and does not count.
  const std::vector<std::int64_t> four{2, 0, 1, 0, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0};
  const PrecisionRecall macro = macro_precision_recall(four);
  EXPECT_DOUBLE_EQ(macro.precision, (2.0 / 3 + 0 + 3.0 / 5) / 3);
  EXPECT_DOUBLE_EQ(macro.recall, (2.0 / 3 + 0 + 1) / 3);
  EXPECT_DOUBLE_EQ(accuracy(four), 5.0 / 8);
  EXPECT_EQ(precision_recall(four, 3).f1(), 0);
  const std::vector<std::int64_t> nothing(9);
  EXPECT_EQ(macro_precision_recall(nothing).precision, 0);
  EXPECT_EQ(accuracy(nothing), 0);
}

TEST(PrecisionRecall, RejectWhatIsNotAConfusionMatrix) {
  for (const std::size_t n : {0, 3, 8}) {
    EXPECT_EQ(thrown([&] { macro_precision_recall(std::vector<std::int64_t>(n)); }),
              fmt::format("argument: {} counts are not a confusion matrix, which is a square", n));
  }
  for (const std::int64_t c : {-1, 2}) {
    EXPECT_EQ(thrown([&] { precision_recall(std::vector<std::int64_t>(4), c); }),
              fmt::format("argument: class {} of a confusion matrix of classes 0 .. 1", c));
  }
}

TEST(SquaredErrorSum, AddsUpAllElements) {
  GradientCheck b;
  const NodeId p = b.feed(Tensor::of<float>({2, 1, 2}, {1, 2, 3, 4})),
               t = b.feed(Tensor::of<float>({2, 1, 2}, {1, 0, 0, 8}));
  const NodeId sum = ops::squared_error_sum(b.graph, p, t);
  EXPECT_EQ(b.value(sum), 4 + 9 + 16);
  const NodeId other = b.feed(Tensor(DType::float32, {2, 2}));
  EXPECT_EQ(thrown([&] { ops::squared_error_sum(b.graph, p, other); }),
            "argument: node \"squared_error_sum_1\" (squared_error_sum): shapes [2, 1, 2] of \"fed0\" and "
            "[2, 2] of "
            "\"fed2\" differ; predictions and targets must agree");
}

TEST(LogLossSum, EqualsTheLosses) {
  GradientCheck b;
  const NodeId x = b.feed_random({3, 2, 5}), z = b.feed_random({3, 2, 1});
  const NodeId many = b.feed_labels({3, 2}, 5), two = b.feed_labels({3, 2}, 2);
  EXPECT_NEAR(b.value(ops::log_loss_sum(b.graph, x, many)),
              b.value(ops::softmax_cross_entropy(b.graph, x, many)), 1e-13);
  EXPECT_NEAR(b.value(ops::log_loss_sum(b.graph, z, two)),
              b.value(ops::sigmoid_cross_entropy(b.graph, z, two)), 1e-13);
}

TEST(Metrics, HaveNoGradient) {
  GradientCheck b;
  const NodeId x = b.variable("x", {3, 4}), y = b.feed_labels({3}, 4);
  const NodeId loss = ops::log_loss_sum(b.graph, x, y);
  Session session(b.graph, 1);
  const auto gradients = session.gradients(loss, b.feeds());
  for (const double g : gradients.at("x").as<double>()) EXPECT_EQ(g, 0);
}

// Of the elements of targets [n, ...], one after the other, as scikit-learn defines r2_score.
double naive_r2(const std::vector<std::vector<double>>& predictions,
                const std::vector<std::vector<double>>& targets) {
  double total = 0;
  for (std::size_t c = 0; c < targets[0].size(); ++c) {
    double mean = 0, distances = 0, errors = 0;
    for (const auto& t : targets) mean += t[c] / static_cast<double>(targets.size());
    for (std::size_t i = 0; i < targets.size(); ++i) {
      distances += (targets[i][c] - mean) * (targets[i][c] - mean);
      errors += (targets[i][c] - predictions[i][c]) * (targets[i][c] - predictions[i][c]);
    }
    total += 1 - errors / distances;
  }
  return total / static_cast<double>(targets[0].size());
}

// Far from 0 a difference of sums of squares would leave nothing: 1e9 + (0 .. 1) has squares of 1e18.
TEST(R2, IsThatOfTheWholeSetHoweverItIsDivided) {
  for (const double offset : {0.0, 1e9}) {
    constexpr std::size_t kRows = 23, kCols = 3;
    std::vector<std::vector<double>> predictions, targets;
    const Tensor random = GradientCheck::random({2, kRows, kCols}, 5);
    for (std::size_t i = 0; i < kRows; ++i) {
      const double* t = random.as<double>().data() + i * kCols;
      targets.push_back({offset + t[0], offset + 3 * t[1], offset - t[2]});
      const double* e = t + kRows * kCols;
      predictions.push_back({targets[i][0] + 0.3 * e[0], targets[i][1] + e[1], targets[i][2] + 0.1 * e[2]});
    }
    const double wanted = naive_r2(predictions, targets);
    Graph g;
    const NodeId x = g.placeholder("x", DType::float64, {kAny, 3}),
                 t = g.placeholder("t", DType::float64, {kAny, 3});
    const NodeId sums = ops::r2_sums(g, x, t);
    Session session(g, 1);
    for (const std::size_t batch : {1U, 5U, 23U}) {
      std::vector<double> all(kCols * kR2Sums, 0.0);
      for (std::size_t begin = 0; begin < kRows; begin += batch) {
        const std::size_t n = std::min(batch, kRows - begin);
        Tensor a(DType::float64, {static_cast<std::int64_t>(n), 3}), b(DType::float64, a.shape());
        for (std::size_t i = 0; i < n; ++i) {
          std::ranges::copy(predictions[begin + i],
                            a.as<double>().begin() + static_cast<std::ptrdiff_t>(i * kCols));
          std::ranges::copy(targets[begin + i],
                            b.as<double>().begin() + static_cast<std::ptrdiff_t>(i * kCols));
        }
        const Tensor part = std::move(session.run({sums}, {{x, a.view()}, {t, b.view()}})[0]);
        merge_r2(all, part.as<double>());
      }
      EXPECT_NEAR(r2_of(all), wanted, offset == 0 ? 1e-13 : 1e-6) << batch;
    }
  }
}

TEST(R2, OfLabelsThatAreNumbersAndOfSamplesOfHigherRank) {
  const auto sums =
      counted<double>(Tensor::of<double>({3, 1}, {1, 2, 5}), Tensor::of<std::int32_t>({3}, {1, 2, 3}),
                      [](Graph& g, NodeId x, NodeId y) { return ops::r2_sums(g, x, y); });
  EXPECT_EQ(sums, (std::vector<double>{3, 2, 2, 4}));
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 2, 2});
  EXPECT_EQ(g.node(ops::r2_sums(g, x, x)).type.shape, (Shape{4, kR2Sums})) << "each element has its own mean";
}

TEST(R2, OfTheBoundaries) {
  const auto r2 = [](std::initializer_list<double> sums) { return r2_of(std::vector<double>(sums)); };
  EXPECT_TRUE(std::isnan(r2({0, 0, 0, 0})));
  EXPECT_TRUE(std::isnan(r2({1, 5, 0, 2})));
  EXPECT_EQ(r2({3, 5, 0, 0}), 1) << "a target that never changes, always met";
  EXPECT_EQ(r2({3, 5, 0, 2}), 0);
  EXPECT_EQ(r2({3, 5, 4, 4}), 0);
  EXPECT_EQ(r2({3, 5, 4, 8, 3, 5, 4, 0}), 0) << "the mean of -1 and 1";
  // 0.1 is no binary fraction; its mean over batches is 0.1 all the same.
  std::vector<double> all(4, 0.0);
  for (const int rows : {3, 7, 64}) {
    const auto n = static_cast<std::size_t>(rows);
    Graph g;
    const NodeId t = g.placeholder("t", DType::float64, {kAny, 1});
    const NodeId sums = ops::r2_sums(g, t, t);
    Tensor values(DType::float64, {rows, 1});
    for (std::size_t i = 0; i < n; ++i) values.as<double>()[i] = 0.1;
    merge_r2(all, Session(g, 1).run({sums}, {{t, values.view()}})[0].as<double>());
  }
  EXPECT_EQ(all, (std::vector<double>{74, 0.1, 0, 0}));
  std::vector<double> two(8, 0.0);
  EXPECT_EQ(thrown([&] { merge_r2(two, all); }), "argument: 8 sums of r2 and 4 do not fit each other");
}

// With weights every count is that of the rows, each as often as its weight says.
TEST(WeightedMetrics, CountRowsAsOftenAsTheirWeightsSay) {
  const Tensor weights = Tensor::of<double>({4}, {2, 0, 1, 3});
  const Tensor once = Tensor::of<double>({6}, {1, 1, 1, 1, 1, 1});
  Tensor x = Tensor::of<double>({4, 1}, {1.5, kNan, -2, 0.25}),
         y = Tensor::of<std::int32_t>({4}, {1, 1, 1, 0});
  const Tensor x_rows = Tensor::of<double>({6, 1}, {1.5, 1.5, -2, 0.25, 0.25, 0.25});
  const Tensor y_rows = Tensor::of<std::int32_t>({6}, {1, 1, 1, 0, 0, 0});
  Graph g;
  const NodeId px = g.placeholder("x", DType::float64, {kAny, 1}),
               py = g.placeholder("y", DType::int32, {kAny}), pw = g.placeholder("w", DType::float64, {kAny});
  const std::vector<NodeId> metrics{
      ops::correct_count(g, px, py, {}, pw),
      ops::confusion_matrix(g, px, py, {}, pw),
      ops::log_loss_sum(g, px, py, {}, pw),
      ops::r2_sums(g, px, py, {}, pw),
      ops::mean_squared_error(g, px, py, Reduction::sum, {}, pw),
  };
  Session session(g, 1);
  const auto got = session.run(metrics, {{px, x.view()}, {py, y.view()}, {pw, weights.view()}});
  const auto wanted = session.run(metrics, {{px, x_rows.view()}, {py, y_rows.view()}, {pw, once.view()}});
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    ASSERT_EQ(got[m].dtype(), DType::float64);
    for (std::size_t i = 0; i < got[m].as<double>().size(); ++i)
      EXPECT_NEAR(got[m].as<double>()[i], wanted[m].as<double>()[i], 1e-13) << m << " " << i;
  }
  EXPECT_EQ(ops::count_of(got[0].view()), 2);
  EXPECT_EQ(got[1].as<double>()[2], 1);
  EXPECT_EQ(r2_of(got[3].as<double>().first(4), 4), r2_of(got[3].as<double>().first(4)));
  EXPECT_TRUE(std::isnan(r2_of(got[3].as<double>().first(4), 1)));
}

TEST(WeightedMetrics, OfSquaresAndOfTheFirstClasses) {
  Graph g;
  const NodeId p = g.placeholder("p", DType::float32, {kAny, 2}),
               t = g.placeholder("t", DType::float32, {kAny, 2}),
               y = g.placeholder("y", DType::int32, {kAny}), w = g.placeholder("w", DType::float64, {kAny});
  const NodeId squares = ops::squared_error_sum(g, p, t, {}, w), top = ops::top_k_count(g, p, y, 1, {}, w);
  const Tensor ps = Tensor::of<float>({3, 2}, {1, 2, 3, 4, 9, 9}),
               ts = Tensor::of<float>({3, 2}, {0, 2, 1, 1, 0, 0}),
               ys = Tensor::of<std::int32_t>({3}, {1, 0, 0}), ws = Tensor::of<double>({3}, {0.5, 2, 0});
  const auto out =
      Session(g, 1).run({squares, top}, {{p, ps.view()}, {t, ts.view()}, {y, ys.view()}, {w, ws.view()}});
  EXPECT_DOUBLE_EQ(out[0].as<double>()[0], 0.5 * 1 + 2 * (4 + 9));
  EXPECT_DOUBLE_EQ(out[1].as<double>()[0], 0.5);
}

TEST(ScoredLabels, HaveTheWeightBehindThem) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float64, {kAny, 1}),
               y = g.placeholder("y", DType::int32, {kAny}), w = g.placeholder("w", DType::float64, {kAny});
  const NodeId scored = ops::scored_labels(g, x, y, {}, w);
  const Tensor xs = Tensor::of<double>({2, 1}, {0.5, -3}), ys = Tensor::of<std::int32_t>({2}, {1, 0}),
               ws = Tensor::of<double>({2}, {7, 0.25});
  const auto out = Session(g, 1).run({scored}, {{x, xs.view()}, {y, ys.view()}, {w, ws.view()}});
  EXPECT_EQ(std::vector<double>(out[0].as<double>().begin(), out[0].as<double>().end()),
            (std::vector<double>{0.5, 1, 7, -3, 0, 0.25}));
}

}  // namespace
}  // namespace varscope
