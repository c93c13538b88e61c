// Rows of label index:value ...
#include <algorithm>
#include <charconv>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/config/utf8.h"
#include "worker/data/csv.h"
#include "worker/data/csv_reader.h"
#include "worker/data/split.h"
#include "worker/data/table.h"

namespace varscope {
namespace {

constexpr std::int64_t kMostFeatures = 1 << 24;

// A row's features, by index from 0 on.
struct Row {
  std::shared_ptr<const std::string> file;
  std::int64_t line = 0;
  bool has_label = true;
  std::string label;
  double number = 0;
  double weight = 1;
  std::vector<std::pair<std::int64_t, double>> features;
  std::string place() const { return TextPlace{*file, line}.str(); }
};

class LibsvmReader {
 public:
  LibsvmReader(const LibsvmSource& source, std::int64_t n_features, bool may_lack_labels)
      : source_(source), n_features_(n_features), may_lack_labels_(may_lack_labels) {}

  // The line without its comment.
  Row read(const CsvReader& reader, const CsvRecord& record) {
    std::string_view rest = record.cells.front();
    rest = rest.substr(0, rest.find('#'));
    const char* begin = rest.data();
    const auto place = [&](std::string_view word) {
      return TextPlace{reader.name(), record.line, word.data() - begin + 1}.str();
    };
    Row row;
    if (!file_ || *file_ != reader.name()) file_ = std::make_shared<const std::string>(reader.name());
    row.file = file_;
    row.line = record.line;
    row.features.reserve(n_before_);
    bool has_label = false;
    std::int64_t before = -1;
    while (true) {
      const std::size_t at = rest.find_first_not_of(" \t\r");
      if (at == std::string_view::npos) break;
      rest.remove_prefix(at);
      const std::string_view word = rest.substr(0, rest.find_first_of(" \t\r"));
      rest.remove_prefix(word.size());
      if (!has_label) {
        has_label = true;
        row.has_label = !may_lack_labels_ || word.find(':') == std::string_view::npos;
        if (row.has_label) {
          take_label(row, word, place);
          continue;
        }
      }
      if (word.starts_with("qid:")) continue;
      const std::size_t colon = word.find(':');
      std::int64_t index = 0;
      const auto [end, error] =
          std::from_chars(&word.front(), &word.front() + std::min(colon, word.size()), index);
      if (colon == std::string_view::npos || error != std::errc() || end != &word.front() + colon)
        fail(ErrorKind::data, "{}: expected index:value, got {}", place(word), shown_cell(word));
      const std::optional<double> value = number_in(word.substr(colon + 1));
      if (!value)
        fail(ErrorKind::data, "{}: expected a number behind the colon, got {}", place(word),
             shown_cell(word));
      if (index < source_.base || index - source_.base >= kMostFeatures) {
        fail(ErrorKind::data, "{}: index {} is out of range; with base: {} allowed are {} to {}", place(word),
             index, source_.base, source_.base, kMostFeatures - 1 + source_.base);
      }
      index -= source_.base;
      if (index <= before)
        fail(ErrorKind::data, "{}: index {} is not greater than the one before", place(word),
             index + source_.base);
      before = index;
      if (n_features_ > 0 && index >= n_features_) {
        if (source_.drop_unknown) continue;
        fail(
            ErrorKind::data,
            "{}: feature {} is beyond those of the training data, which end at {}; say features: {} or more in "
            "data.train, or drop_unknown: true here",
            place(word), index + source_.base, n_features_ - 1 + source_.base, index + 1);
      }
      row.features.emplace_back(index, *value);
    }
    n_before_ = row.features.size();
    return row;
  }

