#include "launch/commands/evaluate.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/figures.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/job_setup.h"
#include "launch/job/loaded_model.h"
#include "launch/job/run_differences.h"
#include "launch/job/saved_model.h"
#include "launch/observe/metrics_file.h"
#include "launch/observe/output.h"
#include "launch/observe/run_records.h"
#include "worker/data/find_files.h"
#include "worker/kernels/blas.h"
#include "worker/train/evaluator.h"

namespace varscope {
namespace {

namespace fs = std::filesystem;

// What to evaluate, and on what.
struct Evaluated {
  JobConfig job;
  std::string checkpoint = {};
  std::unique_ptr<Dataset> test = {};
  DataFacts facts = {};
};

void require_test(const JobConfig& job) {
  if (job.data.test_source() == nullptr)
    fail(ErrorKind::config, "{}: data.test is missing: there is nothing to evaluate on", job.file);
}

Evaluated of_config(const EvaluateOptions& options) {
  Evaluated e{.job = load_config(options.path, options.overrides), .checkpoint = options.checkpoint};
  require_test(e.job);
  e.test = load_dataset(e.job, *e.job.data.test_source(), DataSplit::test);
  e.facts = DataFacts::of(*e.test);
  e.facts.exact_classes = false;  // the training data may have had more
  return e;
}

// The job.yaml of the run that a directory or checkpoint belongs to.
fs::path record_of(const std::string& path) {
  fs::path folder = fs::absolute(path).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  for (int i = 0; i < 3; ++i, folder = folder.parent_path()) {
    if (fs::exists(folder / RunRecords::kJob)) return folder / RunRecords::kJob;
  }
  return {};
}

void warn_of_differences(const std::string& file, std::vector<std::string> lines) {
  for (std::string& line : lines) line = fmt::format("{}: {}; what was trained is evaluated", file, line);
  warn(lines);
}

// What the config that the run was started with says by now.
void compare_with_config(const RecordedJob& record, const ComparedRun& run) {
  if (record.config.empty() || !fs::exists(record.config)) return;
  try {
    const JobConfig now = load_config(record.config, record.overrides);
    std::vector<std::string> lines = config_differences(run.config, now, ConfigPart::model);
    for (std::string& line : config_differences(run.config, now, ConfigPart::data))
      lines.push_back(std::move(line));
    warn_of_differences(record.config, std::move(lines));
  } catch (const Error& e) {
    warn({fmt::format("the config of the run cannot be read any more: {}; what was trained is evaluated",
                      e.what())});
  }
}

Evaluated of_run(const EvaluateOptions& options) {
  const fs::path file = record_of(options.path);
  if (file.empty()) {
    fail(
        ErrorKind::config,
        "{}: there is no {} that says what to evaluate on; name the config: varscope eval CONFIG --checkpoint {}",
        options.path, RunRecords::kJob, options.path);
  }
  Evaluated e{.job = load_config(file.string(), options.overrides)};
  require_test(e.job);
  // What --set names is here; the record names the files of the run with their folders.
  if (e.job.data.test)
    e.job.data.test = find_files(*e.job.data.test, std::vector{fs::current_path()}, MissingFile::stays);
  PosixFs real;
  const bool is_run = fs::absolute(options.path).lexically_normal() == file.parent_path() ||
                      fs::absolute(options.path).lexically_normal() == file.parent_path() / "";
  e.checkpoint = !options.checkpoint.empty()                                 ? options.checkpoint
                 : !is_run || fs::exists(file.parent_path() / "checkpoints") ? options.path
                                                                             : e.job.checkpoint_dir();
  FoundCheckpoint found = find_checkpoint(real, e.checkpoint);
  warn(found.warnings);
  e.checkpoint = found.path;
  const Manifest manifest = found.manifest ? *found.manifest : load_manifest(real, found.path).manifest;
  const std::optional<SavedModel> saved = saved_model(manifest);
  const std::optional<ComparedRun> run = compared_run(manifest);
  if (!saved || !run) {
    fail(
        ErrorKind::checkpoint,
        "checkpoint {} does not say what model it is of (an older version has written it, or no run); name the "
        "config: varscope eval CONFIG --checkpoint {}",
        found.path, found.path);
  }
  warn_of_differences(file.string(), config_differences(run->config, e.job, ConfigPart::model));
  std::ifstream in(file);
  compare_with_config(read_recorded_job({std::istreambuf_iterator<char>(in), {}}), *run);
  e.job.model = saved->job.model;
  e.test = load_dataset(e.job, *e.job.data.test_source(), DataSplit::test, saved->schema);
  e.facts = saved->facts;
  e.facts.vocabulary = DataFacts::of(*e.test).vocabulary;
  check_test_data(e.job, e.facts, DataFacts::of(*e.test));
  return e;
}

nlohmann::ordered_json json_of(const LoadedModel& loaded, const BatchSums& sums,
                               const std::vector<MetricValue>& metrics, const char* unit) {
  nlohmann::ordered_json json{{"checkpoint", loaded.path()},
                              {"step", loaded.step()},
                              {unit, sums.samples},
                              {"loss", sums.loss / sums.total()}};
  for (const MetricValue& v : metrics) {
    if (v.matrix.empty()) {
      json[v.name] = v.value;
      continue;
    }
    const auto k = static_cast<std::size_t>(std::llround(std::sqrt(static_cast<double>(v.matrix.size()))));
    json[v.name] = nlohmann::ordered_json::array();
    for (std::size_t row = 0; row < k; ++row)
      json[v.name].push_back(nlohmann::ordered_json(counts_as_json(std::span(v.matrix).subspan(row * k, k))));
  }
  return json;
}

}  // namespace

void evaluate_checkpoint(const EvaluateOptions& options, const LayerRegistry& layers) {
  std::error_code ignored;
  const Evaluated e = fs::is_directory(options.path, ignored) ? of_run(options) : of_config(options);
  set_blas_threads(static_cast<int>(e.job.cluster.blas_threads));
  const LoadedModel loaded = LoadedModel::open(e.job, e.checkpoint, {.data = e.facts, .layers = &layers});
  warn(loaded.warnings());
  const Model& model = loaded.model();
  Evaluator evaluator(e.job, model, *e.test);
  loaded.bind(evaluator.executor());
  evaluator.set_rows(loaded.rows());
  const EvalReport report = evaluator.run(0, 1);
  const EvaluationSpec spec = model.evaluation_spec();
  BatchSums sums;
  std::vector<double> reals;
  for (std::size_t i = 0; i < report.sums.size(); ++i) {
    sums += report.sums[i];
    merge_reals(spec, reals, report.reals[i]);
  }
  const char* unit = model.targets_per_sample > 1 ? "words" : "samples";
  const std::vector<MetricValue> metrics = metric_values(spec, sums, report.counts, reals, report.scores);
  if (options.json) return print_result(json_of(loaded, sums, metrics, unit).dump() + "\n");
  std::string text = fmt::format("{} (step {})\n  test {:<9}{}\n  loss          {}\n", loaded.path(),
                                 loaded.step(), unit, sums.samples, figure(sums.loss / sums.total()));
  for (const MetricValue& v : metrics) {
    text += v.matrix.empty() && v.note.empty() ? fmt::format("  {:<13} {}\n", v.name, figure(v.value))
                                               : "  " + to_text(v) + "\n";
  }
  if (const auto unknown = e.test->unknown_words(); unknown.n > 0)
    text += fmt::format("  unknown words {} of {}\n", unknown.n, unknown.of);
  print_result(text);
}

}  // namespace varscope
