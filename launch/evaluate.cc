#include "launch/evaluate.h"

#include <cblas.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "checkpoint/reader.h"
#include "common/error.h"
#include "launch/job_setup.h"
#include "worker/graph/executor.h"
#include "worker/layers/model.h"

namespace varscope {
namespace {

std::string find_checkpoint(Fs& fs, const JobConfig& job, const std::string& asked) {
  const std::string path = asked.empty() ? job.checkpoint_dir() : asked;
  if (fs.exists(path + "/" + kManifestName)) return path;
  return newest_checkpoint(fs, path).path;
}

std::vector<std::int64_t> batch_dims(const Shape& sample, std::int64_t n) {
  std::vector<std::int64_t> dims{n};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return dims;
}

}  // namespace

void evaluate_checkpoint(const std::string& config, const std::vector<std::string>& overrides,
                         const std::string& checkpoint) {
  const JobConfig job = load_config(config, overrides);
  if (!job.data.test)
    fail(ErrorKind::config, "{}: data.test is missing: there is nothing to evaluate on", config);
  openblas_set_num_threads(static_cast<int>(job.cluster.blas_threads));
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, find_checkpoint(fs, job, checkpoint));
  const auto test = load_dataset(job, *job.data.test, DataSplit::test);
  VariableStore store;
  const Model model = build_model(store, job, test->sample_shape(), test->n_classes());
  reader.check_model(store.table(), reader.manifest().slots, reader.manifest().optimizer);

  const std::int64_t size = std::min(job.train.eval_batch, test->size());
  Executor executor(model.graph, model.loss, size, {.also = {model.correct}, .forward_only = true});
  std::vector<Tensor> values;
  for (const Variable* v : store.collection(collections::kGlobal)) {
    values.emplace_back(v->dtype(), v->shape());
    const std::vector<std::int64_t> zeros(v->shape().rank(), 0);
    reader.read(v->spec(), "", Slice{v->shape(), Shape(zeros), v->shape()}, values.back().view());
    executor.bind(*v, values.back().view());
  }
  const Tensor x(job.model.dtype, Shape(batch_dims(test->sample_shape(), size)));
  const Tensor y(Dataset::kLabelDType, Shape{size});
  double loss = 0;
  std::int64_t correct = 0;
  for (std::int64_t begin = 0; begin < test->size(); begin += size) {
    const std::int64_t n = std::min(size, test->size() - begin);
    std::vector<std::int64_t> indices(static_cast<std::size_t>(n));
    std::iota(indices.begin(), indices.end(), begin);
    const TensorView bx(x.dtype(), Shape(batch_dims(test->sample_shape(), n)), x.view().bytes());
    const TensorView by(y.dtype(), Shape{n}, y.view().bytes());
    test->fill(indices, bx, by);
    executor.set_batch(n);
    executor.feed(model.x, bx);
    executor.feed(model.y, by);
    for (const auto& step : executor.forward_steps()) executor.forward(step);
    loss += executor.value(model.loss).as<double>()[0];
    correct += executor.value(model.correct).as<std::int64_t>()[0];
  }
  const auto n = static_cast<double>(test->size());
  std::fputs(fmt::format("{} (step {})\n  test samples  {}\n  loss          {:.4f}\n  accuracy      {:.4f}\n",
                         reader.path(), reader.manifest().step, test->size(), loss / n,
                         static_cast<double>(correct) / n)
                 .c_str(),
             stdout);
}

}  // namespace varscope
