#include "launch/commands/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/directory/scan.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"
#include "common/base/philox.h"
#include "common/base/text.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/loaded_model.h"
#include "launch/job/saved_model.h"
#include "launch/observe/output.h"
#include "worker/data/text.h"
#include "worker/graph/local_states.h"
#include "worker/graph/table_feeds.h"
#include "worker/kernels/blas.h"

namespace varscope {
namespace {

constexpr std::size_t kLikeliest = 10;  // words that a row tells beside the one that was drawn

enum class Format : std::uint8_t { text, csv, jsonl };

Format format_of(const PredictOptions& options) {
  std::string format = options.format;
  for (const char* ending : {"csv", "jsonl", "txt"}) {
    if (format.empty() && options.out.ends_with(std::string(".") + ending)) format = ending;
  }
  if (format == "csv") return Format::csv;
  if (format == "jsonl") return Format::jsonl;
  if (format == "txt" || format == "text" || (format.empty() && options.out == "-")) return Format::text;
  fail(ErrorKind::config,
       "--out {}: words are written as .txt, .csv or .jsonl; name such a file, or say --format", options.out);
}

// A language model that reads one word at a time, and keeps its state.
class Reader {
 public:
  Reader(const LoadedModel& loaded, std::size_t n_words)
      : model_(loaded.model()),
        executor_(model_.graph, model_.output, 1, {.also = {}, .forward_only = true}),
        states_(model_.graph, 1, 1, 0),
        word_(DType::int32, Shape{1, 1}),
        tables_(model_.graph),
        rows_(loaded.rows()) {
    loaded.bind(executor_);
    states_.reset();
    const std::int64_t n = with_batch(model_.graph.node(model_.output).type.shape, 1).n_elements();
    if (n < static_cast<std::int64_t>(n_words)) {
      fail(ErrorKind::checkpoint,
           "the model has {} outputs for a vocabulary of {} words: it is no language model", n, n_words);
    }
    logits_.resize(n_words);
  }

  // The logits of the word behind this one and all before.
  const std::vector<double>& read(std::int32_t id) {
    *word_.as<std::int32_t>().data() = id;
    executor_.feed(model_.x, word_.view());
    tables_.read(executor_, &rows_);
    states_.bind(executor_, 0);
    for (const Executor::ForwardStep& step : executor_.forward_steps()) executor_.forward(step);
    const TensorView& value = executor_.value(model_.output);
    for (std::size_t i = 0; i < logits_.size(); ++i) {
      logits_[i] = value.dtype() == DType::float32 ? static_cast<double>(value.data<float>()[i])
                                                   : value.data<double>()[i];
    }
    if (!states_.empty()) states_.advance(0);
    return logits_;
  }

