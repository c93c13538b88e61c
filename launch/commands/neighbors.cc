#include "launch/commands/neighbors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>

#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/reader.h"
#include "common/base/error.h"
#include "common/base/row_id.h"
#include "common/base/text.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/input_words.h"
#include "launch/job/loaded_model.h"
#include "launch/job/saved_model.h"
#include "launch/job/start_values.h"
#include "launch/observe/output.h"

namespace varscope {
namespace {

// An embedding of the model, and an input whose ids it is looked up by.
struct Embedding {
  std::string name;
  const Variable* table = nullptr;  // null: a dense variable, or what is made of some, at `node`
  NodeId node = {};
  InputSpec input = {};
  std::optional<std::uint64_t> padding = {};  // the id that stands for nothing
};

// The input that ids come from: of a table at once, else maybe through ops such as `take`.
std::optional<InputSpec> input_behind(const Model& model, const DataFacts& facts, NodeId id) {
  while (model.graph.node(id).kind == Graph::Kind::op) id = model.graph.node(id).inputs.front();
  const auto found = std::ranges::find(model.inputs, id);
  if (found == model.inputs.end()) return std::nullopt;
  return facts.inputs()[static_cast<std::size_t>(found - model.inputs.begin())];
}

// Each embedding with each of its inputs, in the order of the model.
std::vector<Embedding> embeddings_of(const Model& model, const DataFacts& facts) {
  std::vector<Embedding> all;
  const auto add = [&](Embedding embedding, NodeId ids) {
    const auto input = input_behind(model, facts, ids);
    if (!input) return;
    embedding.input = *input;
    all.push_back(std::move(embedding));
  };
  for (const TableLookup& lookup : model.graph.lookups())
    add({.name = lookup.table->name(), .table = lookup.table, .padding = lookup.padding}, lookup.ids);
  for (std::size_t i = 0; i < model.graph.size(); ++i) {
    const Graph::Node& op = model.graph.node(NodeId(static_cast<int>(i)));
    if (op.kind != Graph::Kind::op) continue;
    const std::string type = op.op->type();
    if (type != "embedding" && type != "embedding_bag" && type != "factorization_machine_bag") continue;
    const Graph::Node& rows = model.graph.node(op.inputs[0]);
    if (rows.variable != nullptr && rows.variable->spec().is_table()) continue;
    add({.name = rows.variable != nullptr ? rows.variable->name() : rows.name, .node = op.inputs[0]},
        op.inputs[1]);
  }
  return all;
}

std::vector<std::string> names_of(const std::vector<Embedding>& embeddings) {
  std::vector<std::string> names;
  for (const Embedding& e : embeddings) {
    if (std::ranges::find(names, e.name) == names.end()) names.push_back(e.name);
  }
  return names;
}

// "words/embeddings (input word), contexts/embeddings (input context)"
std::string list_of(const std::vector<Embedding>& embeddings) {
  std::vector<std::string> texts;
  for (const std::string& name : names_of(embeddings)) {
    std::vector<std::string> inputs;
    for (const Embedding& e : embeddings) {
      if (e.name == name && std::ranges::find(inputs, e.input.name) == inputs.end())
        inputs.push_back(e.input.name);
    }
    texts.push_back(fmt::format("{} (input{} {})", name, inputs.size() == 1 ? "" : "s", comma_list(inputs)));
  }
  return comma_list(texts);
}

// The one that was named; else the only one, that of a skip-gram's `word`, or the only one with a vocabulary.
Embedding chosen(const SavedModel& model, const std::vector<Embedding>& all, const std::string& variable) {
  if (all.empty()) {
    fail(
        ErrorKind::config,
        "the model has no embedding: neighbors are looked for in the rows of a layer embedding or of a table");
  }
  std::vector<Embedding> left = all;
  const auto keep = [&](const auto& wanted) {
    std::vector<Embedding> kept;
    std::ranges::copy_if(left, std::back_inserter(kept), wanted);
    if (!kept.empty()) left = std::move(kept);
  };
  if (!variable.empty()) {
    const std::vector<std::string> names = names_of(all);
    if (std::ranges::find(names, variable) == names.end()) {
      fail(ErrorKind::config, "--variable {}: the model has no such embedding{}; it has {}", variable,
           did_you_mean(variable, names), list_of(all));
    }
    keep([&](const Embedding& e) { return e.name == variable; });
  }
  keep([&](const Embedding& e) { return InputWords(model, e.input).has_vocabulary(); });
  if (model.job.data.train.get<SkipgramSource>() != nullptr)
    keep([](const Embedding& e) { return e.input.name == "word"; });
  if (names_of(left).size() > 1) {
    fail(ErrorKind::config, "the model has several embeddings: {}; choose one: --variable {}", list_of(all),
         left.front().name);
  }
  return left.front();
}

// The rows of an embedding in double.
class EmbeddingRows {
 public:
  using Row = std::span<const double>;
  EmbeddingRows() = default;
  EmbeddingRows(const EmbeddingRows&) = delete;
  EmbeddingRows& operator=(const EmbeddingRows&) = delete;
  virtual ~EmbeddingRows() = default;
  // Valid until the next call. Nothing for a row that is not there.
  virtual std::optional<Row> row(std::uint64_t id) = 0;
  virtual void for_each(const std::function<void(std::uint64_t id, Row)>& f) = 0;

