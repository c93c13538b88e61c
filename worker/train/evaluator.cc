#include "worker/train/evaluator.h"

#include <algorithm>
#include <numeric>

#include "worker/ops/metric_ops.h"

namespace varscope {

namespace {

// A test set without weights counts each sample once.
SampleSpec spec_of(const Dataset& test, const Model& model) {
  SampleSpec spec = test.spec();
  spec.has_weights = model.weights.has_value();
  return spec;
}

}  // namespace

Evaluator::Evaluator(const JobConfig& job, const Model& model, const Dataset& test)
    : model_(model),
      test_(test),
      batch_size_(std::min(job.train.eval_batch, test.size())),
      n_batches_((test.size() + batch_size_ - 1) / batch_size_),
      executor_(model.graph, model.loss, batch_size_, {.also = model.also(), .forward_only = true}),
      states_(model.graph, 1, batch_size_, static_cast<std::uint64_t>(job.job.seed)),
      tables_(model.graph),
      samples_(spec_of(test, model), job.model.dtype, batch_size_) {}

EvalReport Evaluator::run(int first, int stride, const std::function<void()>& between) {
  EvalReport report;
  report.n_batches = n_batches_;
  const bool in_order = test_.streams() > 0;
  if (first >= n_batches_ || (in_order && first != 0)) return report;
  for (const NodeId id : model_.metric_nodes) {
    const TensorType& type = model_.graph.node(id).type;
    if (type.dtype == DType::int64)
      report.counts.resize(report.counts.size() + static_cast<std::size_t>(type.shape.n_elements()), 0);
  }
  states_.reset();
  for (std::int64_t batch = first; batch < n_batches_; batch += in_order ? 1 : stride) {
    run_batch(batch, between, report);
    if (in_order) states_.advance(0);
  }
  return report;
}

void Evaluator::run_batch(std::int64_t batch, const std::function<void()>& between, EvalReport& report) {
  const std::int64_t begin = batch * batch_size_, n = std::min(test_.size() - begin, batch_size_);
  indices_.resize(static_cast<std::size_t>(n));
  std::iota(indices_.begin(), indices_.end(), begin);
  const BatchView samples = samples_.view(n);
  test_.read_weighted(indices_, samples);
  executor_.set_batch(n);
  for (const auto& [node, values] : model_.feeds(samples)) executor_.feed(node, values);
  tables_.read(executor_, rows_);
  states_.bind(executor_, 0);
  for (const auto& step : executor_.forward_steps()) {
    executor_.forward(step);
    between();
  }
  report.batches.push_back(batch);
  report.sums.push_back({executor_.value(model_.loss).as<double>()[0],
                         model_.correct ? ops::count_of(executor_.value(*model_.correct)) : 0,
                         n * model_.targets_per_sample,
                         samples.total_weight() * static_cast<double>(model_.targets_per_sample)});
  std::vector<double> reals;
  std::size_t at = 0;
  bool has_scores = false;  // auc asked for twice is measured once
  for (std::size_t i = 0; i < model_.metric_nodes.size(); ++i) {
    const TensorView& value = executor_.value(model_.metric_nodes[i]);
    if (model_.metrics[i].type == MetricType::auc) {
      const auto scored = value.as<double>();
      const std::size_t width = model_.weights ? 3 : 2;
      for (std::size_t k = 0; k < scored.size() && !has_scores; k += width)
        report.scores.add(scored[k], scored[k + 1] == 1, model_.weights ? scored[k + 2] : 1);
      has_scores = true;
      continue;
    }
    if (value.dtype() == DType::float64) {
      for (const double real : value.as<double>()) reals.push_back(real);
      continue;
    }
    for (const std::int64_t count : value.as<std::int64_t>()) report.counts[at++] += count;
  }
  report.reals.push_back(std::move(reals));
}

}  // namespace varscope