 private:
  const Model& model_;
  Executor executor_;
  LocalStates states_;
  Tensor word_;
  TableFeeds tables_;
  RowReader& rows_;
  std::vector<double> logits_;
};

std::vector<double> softmax(const std::vector<double>& logits, double temperature) {
  const double greatest = *std::ranges::max_element(logits);
  std::vector<double> p(logits.size());
  std::ranges::transform(logits, p.begin(), [&](double x) { return std::exp((x - greatest) / temperature); });
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

std::size_t draw(const std::vector<double>& logits, double temperature, double u) {
  if (temperature == 0) return static_cast<std::size_t>(std::ranges::max_element(logits) - logits.begin());
  const std::vector<double> p = softmax(logits, temperature);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    sum += p[i];
    if (u < sum) return i;
  }
  return p.size() - 1;
}

std::vector<std::size_t> likeliest(const std::vector<double>& p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0U);
  const std::size_t n = std::min(kLikeliest, order.size());
  std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(n),
                            [&](std::size_t a, std::size_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
  order.resize(n);
  return order;
}

std::string quoted(const std::string& word) {
  if (word.find_first_of(",\"") == std::string::npos) return word;
  std::string text = "\"";
  for (const char c : word) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + "\"";
}

// One row of the output, for a word that was drawn.
std::string row_of(Format format, const std::vector<std::string>& words, std::int64_t number, std::size_t id,
                   const std::vector<double>& logits) {
  const std::vector<double> p = softmax(logits, 1);
  if (format == Format::csv) {
    std::string line = fmt::format("{},{},{}", number, quoted(words[id]), static_cast<float>(p[id]));
    for (const std::size_t i : likeliest(p))
      line += fmt::format(",{},{}", quoted(words[i]), static_cast<float>(p[i]));
    return line + "\n";
  }
  nlohmann::ordered_json json{{"number", number}, {"word", words[id]}, {"probability", p[id]}};
  for (const std::size_t i : likeliest(p))
    json["next"].push_back({{"word", words[i]}, {"probability", p[i]}});
  return json.dump() + "\n";
}

std::string csv_header(std::size_t n_words) {
  std::string line = "number,word,probability";
  for (std::size_t i = 1; i <= std::min(kLikeliest, n_words); ++i)
    line += fmt::format(",next_{0},next_{0}_probability", i);
  return line + "\n";
}

// The model's own, for one word at a time instead of windows of many.
LoadedModel one_word_model(const SavedModel& model, const std::string& path, const LayerRegistry& layers,
                           Fs& fs) {
  JobConfig job = model.job;
  job.data.train.get<TextSource>()->steps = 1;
  DataFacts facts = model.facts;
  facts.sample_shape = facts.label_shape = Shape{1};
  for (InputSpec& input : facts.named_inputs) input.shape = Shape{1};
  return LoadedModel::open(std::move(job), path, {.data = facts, .layers = &layers, .fs = &fs});
}

}  // namespace

void generate(const PredictOptions& options, const GenerateOptions& how, const LayerRegistry& layers,
              Fs& fs) {
  const Format format = format_of(options);
  if (!options.in.empty()) fail(ErrorKind::config, "--generate writes words, and reads no --in");
  FoundCheckpoint found = find_checkpoint(fs, options.model);
  const Manifest manifest = found.manifest ? *found.manifest : load_manifest(fs, found.path).manifest;
  const SavedModel model = model_of(options, found.path, manifest);
  if (model.job.data.train.get<TextSource>() == nullptr) {
    fail(ErrorKind::config,
         "--generate is for language models, of data of type text; this model's are of type {}",
         model.job.data.train.type());
  }
  if (model.schema.empty()) {
    fail(
        ErrorKind::checkpoint,
        "checkpoint {} does not say its words (an older version has written it); name the config behind it: varscope "
        "predict {} CONFIG --generate ...",
        found.path, options.model);
  }
  const std::vector<std::string> words = vocabulary_from_schema(model.schema);
  set_blas_threads(static_cast<int>(model.job.cluster.blas_threads));
  const LoadedModel loaded = one_word_model(model, found.path, layers, fs);
  warn(found.warnings);
  Reader reader(loaded, words.size());

  std::unordered_map<std::string, std::int32_t> ids;
  for (std::size_t i = 1; i < words.size(); ++i) ids.emplace(words[i], static_cast<std::int32_t>(i));
  std::vector<std::string> unknown, prompt;
  std::istringstream in(how.prompt);
  for (std::string word; in >> word;) prompt.push_back(word);
  const std::vector<double>* logits = nullptr;
  for (const std::string& word : prompt) {
    const auto id = ids.find(word);
    if (id == ids.end()) unknown.push_back(word);
    logits = &reader.read(id == ids.end() ? 0 : id->second);
  }
  if (!unknown.empty())
    warn({fmt::format("not in the model's vocabulary, read as {}: {}", words[0], comma_list(unknown))});
  if (logits == nullptr) logits = &reader.read(0);

  AtomicFile file(fs, options.out == "-" ? "/dev/stdout" : options.out);
  if (format == Format::csv) file.write(csv_header(words.size()));
  std::string line;
  for (const std::string& word : prompt) line += word + " ";
  const RandomStream random(static_cast<std::uint64_t>(how.seed), RandomPurpose::test, 1);
  for (std::int64_t i = 0; i < how.n; ++i) {
    const std::size_t id = draw(*logits, how.temperature, random.uniform(static_cast<std::uint64_t>(i)));
    if (format == Format::text) {
      line += words[id] + (i + 1 == how.n ? "\n" : " ");
    } else {
      file.write(row_of(format, words, i + 1, id, *logits));
    }
    logits = &reader.read(static_cast<std::int32_t>(id));
  }
  if (format == Format::text) file.write(line);
  file.finish();
}

}  // namespace varscope