 protected:
  Row in_double(DType dtype, const std::byte* values, std::size_t n) {
    row_.resize(n);
    if (dtype == DType::float64) {
      std::memcpy(row_.data(), values, n * sizeof(double));
      return row_;
    }
    for (std::size_t i = 0; i < n; ++i) {
      float value = 0;
      std::memcpy(&value, values + i * sizeof value, sizeof value);
      row_[i] = static_cast<double>(value);
    }
    return row_;
  }

 private:
  std::vector<double> row_;
};

class DenseRows final : public EmbeddingRows {
 public:
  explicit DenseRows(Tensor values) : values_(std::move(values)) {}
  std::optional<Row> row(std::uint64_t id) override {
    if (id >= n_rows()) return std::nullopt;
    const auto width = static_cast<std::size_t>(values_.view().shape()[1]);
    const DType dtype = values_.view().dtype();
    return in_double(dtype, values_.view().bytes() + id * width * size_of(dtype), width);
  }
  void for_each(const std::function<void(std::uint64_t id, Row)>& f) override {
    for (std::uint64_t id = 0; id < n_rows(); ++id) f(id, *row(id));
  }

 private:
  std::uint64_t n_rows() const { return static_cast<std::uint64_t>(values_.view().shape()[0]); }
  Tensor values_;
};

class SparseRows final : public EmbeddingRows {
 public:
  SparseRows(CheckpointReader reader, std::string table)
      : reader_(std::move(reader)),
        table_(std::move(table)),
        layout_(reader_.row_layout(table_)),
        n_parts_(reader_.table(table_).spec.parts) {}
  std::optional<Row> row(std::uint64_t id) override {
    const int part = row_part(mix_row_id(id), n_parts_);
    auto rows = kept_.find(part);
    if (rows == kept_.end()) {
      rows = kept_.try_emplace(part).first;
      reader_.read_rows(table_, part, rows->second);
    }
    const std::byte* end = rows->second.data() + rows->second.size();
    for (const std::byte* row = rows->second.data(); row != end; row += layout_.row_bytes()) {
      if (RowLayout::id_of(row) == id) return values_of(row);
    }
    return std::nullopt;
  }
  void for_each(const std::function<void(std::uint64_t id, Row)>& f) override {
    std::vector<std::byte> read;
    for (int part = 0; part < n_parts_; ++part) {
      const auto kept = kept_.find(part);
      if (kept == kept_.end()) reader_.read_rows(table_, part, read);
      const std::vector<std::byte>& rows = kept == kept_.end() ? read : kept->second;
      for (std::size_t at = 0; at < rows.size(); at += layout_.row_bytes())
        f(RowLayout::id_of(rows.data() + at), values_of(rows.data() + at));
    }
  }

