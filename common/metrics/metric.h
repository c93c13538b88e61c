#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/score_counts.h"
#include "common/config/job_config.h"
#include "common/transport/reports.h"

namespace varscope {

// What an evaluation, one pass over the test set, measures besides the loss. A metric is a function of sums
// over the samples: integers, which add up alike in any order, or float64s of each eval batch, which are
// merged in the batches' order; or of the counts of each score. So its value does not depend on how the
// batches were dealt to workers.
enum class MetricType : std::uint8_t {
  accuracy,          // rows whose first largest logit is the label; with one logit, logit > 0 means 1
  top_k,             // rows whose label is among the k largest logits
  auc,               // area under the ROC curve, by the ranks of the logits (two classes, one logit)
  log_loss,          // mean of -log p(label), without smoothing and class weights
  rmse,              // root of the mean squared difference of outputs and targets
  mae,               // mean absolute difference of outputs and targets
  r2,                // coefficient of determination: see common/metrics/r2.h
  perplexity,        // exp(mean of -log p(label))
  precision,         // of class 1 with one logit, else the mean over the classes that occur
  recall,            // the same
  confusion_matrix,  // rows are labels, columns answers
};

// One of train.metrics.
struct MetricSpec {
  MetricType type = MetricType::accuracy;
  std::int64_t k = 0;  // top_k
  std::string name;    // "top_5"
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& type& k& name;
  }
};

// train.metrics, or what suits the loss. Throws Error(config) with the nearest name for one that does not
// exist, or that does not fit the loss or the target.
std::vector<MetricSpec> metrics_of(const JobConfig& job, std::int64_t labels_per_sample);

// The most elements of a target that r2, which has sums for each of them, is made for.
inline constexpr std::int64_t kMaxR2Elements = 4096;

// Of one evaluation.
struct MetricValue {
  std::string name;
  double value = 0;
  std::vector<double> matrix;  // confusion_matrix: k * k counts, or sums of weights, row-major; else empty
  std::string note = {};       // how the value is not exact; "" where it is
};

// What a job's evaluations measure, and what turns their sums into values; the same on every rank.
struct EvaluationSpec {
  std::vector<MetricSpec> metrics;
  std::int64_t outputs = 1;              // of the model's last axis
  std::int64_t elements_per_target = 1;  // of the model's output
  std::int64_t targets_per_sample = 1;
  bool has_accuracy = true;  // BatchSums::correct counts something
  bool has_weights = false;  // samples count as their weights say: what would be counts are float64s
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& metrics& outputs& elements_per_target& targets_per_sample& has_accuracy& has_weights;
  }
};

// How many integers and float64s a metric sums up.
struct MetricLayout {
  std::int64_t counts = 0;
  std::int64_t reals = 0;
};
MetricLayout layout_of(const MetricSpec& metric, const EvaluationSpec& spec);

// Merges the float64s of one batch, metric after metric, into those of the batches before, which are none at
// first. Throws Error(protocol) when they are not as many as layout_of says.
void merge_reals(const EvaluationSpec& spec, std::vector<double>& reals, std::span<const double> batch);

// The values of one evaluation's metrics out of its sums: `counts` and `reals` hold what layout_of says,
// metric after metric; `scores` is what auc is made of. Throws Error(protocol) when they do not.
std::vector<MetricValue> metric_values(const EvaluationSpec& spec, const BatchSums& sums,
                                       std::span<const std::int64_t> counts, std::span<const double> reals,
                                       const ScoreCounts& scores = ScoreCounts());
// "accuracy 0.8712", and the note behind it; a matrix takes a line for each row.
std::string to_text(const MetricValue& value);

}  // namespace varscope
