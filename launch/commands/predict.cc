#include "launch/commands/predict.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include <nlohmann/json.hpp>

#include "checkpoint/storage/atomic_file.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/figures.h"
#include "common/base/text.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/job_setup.h"
#include "launch/job/loaded_model.h"
#include "launch/job/saved_model.h"
#include "launch/observe/output.h"
#include "worker/data/csv.h"
#include "worker/data/csv_reader.h"
#include "worker/data/row_streams.h"
#include "worker/data/table_schema.h"
#include "worker/kernels/blas.h"
#include "worker/train/evaluator.h"
#include "worker/train/predictor.h"

namespace varscope {
namespace {

enum class Output : std::uint8_t { classes, probabilities, logits, values };
constexpr Choice<Output> kOutputs[] = {{Output::classes, "classes"},
                                       {Output::probabilities, "probabilities"},
                                       {Output::logits, "logits"},
                                       {Output::values, "values"}};

SavedModel model_of(const PredictOptions& options, const std::string& path, const Manifest& manifest) {
  std::optional<SavedModel> saved = saved_model(manifest);
  if (!options.config.empty()) {
    SavedModel model;
    model.job = load_config(options.config, options.overrides);
    const auto train = load_dataset(model.job, model.job.data.train, DataSplit::train);
    model.facts = DataFacts::of(*train);
    model.schema = train->schema();
    model.class_names = train->class_names();
    return model;
  }
  if (!options.overrides.empty())
    fail(ErrorKind::config, "--set changes keys of a config: name the config, too");
  if (!saved) {
    fail(
        ErrorKind::checkpoint,
        "checkpoint {} does not say what model it is of (an older version has written it, or no run): name the "
        "config behind it: varscope predict {} CONFIG --in ...",
        path, options.model);
  }
  return std::move(*saved);
}

std::unique_ptr<RowStream> open_input(const SavedModel& model, const std::string& file) {
  if (!std::filesystem::exists(file)) fail(ErrorKind::data, "--in {}: no such file", file);
  const DataSourceConfig& train = model.job.data.train;
  SourceContext context{
      .position = DataSplit::test, .root = {}, .may_lack_labels = true, .schema = model.schema};
  if (const auto* keys = train.get<CsvSource>()) {
    CsvSource source = *keys;
    source.files = ConfigNode::text(std::filesystem::absolute(file).string());
    if (file.ends_with(".tsv") || file.ends_with(".tsv.gz")) source.delimiter = "tab";
    return stream_csv(source, context);
  }
  if (const auto* keys = train.get<LibsvmSource>()) {
    LibsvmSource source = *keys;
    source.files = ConfigNode::text(std::filesystem::absolute(file).string());
    source.weights = ConfigNode();
    return stream_dataset(open_libsvm(source, context));
  }
  if (model.facts.features == Features::real && model.facts.named_inputs.size() == 1 &&
      model.facts.sample_shape.rank() == 2)
    return stream_dataset(open_idx_images(file, model.facts.sample_shape, model.facts.n_classes));
  fail(ErrorKind::config, "models of data of type {} cannot predict from files", train.type());
}

// What the outputs of a row are called, and are.
class Answers {
 public:
  Answers(const SavedModel& model, const Model& graph, std::int64_t n_outputs,
          const std::vector<std::string>& asked)
      : model_(model), n_(static_cast<std::size_t>(n_outputs)) {
    const LossType loss = model.job.model.loss.type;
    is_sigmoid_ = loss == LossType::sigmoid_cross_entropy;
    is_class_ = graph.correct.has_value() && (is_sigmoid_ || loss == LossType::softmax_cross_entropy);
    if (graph.targets_per_sample > 1)
      fail(ErrorKind::config,
           "a model with several labels of a sample (a language model) cannot predict rows");
    choose(asked);
    const std::size_t n_classes = is_sigmoid_ ? 2 : n_;
    for (std::size_t i = 0; is_class_ && i < n_classes; ++i)
      names_.push_back(i < model.class_names.size() ? model.class_names[i] : std::to_string(i));
    if (is_class_) return;
    std::vector<std::string> labels;
    if (!model.schema.empty()) {
      for (const TableColumn& c : schema_from_json(model.schema).label.columns) labels.push_back(c.name);
    }
    for (std::size_t i = 0; i < n_; ++i)
      names_.push_back(labels.size() == n_ ? labels[i] : n_ == 1 ? "value" : "value_" + std::to_string(i));
  }

  std::vector<std::string> header() const {
    std::vector<std::string> names;
    for (const Output o : outputs_) {
      if (o == Output::classes) names.emplace_back("class");
      for (std::size_t i = 0; o == Output::probabilities && i < names_.size(); ++i)
        names.push_back("probability_" + names_[i]);
      for (std::size_t i = 0; o == Output::logits && i < n_; ++i)
        names.push_back(is_sigmoid_ ? "logit" : "logit_" + names_[i]);
      if (o == Output::values) names.insert(names.end(), names_.begin(), names_.end());
    }
    return names;
  }