 private:
  Row values_of(const std::byte* row) {
    return in_double(layout_.dtype(), row + RowLayout::kValuesAt, static_cast<std::size_t>(layout_.units()));
  }
  CheckpointReader reader_;
  std::string table_;
  RowLayout layout_;
  int n_parts_;
  std::map<int, std::vector<std::byte>> kept_;  // of words that were asked for
};

struct Neighbor {
  std::uint64_t id = 0;
  double similarity = 0;
  std::string word = {};
};
bool is_nearer(const Neighbor& a, const Neighbor& b) {
  return a.similarity != b.similarity ? a.similarity > b.similarity : a.id < b.id;
}

double length_of(EmbeddingRows::Row row) {
  double sum = 0;
  for (const double x : row) sum += x * x;
  return std::sqrt(sum);
}

// A word, and the nearest rows so far.
class Query {
 public:
  Query(std::string word, std::uint64_t id, EmbeddingRows::Row row, std::size_t top)
      : word_(std::move(word)), id_(id), top_(top), direction_(row.begin(), row.end()) {
    const double length = length_of(row);
    if (!(length > 0) || !std::isfinite(length)) {
      fail(ErrorKind::checkpoint, "the row of \"{}\" {}: it has no direction, and so no neighbors", word_,
           length == 0 ? "is all zeros" : "is not finite");
    }
    for (double& x : direction_) x /= length;
  }
  // A row of this length, which is a neighbor where fewer than `top` are nearer.
  void offer(std::uint64_t id, EmbeddingRows::Row row, double length) {
    if (id == id_) return;
    double product = 0;
    for (std::size_t i = 0; i < row.size(); ++i) product += row[i] * direction_[i];
    const Neighbor candidate{.id = id, .similarity = std::clamp(product / length, -1.0, 1.0)};
    if (nearest_.size() == top_) {
      if (!is_nearer(candidate, nearest_.front())) return;
      std::ranges::pop_heap(nearest_, is_nearer);
      nearest_.pop_back();
    }
    nearest_.push_back(candidate);
    std::ranges::push_heap(nearest_, is_nearer);
  }
  const std::string& word() const { return word_; }
  std::vector<Neighbor> nearest() const {
    std::vector<Neighbor> sorted = nearest_;
    std::ranges::sort(sorted, is_nearer);
    return sorted;
  }