 private:
  template <class Place>
  void take_label(Row& row, std::string_view word, const Place& place) {
    if (word.find(':') != std::string_view::npos)
      fail(ErrorKind::data, "{}: expected a label before the first index:value, got {}", place(word),
           shown_cell(word));
    if (source_.label == LabelType::cls) {
      if (!is_utf8(word))
        fail(ErrorKind::data, "{}: the label {} is no UTF-8; convert the file: iconv -f latin1 -t utf-8",
             place(word), shown_cell(word));
      row.label = class_names_.of(word);
      return;
    }
    const std::optional<double> value = number_in(word);
    if (!value)
      fail(ErrorKind::data, "{}: expected a number as the label, got {}", place(word), shown_cell(word));
    row.number = *value;
  }

  const LibsvmSource& source_;
  std::int64_t n_features_;
  bool may_lack_labels_;
  ClassNames class_names_;
  std::shared_ptr<const std::string> file_;
  std::size_t n_before_ = 0;  // features of the row before
};

// Gives the rows their weights, one number a line, and leaves out those of weight 0: a file beside the
// data, as LightGBM and XGBoost have it.
void take_weights(const LibsvmSource& source, const SourceContext& context, std::vector<Row>& rows) {
  std::size_t n = 0;
  TextPlace last;
  for (const auto& file : files_of(source.weights, context.root)) {
    CsvReader reader(file, '\0');
    CsvRecord record;
    while (reader.next(record)) {
      std::string_view line = record.cells.front();
      if (line.ends_with('\r')) line.remove_suffix(1);
      last = {reader.name(), record.line};
      if (n == rows.size())
        fail(ErrorKind::data, "{}: a weight more than there are rows, which are {}", last.str(), n);
      const std::optional<double> weight = weight_in(line);
      if (!weight) fail(ErrorKind::data, "{}: {}", last.str(), no_weight_text(line));
      rows[n++].weight = *weight;
    }
  }
  if (n < rows.size()) {
    fail(ErrorKind::data, "{}: there are {} weights for {} rows; the row at {} has none", last.str(), n,
         rows.size(), rows[n].place());
  }
  std::erase_if(rows, [](const Row& row) { return row.weight == 0; });
  if (rows.empty()) fail(ErrorKind::data, "{}: all weights are 0", last.str());
}

std::vector<std::string> classes_of(const std::vector<Row>& rows) {
  std::set<std::string> found;
  for (const Row& row : rows) found.insert(row.label);
  std::vector<std::string> classes(found.begin(), found.end());
  sort_classes(classes);
  return classes;
}

// All rows of the files. With bad_records: skip those that cannot be read are left out.
std::vector<Row> read_rows(const LibsvmSource& source, const SourceContext& context,
                           const TableSchema& schema, std::int64_t n_features, LeftOut& left_out) {
  LibsvmReader rows(source, n_features, context.may_lack_labels);
  const std::vector<std::string>& classes = schema.label.classes;
  std::vector<Row> all;
  const auto read = [&](const CsvReader& reader, const CsvRecord& record) {
    if (!record.problem.empty())
      fail(ErrorKind::data, "{}: {}", TextPlace{reader.name(), record.line, record.problem_column}.str(),
           record.problem);
    Row row = rows.read(reader, record);
    if (source.label == LabelType::cls && !classes.empty() &&
        std::ranges::find(classes, row.label) == classes.end()) {
      row.has_label = false;
      if (!context.may_lack_labels)
        fail(ErrorKind::data, "{}: {} is no class; there are {}", row.place(), shown_cell(row.label),
             fmt::join(classes, ", "));
    }
    all.push_back(std::move(row));
  };
  for (const auto& file : files_of(source.files, context.root)) {
    CsvReader reader(file, '\0');
    CsvRecord record;
    while (reader.next(record)) {
      const std::string_view line = record.cells.front();
      if (line.find_first_not_of(" \t\r") == std::string_view::npos || line.starts_with('#')) continue;
      try {
        read(reader, record);
      } catch (const Error& e) {
        if (source.bad_records == BadRecords::fail) throw;
        left_out.add(e.what());
      }
    }
  }
  left_out.of = std::ssize(all) + left_out.n;
  left_out.check(source.max_bad_share);
  if (all.empty())
    fail(ErrorKind::data, "{}: has no rows", files_of(source.files, context.root).front().string());
  return all;
}

std::vector<Row> rows_of(std::vector<Row> all, const SplitConfig& split, DataSplit part) {
  std::vector<Row> rows;
  for (const std::int64_t i : samples_of_part(split, part, std::ssize(all)))
    rows.push_back(std::move(all[static_cast<std::size_t>(i)]));
  return rows;
}

// What the training data are: a column for each feature, or one input whose ids are the features.
TableSchema schema_of(const LibsvmSource& source, const std::vector<Row>& rows) {
  std::int64_t n_features = source.features;
  for (const Row& row : rows) {
    if (source.features == 0 && !row.features.empty())
      n_features = std::max(n_features, row.features.back().first + 1);
  }
  n_features = std::max<std::int64_t>(n_features, 1);
  TableSchema schema;
  TableInput& input = schema.inputs.emplace_back();
  if (source.bags) {
    input.is_category = input.is_bag = input.has_id_weights = true;
    input.columns.push_back({.name = "features", .buckets = n_features});
  }
  for (std::int64_t i = 0; !source.bags && i < n_features; ++i)
    input.columns.push_back({.name = std::to_string(i + source.base), .index = i});
  schema.label.type = source.label;
  schema.label.columns.push_back({.name = "label"});
  if (source.label == LabelType::cls) schema.label.classes = classes_of(rows);
  return schema;
}

std::int64_t n_features_of(const TableSchema& schema) {
  const TableInput& input = schema.inputs.front();
  return input.is_bag ? input.columns.front().buckets : input.width();
}

void add_features(const Row& row, const TableSchema& schema, TableDataset::Columns& columns) {
  if (!schema.inputs.front().is_bag) {
    const std::size_t begin = columns.numbers.size();
    columns.numbers.resize(begin + static_cast<std::size_t>(n_features_of(schema)), 0);
    for (const auto& [index, value] : row.features)
      columns.numbers[begin + static_cast<std::size_t>(index)] = value;
    return;
  }
  TableDataset::Bags& bags = columns.bags.front();
  for (const auto& [index, value] : row.features) {
    bags.ids.push_back(static_cast<std::int32_t>(index));
    bags.weights.push_back(value);
  }
  bags.offsets.push_back(std::ssize(bags.ids));
}

}  // namespace

std::unique_ptr<Dataset> open_libsvm(const LibsvmSource& source, const SourceContext& context) {
  const bool is_training = context.schema.empty();
  TableSchema schema = is_training ? TableSchema() : schema_from_json(context.schema);
  LeftOut left_out;
  std::vector<Row> rows =
      read_rows(source, context, schema, is_training ? source.features : n_features_of(schema), left_out);
  if (!source.weights.is_null()) take_weights(source, context, rows);
  if (is_training) schema = schema_of(source, rows);  // of both parts of a split
  if (context.split) rows = rows_of(std::move(rows), *context.split, context.position);
  // What is to be predicted: an answer of which nothing is known counts as none, and so do the others.
  if (!std::ranges::all_of(rows, &Row::has_label)) schema.label.is_absent = true;
  TableDataset::Columns columns;
  if (schema.inputs.front().is_bag) columns.bags.emplace_back();
  for (const Row& row : rows) {
    add_features(row, schema, columns);
    if (!source.weights.is_null()) columns.weights.push_back(row.weight);
    if (source.label == LabelType::number) {
      columns.targets.push_back(row.number);
      continue;
    }
    const auto found = std::ranges::find(schema.label.classes, row.label);
    columns.labels.push_back(
        schema.label.is_absent ? 0 : static_cast<std::int32_t>(found - schema.label.classes.begin()));
  }
  return std::make_unique<TableDataset>(std::move(schema), std::ssize(rows), std::move(columns),
                                        std::move(left_out));
}

}  // namespace varscope
