#include "launch/observe/evaluation_recorder.h"

namespace varscope {

void EvaluationRecorder::on_eval(const EvalSummary& eval) {
  next_.on_eval(eval);
  if (saver_ != nullptr) saver_->on_evaluation(record_of(facts_, eval));
}

EvaluationRecord record_of(const EvalFacts& facts, const EvalSummary& eval) {
  EvaluationRecord record{eval.clock.value, {}};
  if (eval.sums.samples > 0) record.values["loss"] = eval.sums.loss / static_cast<double>(eval.sums.samples);
  for (const MetricValue& v : finish_metrics(facts, eval.sums, eval.counts, eval.reals)) {
    if (v.matrix.empty()) record.values[v.name] = v.value;
  }
  return record;
}

}  // namespace varscope
