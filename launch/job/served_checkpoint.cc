#include "launch/job/served_checkpoint.h"

#include <utility>

#include "common/base/error.h"
#include "launch/job/job_setup.h"
#include "launch/job/loaded_model.h"
#include "launch/job/saved_model.h"
#include "launch/job/start_values.h"
#include "ps/coordinator_state.h"
#include "serve/engine/resident_rows.h"
#include "worker/data/skipgram.h"
#include "worker/data/source_registry.h"
#include "worker/data/text.h"

namespace varscope {
namespace {

// Images of other sources than arrays are bytes, divided by 255.
std::vector<ArrayInput> arrays_of(const SavedModel& model) {
  if (model.schema.empty()) {
    const bool is_of_numbers = model.facts.features == Features::real && model.facts.named_inputs.size() == 1;
    if (!is_of_numbers || model.facts.sample_shape.rank() < 2) return {};
    return {{.shape = model.facts.sample_shape, .scale = {1, 255}}};
  }
  return array_schema_from_json(model.schema).inputs;
}

ServableSchema schema_of(const SavedModel& model, const Model& graph) {
  ServableSchema schema;
  schema.spec = {model.facts.inputs(), model.facts.target, model.facts.label_shape, false};
  schema.dtype = model.job.model.dtype;
  const DataSourceConfig& train = model.job.data.train;
  if (const auto* libsvm = train.get<LibsvmSource>(); libsvm != nullptr && libsvm->bags)
    fail(ErrorKind::checkpoint,
         "its data are bags of libsvm, whose rows no request can have: `varscope predict` answers them; "
         "bags that are columns of a csv are served");
  const bool is_text = train.get<TextSource>() != nullptr;
  if (is_text || train.get<SkipgramSource>() != nullptr) {
    schema.vocabulary = vocabulary_from_schema(model.schema);
    schema.names = is_text ? schema.vocabulary : std::vector<std::string>();
  } else if (is_table(train)) {
    schema.table = schema_from_json(model.schema);
  } else {
    schema.arrays = arrays_of(model);
  }
  const LossType loss = model.job.model.loss.type;
  if (graph.correct && loss == LossType::sigmoid_cross_entropy)
    schema.answers = ServableSchema::Answers::sigmoid;
  if (graph.correct && loss == LossType::softmax_cross_entropy)
    schema.answers = ServableSchema::Answers::softmax;
  if (!model.class_names.empty()) schema.names = model.class_names;
  return schema;
}

class ServedCheckpoint final : public Servable {
 public:
  ServedCheckpoint(Fs& fs, const FoundCheckpoint& found, const SavedModel& saved, const LayerRegistry& layers)
      : loaded_(
            LoadedModel::open(saved.job, found.path, {.data = saved.facts, .layers = &layers, .fs = &fs})),
        schema_(schema_of(saved, loaded_.model())) {
    for (const Variable* v : loaded_.model().graph.variables()) {
      if (v->is_local()) continue;
      if (!v->spec().is_table()) {
        n_bytes_ += static_cast<std::size_t>(v->shape().n_elements()) * size_of(v->dtype());
        continue;
      }
      load_rows(fs, found, saved.job, *v);
    }
    n_bytes_ += static_cast<std::size_t>(rows_.n_bytes());
  }

  const Model& model() const override { return loaded_.model(); }
  const ServableSchema& schema() const override { return schema_; }
  void bind(Executor& executor) const override { loaded_.bind(executor); }
  RowReader* rows() const override { return has_rows_ ? &rows_ : nullptr; }
  std::int64_t n_bytes() const override { return static_cast<std::int64_t>(n_bytes_); }

 private:
  void load_rows(Fs& fs, const FoundCheckpoint& found, const JobConfig& job, const Variable& table) {
    has_rows_ = true;
    CheckpointReader reader = CheckpointReader::open(fs, found);
    const std::string& state = reader.manifest().coordinator_state;
    const std::uint64_t seed =
        static_cast<std::uint64_t>(state.empty() ? job.job.seed : from_manifest_text(state).seed);
    const CheckpointNames names = checkpoint_names(job, loaded_.store().table());
    rows_.load(reader, table, names.in_checkpoint(table.spec()).name, seed);
  }

  LoadedModel loaded_;
  ServableSchema schema_;
  mutable ResidentRows rows_;  // reading changes nothing
  bool has_rows_ = false;
  std::size_t n_bytes_ = 0;
};

SavedModel model_by_config(const std::string& config, const std::vector<std::string>& overrides) {
  SavedModel model;
  model.job = load_config(config, overrides);
  const auto train = load_dataset(model.job, model.job.data.train, DataSplit::train);
  model.facts = DataFacts::of(*train);
  model.schema = train->schema();
  model.class_names = train->class_names();
  return model;
}

}  // namespace

LoadServable servable_loader(Fs& fs, const std::string& config, const LayerRegistry& layers,
                             const std::vector<std::string>& overrides) {
  std::optional<SavedModel> by_config;
  if (!config.empty()) by_config = model_by_config(config, overrides);
  return [&fs, &layers,
          by_config = std::move(by_config)](const FoundCheckpoint& found) -> std::shared_ptr<const Servable> {
    const Manifest manifest = found.manifest ? *found.manifest : load_manifest(fs, found.path).manifest;
    std::optional<SavedModel> model = by_config ? by_config : saved_model(manifest);
    if (!model)
      fail(
          ErrorKind::checkpoint,
          "checkpoint {} does not say what model it is of (an older version has written it, or no run): name the "
          "config behind it: varscope serve DIR CONFIG",
          found.path);
    if (model->facts.named_inputs.empty()) model->facts.named_inputs = model->facts.inputs();
    return std::make_shared<const ServedCheckpoint>(fs, found, *model, layers);
  };
}

}  // namespace varscope
