// Rows of label index:value ...
#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/config/utf8.h"
#include "worker/data/csv.h"
#include "worker/data/csv_reader.h"
#include "worker/data/growing_array.h"
#include "worker/data/raw_ids.h"
#include "worker/data/split.h"
#include "worker/data/table.h"
#include "worker/data/table_cache.h"

namespace varscope {
namespace {

constexpr std::int64_t kMostFeatures = 1 << 24;
constexpr std::int64_t kMostDense =
    100'000;  // features of an input of numbers: each has a column of the schema

struct Feature {
  std::int64_t index = 0;  // from 0 on; of ids of rows their bits
  double value = 0;
};

// What a line says.
struct Row {
  std::uint32_t file = 0;  // its number
  std::int64_t line = 0;
  bool has_label = true;
  std::int32_t label = 0;  // the number of its class, in the order in which they were met
  double number = 0;       // or this
  std::vector<Feature> features = {};
};

class LibsvmReader {
 public:
  // `ids`: the indices are ids of rows.
  LibsvmReader(const LibsvmSource& source, std::int64_t n_features, std::optional<IdType> ids,
               bool may_lack_labels)
      : source_(source), n_features_(n_features), ids_(ids), may_lack_labels_(may_lack_labels) {}

  // The line without its comment.
  void read(const CsvReader& reader, const CsvRecord& record, Row& row, std::string& label) {
    std::string_view rest = record.cells.front();
    rest = rest.substr(0, rest.find('#'));
    const char* begin = rest.data();
    const auto place = [&](std::string_view word) {
      return TextPlace{reader.name(), record.line, word.data() - begin + 1}.str();
    };
    row.line = record.line;
    row.has_label = true;
    row.features.clear();
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
          take_label(row, label, word, place);
          continue;
        }
      }
      if (word.starts_with("qid:")) continue;
      const std::size_t colon = word.find(':');
      if (ids_) {
        take_id(row, word, colon, place);
        continue;
      }
      take_index(row, word, colon, before, place);
    }
  }

 private:
  template <class Place>
  void take_index(Row& row, std::string_view word, std::size_t colon, std::int64_t& before,
                  const Place& place) const {
    std::int64_t index = 0;
    const auto [end, error] =
        std::from_chars(&word.front(), &word.front() + std::min(colon, word.size()), index);
    if (colon == std::string_view::npos || error != std::errc() || end != &word.front() + colon)
      fail(ErrorKind::data, "{}: expected index:value, got {}", place(word), shown_cell(word));
    const std::optional<double> value = number_in(word.substr(colon + 1));
    if (!value)
      fail(ErrorKind::data, "{}: expected a number behind the colon, got {}", place(word), shown_cell(word));
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
      if (source_.drop_unknown) return;
      fail(
          ErrorKind::data,
          "{}: feature {} is beyond those of the training data, which end at {}; say features: {} or more in "
          "data.train, or drop_unknown: true here",
          place(word), index + source_.base, n_features_ - 1 + source_.base, index + 1);
    }
    if (source_.bags && !is_id_weight(*value))
      fail(ErrorKind::data, "{}: {}", place(word), no_id_weight_text(*value));
    row.features.push_back({index, *value});
  }

  template <class Place>
  void take_id(Row& row, std::string_view word, std::size_t colon, const Place& place) const {
    if (colon == std::string_view::npos)
      fail(ErrorKind::data, "{}: expected id:value, got {}", place(word), shown_cell(word));
    const std::optional<std::uint64_t> id = number_id_in(*ids_, word.substr(0, colon));
    if (!id) fail(ErrorKind::data, "{}: {}", place(word), no_id_text(*ids_, word.substr(0, colon)));
    const std::optional<double> value = number_in(word.substr(colon + 1));
    if (!value)
      fail(ErrorKind::data, "{}: expected a number behind the colon, got {}", place(word), shown_cell(word));
    if (!is_id_weight(*value)) fail(ErrorKind::data, "{}: {}", place(word), no_id_weight_text(*value));
    row.features.push_back({static_cast<std::int64_t>(*id), *value});
  }

  template <class Place>
  void take_label(Row& row, std::string& label, std::string_view word, const Place& place) {
    if (word.find(':') != std::string_view::npos)
      fail(ErrorKind::data, "{}: expected a label before the first index:value, got {}", place(word),
           shown_cell(word));
    if (source_.label == LabelType::cls) {
      if (!is_utf8(word))
        fail(ErrorKind::data, "{}: the label {} is no UTF-8; convert the file: iconv -f latin1 -t utf-8",
             place(word), shown_cell(word));
      label = class_names_.of(word);
      return;
    }
    const std::optional<double> value = number_in(word);
    if (!value)
      fail(ErrorKind::data, "{}: expected a number as the label, got {}", place(word), shown_cell(word));
    row.number = *value;
  }

  const LibsvmSource& source_;
  std::int64_t n_features_;
  std::optional<IdType> ids_;
  bool may_lack_labels_;
  ClassNames class_names_;
};

