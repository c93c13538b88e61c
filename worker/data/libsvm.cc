// Rows of label index:value ...
#include <algorithm>
#include <charconv>
#include <set>

#include "common/base/error.h"
#include "worker/data/csv.h"
#include "worker/data/csv_reader.h"
#include "worker/data/split.h"
#include "worker/data/table.h"

namespace varscope {
namespace {

constexpr std::int64_t kMostFeatures = 1 << 24;

// A row's features, by index from 0 on.
struct Row {
  TextPlace place;
  std::string label;
  double number = 0;
  double weight = 1;
  std::vector<std::pair<std::int64_t, double>> features;
};

class LibsvmReader {
 public:
  LibsvmReader(const LibsvmSource& source, std::int64_t n_features)
      : source_(source), n_features_(n_features) {}

  // The line without its comment.
  Row read(const CsvReader& reader, const CsvRecord& record) const {
    std::string_view rest = record.cells.front();
    rest = rest.substr(0, rest.find('#'));
    const char* begin = rest.data();
    const auto place = [&](std::string_view word) {
      return TextPlace{reader.name(), record.line, word.data() - begin + 1}.str();
    };
    Row row;
    row.place = {reader.name(), record.line};
    bool has_label = false;
    std::int64_t before = -1;
    while (true) {
      const std::size_t at = rest.find_first_not_of(" \t\r");
      if (at == std::string_view::npos) break;
      rest.remove_prefix(at);
      const std::string_view word = rest.substr(0, rest.find_first_of(" \t\r"));
      rest.remove_prefix(word.size());
      if (!has_label) {
        take_label(row, word, place(word));
        has_label = true;
        continue;
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
    return row;
  }

 private:
  void take_label(Row& row, std::string_view word, const std::string& place) const {
    if (word.find(':') != std::string_view::npos)
      fail(ErrorKind::data, "{}: expected a label before the first index:value, got {}", place,
           shown_cell(word));
    if (source_.label == LabelType::cls) {
      row.label = class_name(word);
      return;
    }
    const std::optional<double> value = number_in(word);
    if (!value) fail(ErrorKind::data, "{}: expected a number as the label, got {}", place, shown_cell(word));
    row.number = *value;
  }

  const LibsvmSource& source_;
  std::int64_t n_features_;
};

// Gives the rows their weights, one number a line, and leaves out those of weight 0: a file beside the data, as LightGBM
// and XGBoost have it.
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
         rows.size(), rows[n].place.str());
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

}  // namespace

std::unique_ptr<Dataset> open_libsvm(const LibsvmSource& source, const SourceContext& context) {
  TableSchema schema;
  if (!context.schema.empty()) schema = schema_from_json(context.schema);
  std::int64_t n_features = schema.inputs.empty() ? source.features : schema.inputs.front().width();
  const LibsvmReader rows(source, n_features);
  std::vector<Row> all;
  for (const auto& file : files_of(source.files, context.root)) {
    CsvReader reader(file, '\0');
    CsvRecord record;
    while (reader.next(record)) {
      if (!record.problem.empty())
        fail(ErrorKind::data, "{}: {}", TextPlace{reader.name(), record.line, record.problem_column}.str(),
             record.problem);
      const std::string_view line = record.cells.front();
      if (line.find_first_not_of(" \t\r") == std::string_view::npos || line.starts_with('#')) continue;
      all.push_back(rows.read(reader, record));
      const auto& classes = schema.label.classes;
      if (source.label == LabelType::cls && !schema.inputs.empty() &&
          std::ranges::find(classes, all.back().label) == classes.end()) {
        fail(ErrorKind::data, "{}:{}: {} is no class; there are {}", reader.name(), record.line,
             shown_cell(all.back().label), fmt::join(classes, ", "));
      }
    }
  }
  if (all.empty())
    fail(ErrorKind::data, "{}: has no rows", files_of(source.files, context.root).front().string());
  if (!source.weights.is_null()) take_weights(source, context, all);
  std::vector<std::string> classes;
  if (source.label == LabelType::cls) classes = classes_of(all);  // of both parts of a split
  std::int64_t greatest = 0;
  for (const Row& row : all) {
    if (!row.features.empty()) greatest = std::max(greatest, row.features.back().first + 1);
  }
  if (context.split) {
    std::vector<Row> part;
    for (const std::int64_t i : samples_of_part(*context.split, context.position, std::ssize(all)))
      part.push_back(std::move(all[static_cast<std::size_t>(i)]));
    all = std::move(part);
  }
  if (n_features == 0) n_features = std::max<std::int64_t>(greatest, 1);
  if (schema.inputs.empty()) {
    TableInput input;
    for (std::int64_t i = 0; i < n_features; ++i)
      input.columns.push_back({.name = std::to_string(i + source.base), .index = i});
    schema.inputs.push_back(std::move(input));
    schema.label.type = source.label;
    schema.label.columns.push_back({.name = "label"});
    schema.label.classes = std::move(classes);
  }
  TableDataset::Columns columns;
  columns.numbers.assign(all.size() * static_cast<std::size_t>(n_features), 0);
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (const auto& [index, value] : all[i].features)
      columns.numbers[i * static_cast<std::size_t>(n_features) + static_cast<std::size_t>(index)] = value;
    if (!source.weights.is_null()) columns.weights.push_back(all[i].weight);
    if (source.label == LabelType::number) {
      columns.targets.push_back(all[i].number);
    } else {
      const auto found = std::ranges::find(schema.label.classes, all[i].label);
      columns.labels.push_back(static_cast<std::int32_t>(found - schema.label.classes.begin()));
    }
  }
  return std::make_unique<TableDataset>(std::move(schema), static_cast<std::int64_t>(all.size()),
                                        std::move(columns));
}

}  // namespace varscope
