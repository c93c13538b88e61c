#include "launch/commands/predict.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <system_error>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/figures.h"
#include "common/base/text.h"
#include "launch/commands/answers.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/job_setup.h"
#include "launch/job/loaded_model.h"
#include "launch/observe/output.h"
#include "worker/data/array_source.h"
#include "worker/data/csv.h"
#include "worker/data/row_streams.h"
#include "worker/data/table_schema.h"
#include "worker/data/tfrecord.h"
#include "worker/kernels/blas.h"
#include "worker/train/evaluator.h"
#include "worker/train/predictor.h"

namespace varscope {
namespace {

bool is_of_images(const SavedModel& model) {
  return model.schema.empty() && model.facts.features == Features::real &&
         model.facts.named_inputs.size() == 1 && model.facts.target == Target::classes &&
         model.facts.label_shape.rank() == 0;
}

// Images of other sources than arrays are bytes, divided by 255.
ArraySchema array_schema_of(const SavedModel& model) {
  ArraySchema schema;
  if (is_of_images(model)) {
    schema.inputs.push_back({.shape = model.facts.sample_shape, .scale = {1, 255}});
    schema.n_classes = model.facts.n_classes;
  } else if (!model.schema.empty() && !is_table(model.job.data.train) &&
             model.job.data.train.get<SkipgramSource>() == nullptr) {
    schema = array_schema_from_json(model.schema);
  } else {
    fail(ErrorKind::config, "models of data of type {} do not predict from .npy and .npz files",
         model.job.data.train.type());
  }
  schema.knows_classes = true;  // of labels that are there, the model can answer those only
  return schema;
}

// "-" is standard input.
std::string input_file(const std::string& in) { return in == "-" ? "/dev/stdin" : in; }

std::unique_ptr<RowStream> open_input(const SavedModel& model, const std::string& file) {
  if (!std::filesystem::exists(file)) fail(ErrorKind::data, "--in {}: no such file", file);
  const DataSourceConfig& train = model.job.data.train;
  if (file.ends_with(".npy") || file.ends_with(".npz"))
    return stream_dataset(open_arrays_to_predict(file, array_schema_of(model)));
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
  if (const auto* keys = train.get<TfrecordSource>()) {
    TfrecordSource source = *keys;
    source.files = ConfigNode::text(std::filesystem::absolute(file).string());
    source.from = 0;
    source.to = 1;
    context.schema = to_json(array_schema_of(model));
    return stream_dataset(open_tfrecord(source, context));
  }
  if (train.get<NpySource>() != nullptr || train.get<NpzSource>() != nullptr) {
    fail(ErrorKind::config, "--in {}: a model of arrays predicts from .npy and .npz files; name such a file",
         file);
  }
  if (train.get<IdxSource>() != nullptr && !model.schema.empty())
    return stream_dataset(open_idx_to_predict(file, array_schema_of(model)));
  if (is_of_images(model) && model.facts.sample_shape.rank() >= 2)
    return stream_dataset(open_idx_images(file, model.facts.sample_shape, model.facts.n_classes));
  fail(ErrorKind::config, "models of data of type {} cannot predict from files", train.type());
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

// Values of a node of the graph for each row.
struct Fetched {
  std::string name;
  std::vector<std::string> columns;
  std::optional<IdType> ids;  // the node is an input of ids of rows
  std::unique_ptr<Predictor> predictor;

  // Of the rows of a batch, one behind the other.
  std::vector<ExtraNumber> values(const BatchView& rows, std::int64_t n) {
    std::vector<ExtraNumber> all;
    if (ids) {
      for (const std::int64_t id : predictor->ids(rows, n)) all.emplace_back(static_cast<std::uint64_t>(id));
    } else {
      for (const double x : predictor->outputs(rows, n)) all.emplace_back(x);
    }
    return all;
  }
};

// The type of the ids that a node has: those of rows of a table, as the samples have them.
std::optional<IdType> ids_of(const Model& model, const SampleSpec& spec, NodeId node) {
  const auto at = static_cast<std::size_t>(std::ranges::find(model.inputs, node) - model.inputs.begin());
  if (at >= spec.inputs.size() || spec.inputs[at].features != Features::row_ids) return std::nullopt;
  return spec.inputs[at].id_type;
}

// A node by its full name, or the output of a layer by its scope.
NodeId node_of(const Model& model, const std::string& name) {
  if (const auto node = model.graph.find(name)) return *node;
  std::vector<std::string> names;
  for (const LayerInfo& layer : model.layers) {
    if (!layer.scope.empty() && layer.scope == name) return layer.output;
    if (!layer.scope.empty()) names.push_back(layer.scope);
  }
  std::string known = comma_list(names);
  for (std::size_t i = 0; i < model.graph.size(); ++i)
    names.push_back(model.graph.node(NodeId(static_cast<int>(i))).name);
  fail(
      ErrorKind::config,
      "--fetch {}: the model has no such node{}; its layers are {}, and varscope graph CONFIG --evaluation shows all "
      "nodes",
      name, did_you_mean(name, names), known);
}

std::vector<Fetched> fetched_nodes(const std::vector<std::string>& names, const Model& model,
                                   const SampleSpec& spec, DType dtype, const Predictor::Bind& bind,
                                   RowReader& rows) {
  std::vector<Fetched> all;
  for (const std::string& name : names) {
    const NodeId node = node_of(model, name);
    Fetched f{.name = name, .columns = {}, .ids = ids_of(model, spec, node), .predictor = {}};
    try {
      f.predictor = std::make_unique<Predictor>(model, spec, dtype, bind, node, &rows);
    } catch (const Error& e) {
      fail(ErrorKind::config, "--fetch {}: {}", name, e.what());
    }
    const std::int64_t n = f.predictor->n_outputs();
    for (std::int64_t i = 0; i < n; ++i) f.columns.push_back(n == 1 ? name : fmt::format("{}_{}", name, i));
    all.push_back(std::move(f));
  }
  return all;
}

// Gradients of the answers by the inputs: of a class by its logit, of numbers each of them.
class Gradients {
 public:
  Gradients(const SavedModel& model, const Model& graph, const SampleSpec& spec, DType dtype,
            const Predictor::Bind& bind, RowReader& rows, const Answers& answers)
      : answers_(answers), gradients_(made(graph, spec, dtype, bind, rows)) {
    TableSchema schema;
    if (!model.schema.empty() && is_table(model.job.data.train)) schema = schema_from_json(model.schema);
    std::vector<std::string> elements;
    for (const std::size_t k : gradients_.inputs()) {
      const InputSpec& input = spec.inputs[k];
      const auto found = std::ranges::find(schema.inputs, input.name, &TableInput::name);
      for (std::int64_t i = 0; i < input.shape.n_elements(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (found == schema.inputs.end()) {
          elements.push_back(fmt::format("{}_{}", input.name, i));
        } else {
          const std::size_t n = found->columns.size();
          elements.push_back(at < n ? found->columns[at].name : found->columns[at - n].name + "_missing");
        }
      }
    }
    for (const std::string& output : answers.gradient_names()) {
      for (const std::string& e : elements)
        header_.push_back("gradient_" + (output.empty() ? "" : output + "_") + e);
    }
  }
  const std::vector<std::string>& header() const { return header_; }
  void add(const BatchView& rows, std::int64_t n, std::int64_t row, std::span<const double> outputs,
           std::vector<ExtraNumber>& to) {
    for (const std::size_t output : answers_.gradient_outputs(outputs)) {
      const std::vector<double> g = gradients_.of(rows, n, row, output);
      to.insert(to.end(), g.begin(), g.end());
    }
  }

 private:
  static InputGradients made(const Model& graph, const SampleSpec& spec, DType dtype,
                             const Predictor::Bind& bind, RowReader& rows) {
    try {
      return InputGradients(graph, spec, dtype, bind, &rows);
    } catch (const Error& e) {
      fail(ErrorKind::config, "--gradients: {}", e.what());
    }
  }
  const Answers& answers_;
  InputGradients gradients_;
  std::vector<std::string> header_;
};

}  // namespace

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

void predict(const PredictOptions& options, const LayerRegistry& layers, Fs& fs) {
  if (options.in.empty())
    fail(ErrorKind::config, "predict: --in FILE is missing: the rows that are to be answered");
  const AnswerFormat format = answer_format(options.format, options.out);
  FoundCheckpoint found = find_checkpoint(fs, options.model);
  const Manifest manifest = found.manifest ? *found.manifest : load_manifest(fs, found.path).manifest;
  SavedModel model = model_of(options, found.path, manifest);
  if (model.job.data.train.get<TextSource>() != nullptr) {
    fail(
        ErrorKind::config,
        "--in {}: a model of texts does not answer rows, it goes on with words: varscope predict {} --generate 20 "
        "--prompt \"...\"",
        options.in, options.model);
  }
  set_blas_threads(static_cast<int>(model.job.cluster.blas_threads));
  DataFacts facts = model.facts;
  const LoadedModel loaded =
      LoadedModel::open(model.job, found.path, {.data = facts, .layers = &layers, .fs = &fs});
  std::vector<std::string> warnings = found.warnings;
  warnings.insert(warnings.end(), loaded.warnings().begin(), loaded.warnings().end());
  warn(warnings);
  const SampleSpec spec{facts.inputs(), facts.target, facts.label_shape, false};
  const DType dtype = model.job.model.dtype;
  const Predictor::Bind bind = [&](Executor& e) { loaded.bind(e); };
  Predictor predictor(loaded.model(), spec, dtype, bind, {}, &loaded.rows());
  const Answers answers(model, loaded.model(), predictor.n_outputs(), options.outputs,
                        format == AnswerFormat::npy ? 1 : 2);
  std::vector<Fetched> fetched =
      fetched_nodes(options.fetch, loaded.model(), spec, dtype, bind, loaded.rows());
  std::optional<Gradients> gradients;
  if (options.gradients) gradients.emplace(model, loaded.model(), spec, dtype, bind, loaded.rows(), answers);
  std::vector<Extra> extras;
  extras.reserve(fetched.size() + 1);
  for (const Fetched& f : fetched) extras.push_back({f.name, f.columns, f.ids});
  if (gradients) extras.push_back({"gradients", gradients->header()});
  const std::string in = input_file(options.in);
  const auto stream = open_input(model, in);
  const std::string out = options.out == "-" ? "/dev/stdout" : options.out;
  std::error_code ignored;
  if (std::filesystem::is_regular_file(out, ignored) && std::filesystem::equivalent(out, in, ignored))
    fail(ErrorKind::config, "--out {}: is the file that is read; its rows would be lost: name another one",
         options.out);
  const ResultTo words = result_beside(out);
  AnswerWriter writer(fs, out, format, answers, options.keep, extras);
  const EvaluationSpec evaluation = loaded.model().evaluation_spec();
  Sums sums;
  Dataset::UnknownWords unknown;
  std::int64_t n_rows = 0, n_not_finite = 0, told_ns = now_ns();
  std::vector<std::string> kept;
  std::vector<ExtraNumber> more;
  bool lacks_answers = false;
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
    std::vector<std::vector<ExtraNumber>> values_of_nodes;
    values_of_nodes.reserve(fetched.size());
    for (Fetched& f : fetched) values_of_nodes.push_back(f.values(view, n));
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const auto row = std::span(values).subspan(i * n_outputs, n_outputs);
      if (!std::ranges::all_of(row, [](double x) { return std::isfinite(x); })) ++n_not_finite;
      more.clear();
      for (std::size_t k = 0; k < fetched.size(); ++k) {
        const auto width = static_cast<std::size_t>(fetched[k].predictor->n_outputs());
        const auto of_row = std::span(values_of_nodes[k]).subspan(i * width, width);
        more.insert(more.end(), of_row.begin(), of_row.end());
      }
      if (gradients) gradients->add(view, n, static_cast<std::int64_t>(i), row, more);
      writer.add(row, std::span(kept).subspan(i * options.keep.size(), options.keep.size()), more);
    }
    n_rows += n;
    unknown.n += rows->unknown_words().n;
    unknown.of += rows->unknown_words().of;
    if (rows->has_labels()) {
      Evaluator evaluator(model.job, loaded.model(), *rows);
      loaded.bind(evaluator.executor());
      evaluator.set_rows(loaded.rows());
      sums.add(evaluation, evaluator.run(0, 1));
    } else {
      lacks_answers = true;
    }
    if (::isatty(STDERR_FILENO) == 1 && now_ns() - told_ns > 1'000'000'000) {
      told_ns = now_ns();
      warn({fmt::format("{} rows", with_commas(n_rows))});
    }
  }
  if (n_rows == 0) fail(ErrorKind::data, "--in {}: has no rows", options.in);
  writer.finish();
  warnings.clear();
  if (n_not_finite > 0)
    warnings.push_back(fmt::format("{} of {} rows have an output that is not finite", n_not_finite, n_rows));
  if (stream->n_left_out() > 0)
    warnings.push_back(fmt::format("{} records are left out (bad_records: skip)", stream->n_left_out()));
  if (lacks_answers && sums.sums.samples > 0)
    warnings.emplace_back(
        "some rows have no answer, or one that the model does not know: there are no metrics");
  warn(warnings);
  std::string text =
      fmt::format("{}: {} row{} by {} (step {})\n", options.out == "-" ? "standard output" : options.out,
                  with_commas(n_rows), n_rows == 1 ? "" : "s", loaded.path(), loaded.step());
  if (!lacks_answers && sums.sums.samples > 0 && (!evaluation.has_weights || sums.sums.weight > 0)) {
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
