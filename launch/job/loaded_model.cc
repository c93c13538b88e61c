#include "launch/job/loaded_model.h"

#include <utility>

#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/restore_plan.h"
#include "common/base/finite.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/job_setup.h"
#include "launch/job/run_differences.h"
#include "launch/job/start_values.h"
#include "launch/job/table_rows.h"

namespace varscope {

// The order is that of making: the graph borrows variables of the store, the session borrows the graph.
struct LoadedModel::Parts {
  JobConfig job;
  VariableStore store;
  Model model;
  PosixFs real;
  std::unique_ptr<RowReader> rows;  // of tables, out of the checkpoint
  std::optional<Session> session;
  std::string path;
  std::int64_t step = 0;
  std::vector<std::string> warnings;

  std::uint64_t seed() const { return static_cast<std::uint64_t>(job.job.seed); }
  DataFacts data;

  void build(const Options& options);
  void read(Fs& fs, const std::string& checkpoint);
  void compare_run(const Manifest& manifest, std::vector<std::string>& problems);
};

void LoadedModel::Parts::build(const Options& options) {
  const LayerRegistry built_in = options.layers == nullptr ? LayerRegistry::built_in() : LayerRegistry();
  const LayerRegistry& layers = options.layers == nullptr ? built_in : *options.layers;
  data = options.data ? *options.data : DataFacts::of(*load_dataset(job, job.data.train, DataSplit::train));
  model = build_model(store, job, data, GraphMode::train, layers);
  if (options.mode == GraphMode::evaluate) model = build_model(store, job, data, GraphMode::evaluate, layers);
}

void LoadedModel::Parts::read(Fs& fs, const std::string& checkpoint) {
  FoundCheckpoint found = find_checkpoint(fs, checkpoint.empty() ? job.checkpoint_dir() : checkpoint);
  warnings = std::move(found.warnings);
  CheckpointReader reader = CheckpointReader::open(fs, std::move(found));
  path = reader.path();
  step = reader.manifest().step;
  const CheckpointNames names = checkpoint_names(job, store.table());
  std::vector<std::string> problems = plan_values(reader.manifest(), names.in_checkpoint(store.table()))
                                          .problems(RestorePlan::Extra::include);
  compare_run(reader.manifest(), problems);
  refuse(path, "the model", problems, "nothing was loaded; use the config it was made with, and its data");
  std::vector<NotFiniteTensor> not_finite;
  session.emplace(model.graph, seed(), [&](const Variable& v, const TensorView& out) {
    const Shape start(std::vector<std::int64_t>(v.shape().rank(), 0));
    reader.read(names.in_checkpoint(v.spec()), "", Slice{v.shape(), start, v.shape()}, out);
    const std::span<const std::byte> bytes(out.bytes(), out.n_bytes());
    if (const auto first = find_not_finite(v.dtype(), bytes))
      not_finite.push_back({v.name(), "", count_not_finite(v.dtype(), bytes), first->element, first->what});
  });
  if (!model.graph.lookups().empty()) {
    rows = std::make_unique<TableRows>(std::move(reader), names, seed());
    session->set_rows(*rows);
  }
  if (!not_finite.empty())
    warnings.push_back(
        fmt::format("checkpoint {} is not finite: {}", path, not_finite_text(not_finite, store.table())));
}

// With the run that made the checkpoint. Of the data, what a model means by ids; others may be evaluated.
void LoadedModel::Parts::compare_run(const Manifest& manifest, std::vector<std::string>& problems) {
  const std::optional<ComparedRun> run = compared_run(manifest);
  if (!run) return;
  if (run->train.is_known() && data.vocabulary != Digest() && run->train.vocabulary != data.vocabulary) {
    problems.push_back(fmt::format(
        "data.train: another vocabulary than in the checkpoint's run, so that ids mean other words (XXH3 {}, then {})",
        data.vocabulary.hex(), run->train.vocabulary.hex()));
  }
  for (const std::string& line : config_differences(run->config, job, ConfigPart::model))
    warnings.push_back(line + "; the values are of another model");
}

LoadedModel LoadedModel::open(JobConfig job, const std::string& checkpoint, const Options& options) {
  auto parts = std::make_unique<Parts>();
  parts->job = std::move(job);
  parts->build(options);
  parts->read(options.fs != nullptr ? *options.fs : parts->real, checkpoint);
  return LoadedModel(std::move(parts));
}

LoadedModel LoadedModel::initial(JobConfig job, const Options& options) {
  auto parts = std::make_unique<Parts>();
  parts->job = std::move(job);
  parts->build(options);
  parts->session.emplace(parts->model.graph, parts->seed());
  return LoadedModel(std::move(parts));
}

LoadedModel::LoadedModel(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
LoadedModel::LoadedModel(LoadedModel&&) noexcept = default;
LoadedModel& LoadedModel::operator=(LoadedModel&&) noexcept = default;
LoadedModel::~LoadedModel() = default;

const JobConfig& LoadedModel::job() const { return parts_->job; }
const Model& LoadedModel::model() const { return parts_->model; }
const VariableStore& LoadedModel::store() const { return parts_->store; }
Session& LoadedModel::session() { return *parts_->session; }
RowReader& LoadedModel::rows() const { return parts_->session->rows(); }
const std::string& LoadedModel::path() const { return parts_->path; }
std::int64_t LoadedModel::step() const { return parts_->step; }
const std::vector<std::string>& LoadedModel::warnings() const { return parts_->warnings; }

void LoadedModel::bind(Executor& executor) const {
  for (const Variable* v : parts_->model.graph.variables()) {
    if (!v->is_local() && !v->spec().is_table()) executor.bind(*v, parts_->session->value(*v));
  }
}

}  // namespace varscope