  // The cells of one row; `row` has its outputs.
  void add(std::span<const double> row, std::vector<std::string>& cells) const {
    const std::vector<double> p = is_class_ ? probabilities(row) : std::vector<double>();
    for (const Output o : outputs_) {
      if (o == Output::classes) cells.push_back(names_[answer(row)]);
      for (std::size_t i = 0; o == Output::probabilities && i < p.size(); ++i) cells.push_back(number(p[i]));
      for (std::size_t i = 0; (o == Output::logits || o == Output::values) && i < row.size(); ++i)
        cells.push_back(number(row[i]));
    }
  }
  std::string number(double x) const {
    return model_.job.model.dtype == DType::float32 ? fmt::format("{}", static_cast<float>(x))
                                                    : fmt::format("{}", x);
  }

 private:
  void choose(const std::vector<std::string>& asked) {
    if (asked.empty()) {
      outputs_ =
          is_class_ ? std::vector{Output::classes, Output::probabilities} : std::vector{Output::values};
      return;
    }
    for (const std::string& name : asked) {
      const auto* found = std::ranges::find_if(kOutputs, [&](const auto& o) { return name == o.name; });
      std::vector<std::string> fitting = is_class_
                                             ? std::vector<std::string>{"classes", "probabilities", "logits"}
                                             : std::vector<std::string>{"values"};
      if (found == std::end(kOutputs) || std::ranges::find(fitting, name) == fitting.end()) {
        fail(ErrorKind::config, "--outputs {}: this model has {}{}", name, comma_list(fitting),
             did_you_mean(name, fitting));
      }
      outputs_.push_back(found->value);
    }
  }
  // As accuracy counts: the first largest logit; of a single one, whether it is above 0.
  std::size_t answer(std::span<const double> row) const {
    if (is_sigmoid_) return row[0] > 0 ? 1 : 0;
    return static_cast<std::size_t>(std::ranges::max_element(row) - row.begin());
  }
  std::vector<double> probabilities(std::span<const double> row) const {
    if (is_sigmoid_) {
      const double p = 1 / (1 + std::exp(-row[0]));
      return {1 / (1 + std::exp(row[0])), p};
    }
    const double greatest = *std::ranges::max_element(row);
    std::vector<double> p;
    double sum = 0;
    for (const double x : row) {
      p.push_back(std::exp(x - greatest));
      sum += p.back();
    }
    for (double& x : p) x /= sum;
    return p;
  }

  const SavedModel& model_;
  std::size_t n_;
  bool is_sigmoid_ = false, is_class_ = false;
  std::vector<Output> outputs_;
  std::vector<std::string> names_;  // of classes, or of values
};

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (const std::string& cell : cells)
    line += (line.empty() && &cell == cells.data() ? "" : ",") + csv_cell(cell);
  return line + "\n";
}

// A number where the cell is one of the model's own.
std::string json_line(const std::vector<std::string>& header, const std::vector<std::string>& cells,
                      std::size_t n_kept) {
  nlohmann::ordered_json line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const bool is_text = i < n_kept || header[i] == "class";
    const std::optional<double> value = is_text ? std::nullopt : number_in(cells[i]);
    line[header[i]] = is_text ? nlohmann::ordered_json(cells[i])
                      : value ? nlohmann::ordered_json::parse(cells[i])
                              : nlohmann::ordered_json(nullptr);
  }
  return line.dump() + "\n";
}

// The sums of the labelled rows, batch by batch as eval adds them up.
struct Sums {
  BatchSums sums;
  std::vector<double> reals;
  std::vector<std::int64_t> counts;
  ScoreCounts scores;
  void add(const EvaluationSpec& spec, const EvalReport& report) {
    for (std::size_t i = 0; i < report.sums.size(); ++i) {
      sums += report.sums[i];
      merge_reals(spec, reals, report.reals[i]);
    }
    counts.resize(report.counts.size(), 0);
    for (std::size_t i = 0; i < report.counts.size(); ++i) counts[i] += report.counts[i];
    scores.merge(report.scores);
  }
};

bool is_json(const PredictOptions& options) {
  std::string format = options.format;
  const auto ends = [&](const char* ending) { return options.out.ends_with(ending); };
  if (format.empty()) format = ends(".jsonl") ? "jsonl" : ends(".csv") || options.out == "-" ? "csv" : "";
  if (format != "csv" && format != "jsonl") {
    fail(ErrorKind::config,
         "--out {}: predictions are written as .csv or .jsonl; name such a file, or say --format",
         options.out);
  }
  return format == "jsonl";
}

}  // namespace

