#include "common/metrics/metric.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

JobConfig job(const std::string& loss, const std::string& metrics, const std::string& target = "labels") {
  const std::string text = "job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n  loss: " + loss +
                           "\n  target: " + target +
                           "\n  layers: [{type: flatten}]\ntrain:\n  metrics: " + metrics + "\n";
  return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
}

std::vector<std::string> names(const JobConfig& j, std::int64_t labels = 1) {
  std::vector<std::string> all;
  for (const MetricSpec& m : metrics_of(j, labels)) all.push_back(m.name);
  return all;
}

TEST(Metric, DefaultSuitsTheLoss) {
  using List = std::vector<std::string>;
  EXPECT_EQ(names(job("softmax_cross_entropy", "[]")), List{"accuracy"});
  EXPECT_EQ(names(job("softmax_cross_entropy", "[]"), 20), (List{"accuracy", "perplexity"}));
  EXPECT_EQ(names(job("mean_squared_error", "[]", "input")), List{"rmse"});
  EXPECT_EQ(names(job("softmax_cross_entropy", "[top_5, recall]")), (List{"top_5", "recall"}));
}

TEST(Metric, SayWhatDoesNotFit) {
  EXPECT_THAT_THROWN(
      names(job("softmax_cross_entropy", "[acuracy]")), ErrorKind::config,
      {"job.yaml:8:13: train.metrics.0", "unknown metric \"acuracy\"", "did you mean \"accuracy\""});
  EXPECT_THAT_THROWN(names(job("softmax_cross_entropy", "[accuracy, auc]")), ErrorKind::config,
                     {"train.metrics.1", "metric \"auc\" does not fit loss softmax_cross_entropy"});
  EXPECT_THAT_THROWN(names(job("mean_squared_error", "[accuracy]", "input")), ErrorKind::config,
                     {"target input"});
  for (const char* metric : {"rmse", "mae", "r2"}) {
    EXPECT_THAT_THROWN(names(job("softmax_cross_entropy", fmt::format("[{}]", metric))), ErrorKind::config,
                       {"does not fit loss softmax_cross_entropy"});
    EXPECT_EQ(names(job("huber", fmt::format("[{}]", metric))), std::vector<std::string>{metric});
  }
  EXPECT_THAT_THROWN(names(job("huber", "[r2_score]")), ErrorKind::config, {"did you mean \"r2\""});
  EXPECT_THAT_THROWN(names(job("huber", "[mean_absolute_error]")), ErrorKind::config,
                     {"did you mean \"mae\""});
  EXPECT_THAT_THROWN(names(job("softmax_cross_entropy", "[top_0]")), ErrorKind::config,
                     {"unknown metric \"top_0\""});
}

TEST(Metric, SumsBecomeValues) {
  EvaluationSpec spec;
  spec.metrics = metrics_of(
      job("softmax_cross_entropy", "[accuracy, perplexity, confusion_matrix, precision, recall]"), 1);
  spec.outputs = 3;
  // Labels down, answers across.
  const std::vector<std::int64_t> matrix{4, 1, 0, 2, 3, 0, 0, 0, 0};
  std::vector<std::int64_t> counts{7};
  for (int i = 0; i < 3; ++i) counts.insert(counts.end(), matrix.begin(), matrix.end());
  const std::vector<double> reals{20.0};
  const auto values = metric_values(spec, {5.0, 7, 10}, counts, reals);
  ASSERT_EQ(values.size(), 5U);
  EXPECT_DOUBLE_EQ(values[0].value, 0.7);
  EXPECT_DOUBLE_EQ(values[1].value, std::exp(2.0));
  EXPECT_EQ(values[2].matrix, std::vector<double>(matrix.begin(), matrix.end()));
  EXPECT_DOUBLE_EQ(values[3].value, (4.0 / 6 + 3.0 / 4) / 2);  // class 2 does not occur
  EXPECT_DOUBLE_EQ(values[4].value, (4.0 / 5 + 3.0 / 5) / 2);
  EXPECT_EQ(to_text(values[0]), "accuracy 0.7000");
  EXPECT_NE(to_text(values[2]).find("\n     1:       2       3       0"), std::string::npos)
      << to_text(values[2]);
  EXPECT_THAT_THROWN(metric_values(spec, {}, counts, {}), ErrorKind::protocol, {"28 counts and 0 sums"});
}