// What `ids` says.
std::optional<IdType> row_ids_of(const LibsvmSource& source) {
  const ConfigNode& ids = source.ids;
  if (ids.is_null()) return std::nullopt;
  const bool is_signed = ids.is_scalar() && ids.scalar == "int64";
  if (!is_signed && !(ids.is_scalar() && ids.scalar == "uint64"))
    fail(ErrorKind::config, "ids: expected one of int64, uint64, got {}", ids.describe());
  return is_signed ? IdType::int64 : IdType::uint64;
}

// The rows of a file, kept until all are there, and what becomes of them. One thread.
class LibsvmTable {
 public:
  // `folder`: where rows and samples are kept; empty: in memory.
  LibsvmTable(const LibsvmSource& source, const SourceContext& context, const std::filesystem::path& folder)
      : source_(source),
        context_(context),
        folder_(folder),
        files_(files_of(source.files, context.root)),
        progress_(context_, files_),
        is_training_(context.schema.empty()),
        schema_(is_training_ ? TableSchema() : schema_from_json(context.schema)),
        ids_(is_training_ ? row_ids_of(source) : schema_.inputs.front().row_ids) {
    if (!folder.empty()) spool_ = RecordSpool(folder / "records");
    if (context.split) part_.emplace(*context.split, context.position);
  }

  std::unique_ptr<TableDataset> open() {
    for (const std::string& name : schema_.label.classes) code_of(name);
    read_rows();
    if (spool_.size() == 0) return nullptr;
    if (!source_.weights.is_null()) read_weights();
    see_rows();
    if (part_) part_->require_some(n_rows_);
    if (is_training_) set_schema();
    return make();
  }

 private:
  std::int32_t code_of(const std::string& name) {
    const auto [at, is_new] = codes_.try_emplace(name, static_cast<std::int32_t>(classes_.size()));
    if (is_new) classes_.push_back(name);
    return at->second;
  }

  // All rows of the files. With bad_records: skip those that cannot be read are left out.
  void read_rows() {
    LibsvmReader lines(source_, is_training_ ? source_.features : n_features(), ids_,
                       context_.may_lack_labels);
    for (std::size_t i = 0; i < files_.size(); ++i) {
      CsvReader reader(files_[i], '\0');
      CsvRecord record;
      while (reader.next(record)) {
        progress_.at(reader.n_read());
        const std::string_view line = record.cells.front();
        if (line.find_first_not_of(" \t\r") == std::string_view::npos || line.starts_with('#')) continue;
        try {
          row_.file = static_cast<std::uint32_t>(i);
          read_row(lines, reader, record);
        } catch (const Error& e) {
          if (source_.bad_records == BadRecords::fail) throw;
          left_out_.add(e.what());
        }
      }
      progress_.end_of_file();
    }
    left_out_.of = spool_.size() + left_out_.n;
    left_out_.check(source_.max_bad_share);
    const bool may_be_empty = context_.may_be_empty && left_out_.n == 0;
    if (spool_.size() == 0 && !may_be_empty)
      fail(ErrorKind::data, "{}: has no rows", files_.front().string());
  }

  void read_row(LibsvmReader& lines, const CsvReader& reader, const CsvRecord& record) {
    if (!record.problem.empty())
      fail(ErrorKind::data, "{}: {}", TextPlace{reader.name(), record.line, record.problem_column}.str(),
           record.problem);
    lines.read(reader, record, row_, label_);
    if (source_.label == LabelType::cls && row_.has_label) {
      const std::vector<std::string>& classes = schema_.label.classes;
      if (classes.empty() || codes_.contains(label_)) {
        row_.label = code_of(label_);
      } else {
        row_.has_label = false;
        if (!context_.may_lack_labels)
          fail(ErrorKind::data, "{}: {} is no class; there are {}", place(), shown_cell(label_),
               fmt::join(classes, ", "));
      }
    }
    keep_row();
  }
  std::string place() const { return TextPlace{files_[row_.file].string(), row_.line}.str(); }

  void keep_row() {
    const Fixed fixed{row_.line, row_.number, row_.file, row_.label, row_.has_label ? 1U : 0U};
    const auto features = std::as_bytes(std::span(row_.features));
    record_.resize(sizeof fixed + features.size());
    std::memcpy(record_.data(), &fixed, sizeof fixed);
    if (!features.empty()) std::memcpy(record_.data() + sizeof fixed, features.data(), features.size());
    spool_.add(record_);
  }