void predict(const PredictOptions& options, const LayerRegistry& layers, Fs& fs) {
  const bool json = is_json(options);
  FoundCheckpoint found = find_checkpoint(fs, options.model);
  const Manifest manifest = found.manifest ? *found.manifest : load_manifest(fs, found.path).manifest;
  SavedModel model = model_of(options, found.path, manifest);
  set_blas_threads(static_cast<int>(model.job.cluster.blas_threads));
  DataFacts facts = model.facts;
  const LoadedModel loaded =
      LoadedModel::open(model.job, found.path, {.data = facts, .layers = &layers, .fs = &fs});
  std::vector<std::string> warnings = found.warnings;
  warnings.insert(warnings.end(), loaded.warnings().begin(), loaded.warnings().end());
  warn(warnings);
  const SampleSpec spec{facts.inputs(), facts.target, facts.label_shape, false};
  const DType dtype = model.job.model.dtype;
  Predictor predictor(loaded.model(), spec, dtype, [&](Executor& e) { loaded.bind(e); });
  const Answers answers(model, loaded.model(), predictor.n_outputs(), options.outputs);
  const auto stream = open_input(model, options.in);
  const std::string out = options.out == "-" ? "/dev/stdout" : options.out;
  const ResultTo words = result_beside(out);
  AtomicFile file(fs, out);
  std::vector<std::string> header = options.keep;
  const std::vector<std::string> own = answers.header();
  header.insert(header.end(), own.begin(), own.end());
  if (!json) file.write(csv_line(header));
  const EvaluationSpec evaluation = loaded.model().evaluation_spec();
  Sums sums;
  Dataset::UnknownWords unknown;
  std::int64_t n_rows = 0, n_not_finite = 0, told_ns = now_ns();
  std::vector<std::string> kept, cells;
  const std::int64_t chunk = model.job.train.eval_batch;  // metrics are added up in the batches of eval
  std::vector<std::int64_t> indices(static_cast<std::size_t>(chunk));
  std::iota(indices.begin(), indices.end(), 0);
  while (const auto rows = stream->next(chunk, options.keep, kept)) {
    const std::int64_t n = rows->size();
    const Batch batch(rows->spec(), dtype, n);
    const BatchView view = batch.view(n);
    rows->read(std::span(indices).first(static_cast<std::size_t>(n)), view);
    const std::vector<double> values = predictor.outputs(view, n);
    const auto n_outputs = static_cast<std::size_t>(predictor.n_outputs());
    std::string text;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const auto row = std::span(values).subspan(i * n_outputs, n_outputs);
      if (!std::ranges::all_of(row, [](double x) { return std::isfinite(x); })) ++n_not_finite;
      cells.assign(kept.begin() + static_cast<std::ptrdiff_t>(i * options.keep.size()),
                   kept.begin() + static_cast<std::ptrdiff_t>((i + 1) * options.keep.size()));
      answers.add(row, cells);
      text += json ? json_line(header, cells, options.keep.size()) : csv_line(cells);
    }
    file.write(text);
    n_rows += n;
    unknown.n += rows->unknown_words().n;
    unknown.of += rows->unknown_words().of;
    if (rows->has_labels()) {
      Evaluator evaluator(model.job, loaded.model(), *rows);
      loaded.bind(evaluator.executor());
      sums.add(evaluation, evaluator.run(0, 1));
    }
    if (::isatty(STDERR_FILENO) == 1 && now_ns() - told_ns > 1'000'000'000) {
      told_ns = now_ns();
      warn({fmt::format("{} rows", with_commas(n_rows))});
    }
  }
  if (n_rows == 0) fail(ErrorKind::data, "--in {}: has no rows", options.in);
  file.finish();
  warnings.clear();
  if (n_not_finite > 0)
    warnings.push_back(fmt::format("{} of {} rows have an output that is not finite", n_not_finite, n_rows));
  if (stream->n_left_out() > 0)
    warnings.push_back(fmt::format("{} records are left out (bad_records: skip)", stream->n_left_out()));
  warn(warnings);
  std::string text =
      fmt::format("{}: {} rows by {} (step {})\n", options.out == "-" ? "standard output" : options.out,
                  with_commas(n_rows), loaded.path(), loaded.step());
  if (sums.sums.samples > 0 && (!evaluation.has_weights || sums.sums.weight > 0)) {
    text += fmt::format("  loss          {}\n", figure(sums.sums.loss / sums.sums.total()));
    for (const MetricValue& v : metric_values(evaluation, sums.sums, sums.counts, sums.reals, sums.scores)) {
      text += v.matrix.empty() && v.note.empty() ? fmt::format("  {:<13} {}\n", v.name, figure(v.value))
                                                 : "  " + to_text(v) + "\n";
    }
  }
  if (unknown.n > 0) text += fmt::format("  unknown words {} of {}: id 0\n", unknown.n, unknown.of);
  print_result(text, words);
}

}  // namespace varscope
