// Evaluations: the reports of all workers make one, by batches in their order.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/base/serialize.h"
#include "ps/coordinator.h"

namespace varscope {
namespace {

// What checkpoints keep of an evaluation: "loss", and each metric that is a number, by name.
EvaluationRecord record_of(const EvalSummary& eval) {
  EvaluationRecord record{eval.clock.value, {}};
  if (eval.sums.samples > 0) record.values["loss"] = eval.sums.loss / eval.sums.total();
  for (const MetricValue& v : eval.metrics) {
    if (v.matrix.empty()) record.values[v.name] = v.value;
  }
  return record;
}

}  // namespace

void Coordinator::on_eval_report(const Message& message) {
  const auto report = from_binary<EvalReport>(message.body, "an evaluation report");
  const Clock clock(message.header.clock);
  auto found =
      std::find_if(evaluations_.begin(), evaluations_.end(), [&](const auto& e) { return e.clock == clock; });
  // Of a worker without batches, after all others: it says nothing.
  if (found == evaluations_.end() && report.batches.empty() && evaluated_ && clock <= *evaluated_) return;
  if (found == evaluations_.end()) {
    if (report.n_batches < 0 || report.n_batches > (1 << 24)) {
      fail(ErrorKind::protocol, "rank {} reports an evaluation of {} batches", message.from.value,
           report.n_batches);
    }
    const auto n = static_cast<std::size_t>(report.n_batches);
    evaluations_.push_back({clock, std::vector<std::optional<Evaluation::Batch>>(n), n});
    found = std::prev(evaluations_.end());
  }
  if (report.sums.size() != report.batches.size() || report.reals.size() != report.batches.size() ||
      (!found->counts.empty() && !report.counts.empty() && found->counts.size() != report.counts.size())) {
    fail(ErrorKind::protocol,
         "rank {} reports {} evaluation batches with {} sums, {} real and {} integer metrics",
         message.from.value, report.batches.size(), report.sums.size(), report.reals.size(),
         report.counts.size());
  }
  found->counts.resize(std::max(found->counts.size(), report.counts.size()), 0);
  for (std::size_t i = 0; i < report.counts.size(); ++i) found->counts[i] += report.counts[i];
  found->scores.merge(report.scores);
  for (std::size_t i = 0; i < report.batches.size(); ++i) {
    const auto batch = static_cast<std::size_t>(report.batches[i]);
    if (batch >= found->batches.size() || found->batches[batch]) {
      fail(ErrorKind::protocol, "rank {} reports evaluation batch {} of {}, or twice", message.from.value,
           batch, found->batches.size());
    }
    found->batches[batch] = {report.sums[i], report.reals[i]};
    --found->missing;
  }
  if (found->missing > 0) return;
  const Evaluation evaluation = std::move(*found);
  evaluations_.erase(found);
  finish_evaluation(evaluation);
}

void Coordinator::finish_evaluation(const Evaluation& evaluation) {
  const std::int64_t per_epoch = train_.steps_per_epoch;
  const std::int64_t epoch = per_epoch > 0 ? (evaluation.clock.value + per_epoch - 1) / per_epoch : 1;
  EvalSummary summary{evaluation.clock, epoch, {}, {}};
  std::vector<double> reals;
  for (const auto& batch : evaluation.batches) {  // in order, whoever evaluated it
    summary.sums += batch->sums;
    merge_reals(evaluation_, reals, batch->reals);
  }
  summary.metrics = metric_values(evaluation_, summary.sums, evaluation.counts, reals, evaluation.scores);
  observer_.on_eval(summary);
  EvaluationRecord record = record_of(summary);
  if (stream_) record.values.merge(stream_->metrics(evaluation_.has_accuracy));
  if (checkpoints_ != nullptr) checkpoints_->on_evaluation(record);
  if (!std::isfinite(summary.sums.loss))
    inquire({.step = evaluation.clock.value, .test_loss = not_finite_text(summary.sums.loss)});
  if (stop_) {
    const auto value = record.values.find(stop_->rule().metric);
    stop_->add(record.step, value != record.values.end() ? value->second : std::nan(""));
    state_.stop = stop_->state();
  }
  evaluated_ = evaluation.clock;
  if (awaited_ == evaluated_) go_on_after_evaluation();
}

void Coordinator::go_on_after_evaluation() {
  awaited_.reset();
  if (stop_ && stop_->is_over()) return end_early();
  let_compute(Clock(current_.value + 1));
  dealer_ ? deal() : release_due();
}

}  // namespace varscope
