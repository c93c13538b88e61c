#include "launch/job/check_config.h"

#include <algorithm>
#include <optional>
#include <set>

#include "common/base/error.h"
#include "launch/job/job_setup.h"
#include "launch/job/job_warnings.h"
#include "launch/job/start_values.h"
#include "ps/update/optimizer.h"
#include "worker/data/dataset_factory.h"
#include "worker/data/order.h"
#include "worker/train/trainer.h"

namespace varscope {
namespace {

// What the samples of a source look like; images of files are taken to be of `image`. The classes of files
// may be fewer than the model's.
DataFacts facts_without_data(const JobConfig& job, const DataSourceConfig& source, const Shape& image) {
  DataFacts facts;
  switch (source.type) {
    case DataType::digits:
      facts = {.sample_shape = Shape{source.size, source.size}, .n_classes = 10};
      break;
    case DataType::fashion_mnist:
      facts = {.sample_shape = Shape{28, 28}, .n_classes = 10, .exact_classes = false};
      break;
    case DataType::idx:
      facts = {.sample_shape = image, .n_classes = 1, .exact_classes = false};
      break;
    case DataType::text:
      return {.sample_shape = Shape{source.steps},
              .n_classes = source.vocabulary,
              .features = Features::ids,
              .label_shape = Shape{source.steps}};
  }
  // Those of data.train hold for data.test, too.
  const std::int64_t classes = source.classes > 0 ? source.classes : job.data.train.classes;
  if (!facts.exact_classes && classes > 0) {
    facts.n_classes = classes;
    facts.exact_classes = true;
  }
  const auto weights = static_cast<std::int64_t>(job.model.loss.class_weights.size());
  if (!facts.exact_classes) facts.n_classes = std::max(facts.n_classes, weights);
  if (!source.pairs) return facts;
  std::vector<std::int64_t> dims{2};
  dims.insert(dims.end(), facts.sample_shape.dims().begin(), facts.sample_shape.dims().end());
  return {.sample_shape = Shape(std::move(dims)), .n_classes = 2};
}

// Both graphs, and what follows from their variables.
std::vector<std::string> check_model(const JobConfig& job, const LayerRegistry& layers, const Shape& image) {
  WorkerModel model;
  const DataFacts train = facts_without_data(job, job.data.train, image);
  if (job.data.test) {
    check_test_source(job);
    // Whether the shapes of two files are alike, only the files can tell.
    if ((job.data.train.type == DataType::idx) == (job.data.test->type == DataType::idx))
      check_test_data(job, train, facts_without_data(job, *job.data.test, image));
  }
  build_worker_model(model, job, train, layers);
  if (job.data.test)
    check_test_classes(job, model.model, train, facts_without_data(job, *job.data.test, image));
  checkpoint_names(job, model.table);
  if (job.cluster.logical_workers > 0)
    check_statistics(model.model.graph, job.train.batch, job.cluster.logical_workers);
  return std::move(model.warnings);
}

// Shapes of images that files may have. A model that fits one of them may be right; what is wrong in the same
// words for all of them, is wrong.
std::vector<std::string> check_model_for_some_shape(const JobConfig& job, const LayerRegistry& layers) {
  std::set<std::string> messages;
  std::optional<Error> first;
  for (const Shape& image :
       {Shape{28, 28}, Shape{32, 32}, Shape{16, 16}, Shape{64, 64}, Shape{224, 224}, Shape{8, 8}}) {
    try {
      return check_model(job, layers, image);
    } catch (const Error& e) {
      messages.insert(e.what());
      if (!first) first = e;
    }
  }
  if (messages.size() == 1) throw *first;
  return {};
}

}  // namespace

std::vector<std::string> check_without_data(const JobConfig& job, const LayerRegistry& layers) {
  const Optimizer optimizer(job.optimizer);  // throws for what does not go together
  check_warm_start_map(job);
  const bool from_files = job.data.train.type == DataType::idx;
  std::vector<std::string> warnings =
      from_files ? check_model_for_some_shape(job, layers) : check_model(job, layers, {});
  for (std::string& w : worker_warnings(job, job.cluster.logical_workers)) warnings.push_back(std::move(w));
  for (std::string& w : output_warnings(job)) warnings.push_back(std::move(w));
  if (job.data.train.type != DataType::digits) return warnings;
  last_step(job, steps_per_epoch(job.data.train.samples, job.train.batch));
  for (std::string& w : batch_warnings(job, job.data.train.samples)) warnings.push_back(std::move(w));
  return warnings;
}

}  // namespace varscope