TEST(Metric, AucSaysWhereScoresWerePutTogether) {
  EvaluationSpec spec;
  spec.metrics = {{MetricType::auc, 0, "auc"}};
  ScoreCounts scores(2);
  for (const double score : {1.0, 1.5, 8.0, 9.0}) scores.add(score, score > 2);
  const auto values = metric_values(spec, {0, 0, 4}, {}, {}, scores);
  EXPECT_EQ(to_text(values[0]), "auc 1.0000 (scores in 2 groups of near ones)");
}

TEST(Metric, RmseDividesByAllElements) {
  EvaluationSpec spec;
  spec.metrics = {{MetricType::rmse, 0, "rmse"}};
  spec.elements_per_target = 4;
  const std::vector<double> reals{32.0};
  EXPECT_DOUBLE_EQ(metric_values(spec, {0, 0, 2}, {}, reals)[0].value, 2.0);
}

// Sums are added in the order of the batches; r2 keeps a mean, which is merged.
TEST(Metric, RealsOfBatchesAreMerged) {
  EvaluationSpec spec;
  spec.metrics = metrics_of(job("mean_squared_error", "[mae, r2, rmse]"), 1);
  std::vector<double> reals;
  merge_reals(spec, reals, std::vector<double>{3, 2, 10, 2, 1, 5});  // targets 9 and 11
  merge_reals(spec, reals, std::vector<double>{0.5, 1, 13, 0, 0.25, 0.25});
  const auto values = metric_values(spec, {0, 0, 3}, {}, reals);
  EXPECT_DOUBLE_EQ(values[0].value, 3.5 / 3);
  EXPECT_DOUBLE_EQ(values[1].value, 1 - 1.25 / 8);  // distances from 11: 4 + 0 + 4
  EXPECT_DOUBLE_EQ(values[2].value, std::sqrt(5.25 / 3));
  EXPECT_THAT_THROWN(merge_reals(spec, reals, std::vector<double>{1}), ErrorKind::protocol,
                     {"a batch of an evaluation has 1 sums for its metrics; 6 were expected"});
}

// What would be counts are sums of weights, and a mean divides by the sum of all.
TEST(Metric, OfWeightedSamples) {
  EvaluationSpec spec;
  spec.metrics =
      metrics_of(job("softmax_cross_entropy", "[accuracy, log_loss, confusion_matrix, precision, top_2]"), 1);
  spec.outputs = 2;
  spec.has_weights = true;
  const std::vector<double> matrix{1.5, 0.5, 2, 4};
  std::vector<double> batch{5.5, 3};
  for (int i = 0; i < 2; ++i) batch.insert(batch.end(), matrix.begin(), matrix.end());
  batch.push_back(7.5);
  std::vector<double> reals;
  merge_reals(spec, reals, batch);
  merge_reals(spec, reals, batch);
  const auto values = metric_values(spec, {.samples = 8, .weight = 16}, {}, reals);
  EXPECT_DOUBLE_EQ(values[0].value, 11.0 / 16);
  EXPECT_DOUBLE_EQ(values[1].value, 6.0 / 16);
  EXPECT_EQ(values[2].matrix, (std::vector<double>{3, 1, 4, 8}));
  EXPECT_DOUBLE_EQ(values[3].value, 8.0 / 9);
  EXPECT_DOUBLE_EQ(values[4].value, 15.0 / 16);
  EXPECT_EQ(
      to_text({"m", 0, {0.5, 2, 0, 1}}),
      "m (a row for each label, a column for each answer)\n     0:  0.5000       2\n     1:       0       1");
}

}  // namespace
}  // namespace varscope
