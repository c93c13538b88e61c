#include "launch/job/check_config.h"

#include <algorithm>
#include <optional>
#include <set>

#include "common/base/error.h"
#include "launch/job/job_setup.h"
#include "launch/job/job_warnings.h"
#include "launch/job/start_values.h"
#include "launch/job/step_rules.h"
#include "ps/update/optimizer.h"
#include "worker/data/click_data.h"
#include "worker/data/order.h"
#include "worker/data/source_registry.h"
#include "worker/data/synthetic.h"
#include "worker/layers/table_keys.h"
#include "worker/train/trainer.h"

namespace varscope {
namespace {

Shape pair_of(const Shape& sample) {
  std::vector<std::int64_t> dims{2};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return Shape(std::move(dims));
}

// Of files with images that are taken to be of `image`; their classes may be fewer than the model's.
DataFacts facts_of_files(const JobConfig& job, std::int64_t classes, const Shape& image, std::int64_t least) {
  const auto weights = static_cast<std::int64_t>(job.model.loss.class_weights.size());
  // Those of data.train hold for data.test, too.
  if (const auto* train = job.data.train.get<IdxSource>(); classes == 0 && train != nullptr)
    classes = train->classes;
  if (const auto* train = job.data.train.get<FashionMnistSource>(); classes == 0 && train != nullptr)
    classes = train->classes;
  return {.sample_shape = image,
          .n_classes = classes > 0 ? classes : std::max(least, weights),
          .exact_classes = classes > 0};
}

// What the samples of a source look like, as far as the config tells; images of files are taken to be of
// `image`. Nothing where only the data can tell.
std::optional<DataFacts> facts_without_data(const JobConfig& job, const DataSourceConfig& source,
                                            const Shape& image) {
  DataFacts facts;
  bool pairs = false;
  if (const auto* digits = source.get<DigitsSource>()) {
    facts = {.sample_shape = Shape{digits->size, digits->size}, .n_classes = 10};
    pairs = digits->pairs.pairs;
  } else if (const auto* synthetic = source.get<SyntheticSource>()) {
    if (synthetic->generate == Generator::friedman1) {
      facts = {.sample_shape = Shape{Friedman1Dataset::kFeatures},
               .label_shape = Shape{1},
               .target = Target::numbers};
    } else if (synthetic->generate == Generator::colour_shapes) {
      facts = {.sample_shape = Shape{synthetic->size, synthetic->size, 3}, .n_classes = 9};
    } else {
      facts = DataFacts::of(ClickDataset({.features = synthetic->features,
                                          .vocabulary = synthetic->vocabulary,
                                          .exponent = synthetic->exponent,
                                          .numbers = synthetic->numbers},
                                         DataSplit::train));
    }
  } else if (const auto* fashion = source.get<FashionMnistSource>()) {
    facts = facts_of_files(job, fashion->classes, Shape{28, 28}, 10);
    pairs = fashion->pairs.pairs;
  } else if (const auto* idx = source.get<IdxSource>()) {
    if (job.data.train.predicts_numbers()) return std::nullopt;
    facts = facts_of_files(job, idx->classes, image, 1);
    pairs = idx->pairs.pairs;
  } else if (const auto* text = source.get<TextSource>()) {
    facts = {.sample_shape = Shape{text->steps},
             .n_classes = text->vocabulary,
             .features = Features::ids,
             .label_shape = Shape{text->steps}};
  } else {
    return std::nullopt;
  }
  if (pairs) return DataFacts{.sample_shape = pair_of(facts.sample_shape), .n_classes = 2};
  return facts;
}

bool is_idx(const DataSourceConfig& source) { return source.get<IdxSource>() != nullptr; }

// Where the model cannot be built: the keys of each layer by themselves. Blocks that repeat have texts for
// numbers.
void check_layer_keys(const ConfigNode& list, const std::string& file, const std::string& path,
                      const LayerRegistry& layers) {
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    const ConfigNode& item = list.items[i];
    const std::string here = join_keys(path, std::to_string(i));
    if (const ConfigNode* inner = item.find("layers"); inner != nullptr) {
      if (item.find("repeat") == nullptr) check_layer_keys(*inner, file, join_keys(here, "layers"), layers);
      continue;
    }
    if (item.find("type") == nullptr) continue;  // a block that is built again
    const LayerType& type = layers.find(item, file, here);
    if (!type.describe) continue;
    bind_node(item, file, here, type.describe, kCommonLayerKeys);
    const ConfigNode* table = item.find("table");
    const std::string of_table = join_keys(here, "table");
    if (table != nullptr && table->is_map())
      bind_keys<TableKeys>(*table, file, of_table).check(*table, file, of_table);
  }
}

// Both graphs, and what follows from their variables.
std::vector<std::string> check_model(const JobConfig& job, const LayerRegistry& layers, const Shape& image) {
  WorkerModel model;
  check_sources(job);
  const std::optional<DataFacts> train = facts_without_data(job, job.data.train, image);
  if (!train) {
    check_layer_keys(job.model.layers, job.file, "model.layers", layers);
    return {};
  }
  std::optional<DataFacts> test;
  const DataSourceConfig* test_source = job.data.test_source();
  if (test_source != nullptr) test = facts_without_data(job, *test_source, image);
  // Whether the shapes of two files are alike, only the files can tell.
  if (test && is_idx(job.data.train) == is_idx(*test_source)) check_test_data(job, *train, *test);
  build_worker_model(model, job, *train, layers);
  // Of all sources a text alone goes on from step to step.
  check_rule_of_model(job, model.model.graph, job.data.train.get<TextSource>() != nullptr);
  if (test) check_test_classes(job, model.model, *train, *test);
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
       {Shape{28, 28}, Shape{32, 32}, Shape{16, 16}, Shape{64, 64}, Shape{224, 224}, Shape{8, 8},
        Shape{32, 32, 3}, Shape{224, 224, 3}, Shape{64, 64, 1}, Shape{16}}) {
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
  const bool from_files = is_idx(job.data.train);
  std::vector<std::string> warnings =
      from_files ? check_model_for_some_shape(job, layers) : check_model(job, layers, {});
  for (std::string& w : worker_warnings(job, job.cluster.logical_workers)) warnings.push_back(std::move(w));
  for (std::string& w : output_warnings(job)) warnings.push_back(std::move(w));
  const auto* digits = job.data.train.get<DigitsSource>();
  if (digits == nullptr) return warnings;
  last_step(job, steps_per_epoch(digits->samples, job.train.batch));
  for (std::string& w : batch_warnings(job, digits->samples)) warnings.push_back(std::move(w));
  return warnings;
}

}  // namespace varscope