 private:
  std::string word_;
  std::uint64_t id_;
  std::size_t top_;
  std::vector<double> direction_;
  std::vector<Neighbor> nearest_;  // a heap, the farthest in front
};

// Why a word of the embedding has no row.
[[noreturn]] void fail_without_row(const Embedding& embedding, const std::string& word, std::uint64_t id) {
  if (id == embedding.padding) {
    fail(ErrorKind::config,
         "\"{}\" is the padding of input \"{}\": it stands for nothing, and has no row in {}", word,
         embedding.input.name, embedding.name);
  }
  std::string why = "no sample that was trained on had it";
  if (embedding.table != nullptr) {
    const TableSpec& spec = *embedding.table->spec().table;
    if (spec.entry > 1) why += fmt::format(" {} times (entry)", spec.entry);
    if (spec.expire_steps > 0 || spec.max_rows > 0)
      why += fmt::format(", or its row has left ({})", spec.expire_steps == 0 ? "max_rows"
                                                       : spec.max_rows == 0   ? "expire_steps"
                                                                              : "expire_steps, max_rows");
  }
  fail(ErrorKind::config, "\"{}\" has no row in {}: {}", word, embedding.name, why);
}

std::vector<Query> answered(EmbeddingRows& rows, const Embedding& embedding, const InputWords& words,
                            const NeighborsOptions& options) {
  std::vector<Query> queries;
  for (const std::string& word : options.words) {
    std::uint64_t id = words.id_of(word);
    auto row = rows.row(id);
    if (const auto hash = words.shown_hash(word); !row && hash) {  // as the answers call it
      id = *hash;
      row = rows.row(id);
    }
    if (!row) fail_without_row(embedding, word, id);
    queries.emplace_back(word, id, *row, static_cast<std::size_t>(options.top));
  }
  rows.for_each([&](std::uint64_t id, EmbeddingRows::Row row) {
    const double length = length_of(row);
    if (!(length > 0) || !std::isfinite(length) || !words.word_of(id)) return;
    for (Query& query : queries) query.offer(id, row, length);
  });
  return queries;
}

std::unique_ptr<EmbeddingRows> rows_of(LoadedModel& loaded, const Embedding& embedding, FoundCheckpoint found,
                                       Fs& fs) {
  if (embedding.table == nullptr)
    return std::make_unique<DenseRows>(std::move(loaded.session().run({embedding.node}, {}).front()));
  const CheckpointNames names = checkpoint_names(loaded.job(), loaded.store().table());
  return std::make_unique<SparseRows>(CheckpointReader::open(fs, std::move(found)),
                                      names.in_checkpoint(embedding.table->spec()).name);
}

std::string text_of(const LoadedModel& loaded, const Embedding& embedding, const std::vector<Query>& queries,
                    const InputWords& words) {
  std::string text = fmt::format("{} (step {}): cosine similarity of rows of {}\n", loaded.path(),
                                 loaded.step(), embedding.name);
  for (const Query& query : queries) {
    text += "\n" + query.word() + "\n";
    for (const Neighbor& n : query.nearest())
      text += fmt::format("  {:>7.4f}  {}\n", n.similarity, *words.word_of(n.id));
  }
  return text;
}

std::string json_of(const LoadedModel& loaded, const Embedding& embedding, const std::vector<Query>& queries,
                    const InputWords& words) {
  using Json = nlohmann::ordered_json;
  Json json{{"checkpoint", loaded.path()},
            {"step", loaded.step()},
            {"variable", embedding.name},
            {"words", Json::array()}};
  for (const Query& query : queries) {
    Json neighbors = Json::array();
    for (const Neighbor& n : query.nearest())
      neighbors.push_back({{"word", *words.word_of(n.id)}, {"similarity", n.similarity}});
    json["words"].push_back({{"word", query.word()}, {"neighbors", std::move(neighbors)}});
  }
  return json.dump() + "\n";
}

}  // namespace

void neighbors(const NeighborsOptions& options, const LayerRegistry& layers, Fs& fs) {
  FoundCheckpoint found = find_checkpoint(fs, options.model);
  if (!found.manifest) found.manifest = load_manifest(fs, found.path).manifest;
  const std::optional<SavedModel> model = saved_model(*found.manifest);
  if (!model) {
    fail(ErrorKind::checkpoint,
         "checkpoint {} does not say what model it is of (an older version has written it, or no run)",
         found.path);
  }
  LoadedModel loaded =
      LoadedModel::open(model->job, found.path, {.data = model->facts, .layers = &layers, .fs = &fs});
  warn(found.warnings);
  warn(loaded.warnings());
  const Embedding embedding = chosen(*model, embeddings_of(loaded.model(), model->facts), options.variable);
  const InputWords words(*model, embedding.input);
  const auto rows = rows_of(loaded, embedding, std::move(found), fs);
  const std::vector<Query> queries = answered(*rows, embedding, words, options);
  print_result(options.json ? json_of(loaded, embedding, queries, words)
                            : text_of(loaded, embedding, queries, words));
}

}  // namespace varscope