  // f() for each row, with row_ and its weight.
  template <class F>
  void for_each_row(F&& f) {
    std::size_t i = 0;
    spool_.for_each([&](std::span<const std::byte> record) {
      Fixed fixed{};
      std::memcpy(&fixed, record.data(), sizeof fixed);
      record = record.subspan(sizeof fixed);
      row_.line = fixed.line;
      row_.number = fixed.number;
      row_.file = fixed.file;
      row_.label = fixed.label;
      row_.has_label = fixed.has_label != 0;
      row_.features.resize(record.size() / sizeof(Feature));
      if (!record.empty()) std::memcpy(row_.features.data(), record.data(), record.size());
      f(weights_.empty() ? 1.0 : weights_.view()[i]);
      ++i;
    });
  }

  // One number a line: a file beside the data, as LightGBM and XGBoost have it.
  void read_weights() {
    if (!folder_.empty()) weights_ = GrowingArray<double>(folder_ / "row_weights");
    TextPlace last;
    for (const auto& file : files_of(source_.weights, context_.root)) {
      CsvReader reader(file, '\0');
      CsvRecord record;
      while (reader.next(record)) {
        std::string_view line = record.cells.front();
        if (line.ends_with('\r')) line.remove_suffix(1);
        last = {reader.name(), record.line};
        if (std::cmp_equal(weights_.size(), spool_.size())) {
          fail(ErrorKind::data, "{}: a weight more than there are rows, which are {}", last.str(),
               spool_.size());
        }
        const std::optional<double> weight = weight_in(line);
        if (!weight) fail(ErrorKind::data, "{}: {}", last.str(), no_weight_text(line));
        weights_.push_back(*weight);
      }
    }
    weights_.finish();
    weights_.map();
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove(folder_ / "row_weights", ignored);
    if (std::cmp_less(weights_.size(), spool_.size())) fail_for_missing_weight(last);
    if (std::ranges::all_of(weights_.view(), [](double w) { return w == 0; }))
      fail(ErrorKind::data, "{}: all weights are 0", last.str());
  }
  [[noreturn]] void fail_for_missing_weight(const TextPlace& last) {
    std::string first;
    std::size_t i = 0;
    spool_.for_each([&](std::span<const std::byte> record) {
      if (i++ != weights_.size()) return;
      Fixed fixed{};
      std::memcpy(&fixed, record.data(), sizeof fixed);
      first = TextPlace{files_[fixed.file].string(), fixed.line}.str();
    });
    fail(ErrorKind::data, "{}: there are {} weights for {} rows; the row at {} has none", last.str(),
         weights_.size(), spool_.size(), first);
  }

  // What the rows have that count: those of weight 0 are as if they were not there.
  void see_rows() {
    occurs_.assign(classes_.size(), false);
    for_each_row([&](double weight) {
      if (weight == 0) return;
      if (row_.has_label && !occurs_.empty()) occurs_[static_cast<std::size_t>(row_.label)] = true;
      if (!ids_ && !row_.features.empty())
        n_features_ = std::max(n_features_, row_.features.back().index + 1);
      if (is_sample(n_rows_)) all_have_labels_ = all_have_labels_ && row_.has_label;
      ++n_rows_;
    });
  }
  bool is_sample(std::int64_t row) const { return !part_ || part_->has(row); }

  // What the training data are: a column for each feature, or one input whose ids are the features.
  void set_schema() {
    const std::int64_t n = source_.features > 0 ? source_.features : std::max<std::int64_t>(n_features_, 1);
    if (!source_.bags && n > kMostDense) {
      fail(
          ErrorKind::config,
          "{}: the rows have features up to {}, and all of a row as numbers would be {}; say bags: true: ids and "
          "values, for a layer of type embedding",
          files_.front().string(), n - 1 + source_.base, bytes_text(8 * n));
    }
    TableInput& input = schema_.inputs.emplace_back();
    if (source_.bags) {
      input.is_category = input.is_bag = input.has_id_weights = true;
      input.columns.push_back({.name = "features", .buckets = ids_ ? 0 : n});
      input.row_ids = ids_;
    }
    for (std::int64_t i = 0; !source_.bags && i < n; ++i)
      input.columns.push_back({.name = std::to_string(i + source_.base), .index = i});
    schema_.label.type = source_.label;
    schema_.label.columns.push_back({.name = "label"});
    if (source_.label != LabelType::cls) return;
    for (std::size_t i = 0; i < classes_.size(); ++i) {
      if (occurs_[i]) schema_.label.classes.push_back(classes_[i]);
    }
    sort_classes(schema_.label.classes);
  }

