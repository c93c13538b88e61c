#include "launch/commands/evaluate.h"

#include "common/base/error.h"
#include "common/base/figures.h"
#include "launch/job/job_setup.h"
#include "launch/job/loaded_model.h"
#include "launch/observe/output.h"
#include "worker/kernels/blas.h"
#include "worker/train/evaluator.h"

namespace varscope {

void evaluate_checkpoint(const std::string& config, const std::vector<std::string>& overrides,
                         const std::string& checkpoint, const LayerRegistry& layers) {
  const JobConfig job = load_config(config, overrides);
  if (job.data.test_source() == nullptr)
    fail(ErrorKind::config, "{}: data.test is missing: there is nothing to evaluate on", config);
  set_blas_threads(static_cast<int>(job.cluster.blas_threads));
  const auto test = load_dataset(job, *job.data.test_source(), DataSplit::test);
  DataFacts data = DataFacts::of(*test);
  data.exact_classes = false;  // the training data may have had more
  const LoadedModel loaded = LoadedModel::open(job, checkpoint, {.data = data, .layers = &layers});
  warn(loaded.warnings());
  const Model& model = loaded.model();
  Evaluator evaluator(job, model, *test);
  loaded.bind(evaluator.executor());
  const EvalReport report = evaluator.run(0, 1);
  const EvaluationSpec spec = model.evaluation_spec();
  BatchSums sums;
  std::vector<double> reals;
  for (std::size_t i = 0; i < report.sums.size(); ++i) {
    sums += report.sums[i];
    merge_reals(spec, reals, report.reals[i]);
  }
  std::string text = fmt::format("{} (step {})\n  test {:<9}{}\n  loss          {}\n", loaded.path(),
                                 loaded.step(), model.targets_per_sample > 1 ? "words" : "samples",
                                 sums.samples, figure(sums.loss / sums.total()));
  for (const MetricValue& v : metric_values(spec, sums, report.counts, reals, report.scores)) {
    text += v.matrix.empty() && v.note.empty() ? fmt::format("  {:<13} {}\n", v.name, figure(v.value))
                                               : "  " + to_text(v) + "\n";
  }
  if (const auto unknown = test->unknown_words(); unknown.n > 0)
    text += fmt::format("  unknown words {} of {}\n", unknown.n, unknown.of);
  print_result(text);
}

}  // namespace varscope
