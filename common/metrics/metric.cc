#include "common/metrics/metric.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/figures.h"
#include "common/base/text.h"
#include "common/metrics/class_counts.h"
#include "common/metrics/r2.h"

namespace varscope {
namespace {

constexpr Choice<MetricType> kNames[] = {{MetricType::accuracy, "accuracy"},
                                         {MetricType::auc, "auc"},
                                         {MetricType::log_loss, "log_loss"},
                                         {MetricType::rmse, "rmse"},
                                         {MetricType::mae, "mae"},
                                         {MetricType::r2, "r2"},
                                         {MetricType::perplexity, "perplexity"},
                                         {MetricType::precision, "precision"},
                                         {MetricType::recall, "recall"},
                                         {MetricType::confusion_matrix, "confusion_matrix"}};
constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

double ratio(double a, double b) { return b > 0 ? a / b : kNothing; }

[[noreturn]] void fail_metric(const JobConfig& job, std::size_t i, const std::string& text) {
  const std::string path = fmt::format("train.metrics.{}", i);
  const ConfigNode* node = job.root.find_path(path);
  fail_at(node != nullptr ? *node : job.root, job.file, path, text);
}

MetricSpec read_metric(const JobConfig& job, std::size_t i) {
  const std::string& name = job.train.metrics[i];
  std::vector<std::string> names{"top_5"};
  for (const auto& c : kNames) {
    if (name == c.name) return {c.value, 0, name};
    names.emplace_back(c.name);
  }
  std::int64_t k = 0;
  if (name.starts_with("top_") && parse_number(name.substr(4), k) && k >= 1)
    return {MetricType::top_k, k, name};
  fail_metric(job, i,
              fmt::format("unknown metric \"{}\"{}; known are {}", name, did_you_mean(name, names),
                          comma_list(names)));
}

void check_fits(const JobConfig& job, std::size_t i, const MetricSpec& m) {
  const LossType loss = job.model.loss.type;
  const bool labels = job.model.target == TargetType::labels;
  const bool logits = loss == LossType::softmax_cross_entropy || loss == LossType::sigmoid_cross_entropy;
  const bool fits = [&] {
    switch (m.type) {
      case MetricType::rmse:
      case MetricType::mae:
      case MetricType::r2:
        return !logits || !labels;
      case MetricType::auc:
        return labels && loss == LossType::sigmoid_cross_entropy;
      case MetricType::log_loss:
      case MetricType::perplexity:
        return labels && logits;
      default:
        return labels;
    }
  }();
  if (fits) return;
  fail_metric(job, i,
              fmt::format("metric \"{}\" does not fit loss {} with target {}", m.name,
                          choice_name(kLossTypes, loss), choice_name(kTargetTypes, job.model.target)));
}

}  // namespace

std::vector<MetricSpec> metrics_of(const JobConfig& job, std::int64_t labels_per_sample) {
  std::vector<MetricSpec> metrics;
  for (std::size_t i = 0; i < job.train.metrics.size(); ++i) {
    metrics.push_back(read_metric(job, i));
    check_fits(job, i, metrics.back());
  }
  if (!metrics.empty()) return metrics;
  if (job.model.target == TargetType::input) return {{MetricType::rmse, 0, "rmse"}};
  metrics.push_back({MetricType::accuracy, 0, "accuracy"});
  if (labels_per_sample > 1) metrics.push_back({MetricType::perplexity, 0, "perplexity"});
  return metrics;
}

namespace {

MetricLayout without_weights(const MetricSpec& metric, const EvaluationSpec& spec) {
  const std::int64_t classes = std::max<std::int64_t>(2, spec.outputs);
  switch (metric.type) {
    case MetricType::accuracy:
    case MetricType::top_k:
      return {1, 0};
    case MetricType::auc:
      return {};
    case MetricType::precision:
    case MetricType::recall:
    case MetricType::confusion_matrix:
      return {classes * classes, 0};
    case MetricType::log_loss:
    case MetricType::rmse:
    case MetricType::mae:
    case MetricType::perplexity:
      return {0, 1};
    case MetricType::r2:
      return {0, spec.elements_per_target * kR2Sums};
  }
  return {};
}

}  // namespace

MetricLayout layout_of(const MetricSpec& metric, const EvaluationSpec& spec) {
  const MetricLayout layout = without_weights(metric, spec);
  return spec.has_weights ? MetricLayout{0, layout.counts + layout.reals} : layout;
}

namespace {

// Of all metrics.
MetricLayout layout_of(const EvaluationSpec& spec) {
  MetricLayout total;
  for (const MetricSpec& m : spec.metrics) {
    const MetricLayout layout = layout_of(m, spec);
    total.counts += layout.counts;
    total.reals += layout.reals;
  }
  return total;
}

void check_sizes(const EvaluationSpec& spec, std::size_t n_counts, std::size_t n_reals) {
  const MetricLayout total = layout_of(spec);
  const auto counts = static_cast<std::size_t>(total.counts), reals = static_cast<std::size_t>(total.reals);
  if (n_counts == counts && n_reals == reals) return;
  fail(ErrorKind::protocol,
       "an evaluation has {} counts and {} sums for its metrics; {} and {} were expected", n_counts, n_reals,
       counts, reals);
}

}  // namespace

void merge_reals(const EvaluationSpec& spec, std::vector<double>& reals, std::span<const double> batch) {
  const auto expected = static_cast<std::size_t>(layout_of(spec).reals);
  if (batch.size() != expected) {
    fail(ErrorKind::protocol, "a batch of an evaluation has {} sums for its metrics; {} were expected",
         batch.size(), expected);
  }
  reals.resize(expected, 0);
  std::span<double> to(reals);
  for (const MetricSpec& m : spec.metrics) {
    const auto n = static_cast<std::size_t>(layout_of(m, spec).reals);
    if (m.type == MetricType::r2) {
      merge_r2(to.first(n), batch.first(n));
    } else {
      for (std::size_t i = 0; i < n; ++i) to[i] += batch[i];
    }
    to = to.subspan(n);
    batch = batch.subspan(n);
  }
}

std::vector<MetricValue> metric_values(const EvaluationSpec& spec, const BatchSums& sums,
                                       std::span<const std::int64_t> counts, std::span<const double> reals,
                                       const ScoreCounts& scores) {
  check_sizes(spec, counts.size(), reals.size());
  std::vector<MetricValue> values;
  const double n = sums.total();
  const std::int64_t classes = std::max<std::int64_t>(2, spec.outputs);
  for (const MetricSpec& m : spec.metrics) {
    const MetricLayout layout = layout_of(m, spec);
    const auto mine = counts.first(static_cast<std::size_t>(layout.counts));
    counts = counts.subspan(mine.size());
    const auto sums_of_mine = reals.first(static_cast<std::size_t>(layout.reals));
    reals = reals.subspan(sums_of_mine.size());
    const double real = sums_of_mine.empty() ? 0 : sums_of_mine.front();
    const std::vector<double> counted = spec.has_weights
                                            ? std::vector<double>(sums_of_mine.begin(), sums_of_mine.end())
                                            : std::vector<double>(mine.begin(), mine.end());
    MetricValue v{m.name, 0, {}, {}};
    switch (m.type) {
      case MetricType::accuracy:
      case MetricType::top_k:
        v.value = ratio(counted[0], n);
        break;
      case MetricType::auc:
        v.value = scores.auc();
        if (!scores.is_exact()) v.note = fmt::format("scores in {} groups of near ones", scores.n_scores());
        break;
      case MetricType::log_loss:
        v.value = ratio(real, n);
        break;
      case MetricType::rmse:
        v.value = std::sqrt(ratio(real, n * static_cast<double>(spec.elements_per_target)));
        break;
      case MetricType::mae:
        v.value = ratio(real, n * static_cast<double>(spec.elements_per_target));
        break;
      case MetricType::r2:
        v.value = spec.has_weights ? r2_of(sums_of_mine, sums.samples) : r2_of(sums_of_mine);
        break;
      case MetricType::perplexity:
        v.value = std::exp(ratio(real, n));
        break;
      case MetricType::precision:
        v.value =
            classes == 2 ? precision_recall(counted, 1).precision : macro_precision_recall(counted).precision;
        break;
      case MetricType::recall:
        v.value = classes == 2 ? precision_recall(counted, 1).recall : macro_precision_recall(counted).recall;
        break;
      case MetricType::confusion_matrix:
        v.matrix = counted;
        break;
    }
    values.push_back(std::move(v));
  }
  return values;
}

namespace {

std::string count_text(double count) {
  return count == std::floor(count) && std::abs(count) < 1e15 ? fmt::format("{:.0f}", count) : figure(count);
}

}  // namespace

std::string to_text(const MetricValue& value) {
  if (value.matrix.empty()) {
    return fmt::format("{} {}{}", value.name, figure(value.value),
                       value.note.empty() ? "" : " (" + value.note + ")");
  }
  const auto n = static_cast<std::size_t>(std::llround(std::sqrt(static_cast<double>(value.matrix.size()))));
  std::string text = fmt::format("{} (a row for each label, a column for each answer)", value.name);
  for (std::size_t row = 0; row < n; ++row) {
    text += fmt::format("\n  {:>4}:", row);
    for (std::size_t c = 0; c < n; ++c) text += fmt::format(" {:>7}", count_text(value.matrix[row * n + c]));
  }
  return text;
}

}  // namespace varscope