  std::int64_t n_features() const {
    const TableInput& input = schema_.inputs.front();
    return input.is_bag ? input.columns.front().buckets : input.width();
  }

  std::unique_ptr<TableDataset> make() {
    // What is to be predicted: an answer of which nothing is known counts as none, and so do the others.
    if (!all_have_labels_) schema_.label.is_absent = true;
    std::vector<std::int32_t> class_of_code;
    class_of_code.reserve(classes_.size());
    for (const std::string& name : classes_) {
      class_of_code.push_back(static_cast<std::int32_t>(std::ranges::find(schema_.label.classes, name) -
                                                        schema_.label.classes.begin()));
    }
    TableColumns columns = TableColumns::make(schema_, folder_);
    const bool is_class = source_.label == LabelType::cls, is_absent = schema_.label.is_absent;
    std::vector<double> numbers(schema_.inputs.front().is_bag ? 0 : static_cast<std::size_t>(n_features()));
    std::int64_t row = 0, n = 0;
    for_each_row([&](double weight) {
      if (weight == 0 || !is_sample(row++)) return;
      ++n;
      add_features(columns, numbers);
      if (!weights_.empty()) columns.weights.push_back(weight);
      if (!is_class) columns.targets.push_back(row_.number);
      if (is_class)
        columns.labels.push_back(is_absent ? 0 : class_of_code[static_cast<std::size_t>(row_.label)]);
    });
    columns.finish();
    return std::make_unique<TableDataset>(std::move(schema_), n, std::move(columns), std::move(left_out_));
  }

  void add_features(TableColumns& columns, std::vector<double>& numbers) const {
    if (columns.bags.empty()) {
      for (const Feature& f : row_.features) numbers[static_cast<std::size_t>(f.index)] = f.value;
      columns.numbers.add(numbers);
      for (const Feature& f : row_.features) numbers[static_cast<std::size_t>(f.index)] = 0;
      return;
    }
    TableColumns::Bags& bags = columns.bags.front();
    for (const Feature& f : row_.features) {
      if (ids_) {
        bags.row_ids.push_back(f.index);
      } else {
        bags.ids.push_back(static_cast<std::int32_t>(f.index));
      }
      bags.weights.push_back(f.value);
    }
    bags.offsets.push_back(static_cast<std::int64_t>(bags.weights.size()));
  }

  // Of a record in the spool; its features follow.
  struct Fixed {
    std::int64_t line;
    double number;
    std::uint32_t file;
    std::int32_t label;
    std::uint64_t has_label;
  };

  const LibsvmSource& source_;
  const SourceContext& context_;
  std::filesystem::path folder_;
  std::vector<std::filesystem::path> files_;
  ReadingProgress progress_;
  bool is_training_;
  TableSchema schema_;
  std::optional<IdType> ids_;  // of rows, instead of indices
  std::optional<PartOfSplit> part_;
  RecordSpool spool_;
  GrowingArray<double> weights_;  // of each row that was read, or none
  LeftOut left_out_;
  std::unordered_map<std::string, std::int32_t> codes_;  // of classes
  std::vector<std::string> classes_;                     // by code
  std::vector<bool> occurs_;                             // by code
  std::int64_t n_rows_ = 0, n_features_ = 0;             // that count
  bool all_have_labels_ = true;
  Row row_;
  std::string label_;
  std::vector<std::byte> record_;
};

}  // namespace

void check_libsvm(const LibsvmSource& source) {
  if (!row_ids_of(source)) return;
  if (!source.bags) fail(ErrorKind::config, "ids: is for bags; say bags: true");
  const char* unused = source.base != 1       ? "base"
                       : source.features != 0 ? "features"
                       : source.drop_unknown  ? "drop_unknown"
                                              : nullptr;
  if (unused != nullptr)
    fail(ErrorKind::config, "{}: is for indices; with ids there is no range of them; remove it", unused);
}

std::unique_ptr<Dataset> open_libsvm(const LibsvmSource& source, const SourceContext& context) {
  check_libsvm(source);
  std::vector<std::filesystem::path> files = files_of(source.files, context.root);
  if (!source.weights.is_null()) {
    const auto weights = files_of(source.weights, context.root);
    files.insert(files.end(), weights.begin(), weights.end());
  }
  return open_table(
      {table_keys("libsvm", dump_keys(source), context), std::move(files)}, context,
      [&](const std::filesystem::path& folder) { return LibsvmTable(source, context, folder).open(); });
}

}  // namespace varscope
