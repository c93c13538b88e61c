#include "launch/commands/evaluate.h"

#include <cblas.h>

#include "checkpoint/restore/reader.h"
#include "common/base/error.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/job_setup.h"
#include "launch/job/start_values.h"
#include "launch/observe/output.h"
#include "worker/layers/model.h"
#include "worker/train/evaluator.h"

namespace varscope {
void evaluate_checkpoint(const std::string& config, const std::vector<std::string>& overrides,
                         const std::string& checkpoint, const LayerRegistry& layers) {
  const JobConfig job = load_config(config, overrides);
  if (!job.data.test)
    fail(ErrorKind::config, "{}: data.test is missing: there is nothing to evaluate on", config);
  openblas_set_num_threads(static_cast<int>(job.cluster.blas_threads));
  PosixFs fs;
  CheckpointReader reader =
      CheckpointReader::open(fs, checkpoint_at(fs, checkpoint.empty() ? job.checkpoint_dir() : checkpoint));
  const auto test = load_dataset(job, *job.data.test, DataSplit::test);
  VariableStore store;
  DataFacts data = DataFacts::of(*test);
  data.exact_classes = false;                               // the training data may have had more
  build_model(store, job, data, GraphMode::train, layers);  // makes the variables
  const Model model = build_model(store, job, data, GraphMode::evaluate, layers);
  const CheckpointNames names = checkpoint_names(job, store.table());
  refuse(reader.path(), "the model",
         plan_values(reader.manifest(), names.in_checkpoint(store.table()))
             .problems(RestorePlan::Extra::include),
         "nothing was evaluated; use the config it was made with");

  Evaluator evaluator(job, model, *test);
  std::vector<Tensor> values;
  for (const Variable* v : store.collection(collections::kGlobal)) {
    values.emplace_back(v->dtype(), v->shape());
    const std::vector<std::int64_t> zeros(v->shape().rank(), 0);
    reader.read(names.in_checkpoint(v->spec()), "", Slice{v->shape(), Shape(zeros), v->shape()},
                values.back().view());
    evaluator.executor().bind(*v, values.back().view());
  }
  const EvalReport report = evaluator.run(0, 1);
  BatchSums sums;
  std::vector<double> reals;
  for (std::size_t i = 0; i < report.sums.size(); ++i) {
    sums += report.sums[i];
    reals.resize(report.reals[i].size(), 0);
    for (std::size_t k = 0; k < reals.size(); ++k) reals[k] += report.reals[i][k];
  }
  std::string text = fmt::format("{} (step {})\n  test {:<9}{}\n  loss          {:.4f}\n", reader.path(),
                                 reader.manifest().step, model.targets_per_sample > 1 ? "words" : "samples",
                                 sums.samples, sums.loss / static_cast<double>(sums.samples));
  for (const MetricValue& v : finish_metrics(model.eval_facts(), sums, report.counts, reals)) {
    text += v.matrix.empty() ? fmt::format("  {:<13} {:.4f}\n", v.name, v.value) : "  " + to_text(v) + "\n";
  }
  print_result(text);
}

}  // namespace varscope
