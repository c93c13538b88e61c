#include "worker/data/table_builder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/text.h"
#include "common/config/utf8.h"
#include "worker/data/csv_reader.h"
#include "worker/data/raw_ids.h"

namespace varscope {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

constexpr const char* kNoAnswer =
    "rows without an answer cannot be learnt from: take them out, or say bad_records: skip";

// Words that are kept with the model, in JSON.
void require_utf8(const TableColumn& column, std::string_view word) {
  if (is_utf8(word)) return;
  throw TableBuilder::BadCell{
      column.index, fmt::format("column \"{}\": {} is no UTF-8; convert the file: iconv -f latin1 -t utf-8",
                                column.name, shown_cell(word))};
}

template <class T>
void append(std::vector<std::byte>& record, std::span<const T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (values.empty()) return;
  const std::size_t at = record.size();
  record.resize(at + values.size_bytes());
  std::memcpy(record.data() + at, values.data(), values.size_bytes());
}

template <class T>
void append(std::vector<std::byte>& record, const std::vector<T>& values) {
  append(record, std::span<const T>(values));
}

template <class T>
void take(std::span<const std::byte>& record, std::vector<T>& values, std::size_t n) {
  values.resize(n);
  if (n > 0) std::memcpy(values.data(), record.data(), n * sizeof(T));
  record = record.subspan(n * sizeof(T));
}

// The constants of one column, as far as they are fitted. All values are added in the order of the rows.
class ColumnFit {
 public:
  explicit ColumnFit(TableColumn& column) : column_(&column) {}

  bool needs_mean_of_present() const { return column_->is_missing_mean; }
  void see_present(double x) {
    if (std::isnan(x)) return;
    sum_ += x;
    ++n_;
    is_constant_ = is_constant_ && constant_.value_or(x) == x;
    constant_ = x;
  }
  void set_missing() {
    // A rounded mean would be beside the constant.
    column_->missing = n_ == 0 ? 0 : is_constant_ ? *constant_ : sum_ / static_cast<double>(n_);
    if (!std::isfinite(column_->missing))
      fail(ErrorKind::data,
           "column \"{}\": its numbers are too large for missing: mean; bring them to a smaller scale first",
           column_->name);
  }

  bool has_stage(std::size_t stage) const { return stage < column_->transforms.size(); }
  // Of what the transforms before `stage` make of the numbers.
  void begin_stage() {
    sum_ = squares_ = 0;
    n_ = 0;
  }
  void see(double x, std::size_t stage) {
    x = before(x, stage);
    if (n_ == 0 || x < least_) least_ = x;
    if (n_ == 0 || !(x < greatest_)) greatest_ = x;
    sum_ += x;
    ++n_;
  }
  // Whether the squares are needed too.
  bool end_of_sums(std::size_t stage) {
    Transform& t = column_->transforms[stage];
    if (n_ == 0) return false;
    if (t.type == Transform::Type::min_max) {
      t.a = least_;
      t.b = greatest_;
    }
    if (t.type != Transform::Type::standardize) return false;
    // A rounded mean would be beside the constant, and the deviation as small as that.
    t.a = least_ == greatest_ ? least_ : sum_ / static_cast<double>(n_);
    t.b = 1;
    return least_ != greatest_;
  }
  void see_square(double x, std::size_t stage) {
    const double deviation = before(x, stage) - column_->transforms[stage].a;
    squares_ += deviation * deviation;
  }
  void end_of_squares(std::size_t stage) {
    Transform& t = column_->transforms[stage];
    t.b = std::sqrt(squares_ / static_cast<double>(n_));
    if (!(t.b > 0)) t.b = 1;
  }
  void check(std::size_t stage) const {
    const Transform& t = column_->transforms[stage];
    if (n_ == 0 || t.type == Transform::Type::log1p ||
        (std::isfinite(t.a) && std::isfinite(t.b) && std::isfinite(greatest_ - least_)))
      return;
    fail(ErrorKind::data,
         "column \"{}\": its numbers, {} to {}, are too large for {}; bring them to a smaller scale first",
         column_->name, least_, greatest_, choice_name(kTransforms, t.type));
  }

 private:
  double before(double x, std::size_t stage) const {
    if (std::isnan(x)) x = column_->missing;
    for (std::size_t i = 0; i < stage; ++i) x = column_->transforms[i](x);
    return x;
  }

  TableColumn* column_;
  double sum_ = 0, squares_ = 0, least_ = 0, greatest_ = 0;
  std::int64_t n_ = 0;
  std::optional<double> constant_;
  bool is_constant_ = true;
};

}  // namespace

std::int32_t TableBuilder::Words::code(std::string word) {
  const auto [at, is_new] = codes.try_emplace(std::move(word), static_cast<std::int32_t>(codes.size()));
  if (is_new) words.push_back(&at->first);
  return at->second;
}

TableBuilder::TableBuilder(TableSchema schema, bool is_fitted, WithoutWeight without,
                           const std::filesystem::path& folder)
    : schema_(std::move(schema)), is_fitted_(is_fitted), without_(without), folder_(folder) {
  if (!folder.empty()) spool_ = RecordSpool(folder / "records");
  for (TableInput& input : schema_.inputs) {
    for (std::size_t k = 0; k < input.columns.size(); ++k) {
      TableColumn& c = input.columns[k];
      if (input.is_category) {
        words_.push_back({&input, &c, k, {}});
      } else {
        numbers_.push_back(&c);
      }
    }
  }
}

double TableBuilder::number(const TableColumn& column, std::string_view cell) const {
  if (const std::optional<double> value = number_in(cell)) return *value;
  if (!is_missing_cell(cell))
    throw BadCell{column.index,
                  fmt::format("column \"{}\": expected a number, got {}", column.name, shown_cell(cell))};
  if (column.takes_missing) return kMissing;
  throw BadCell{
      column.index,
      fmt::format("column \"{}\": has no value ({}); say what is missing counts as, missing: mean or "
                  "missing: 0 of the input in the schema",
                  column.name, shown_cell(cell))};
}

// A word of the row's, or the id that it says.
void TableBuilder::add_word(const WordColumn& words, std::string_view word, double weight) {
  const TableColumn& column = *words.column;
  if (!words.has_row_ids()) {
    if (words.has_vocabulary()) require_utf8(column, word);
    row_words_.emplace_back(word);
  } else if (*words.input->row_ids == IdType::string) {
    row_.row_ids.push_back(word_id(word, words.place));
  } else {
    const std::optional<std::uint64_t> id = number_id_in(*words.input->row_ids, word);
    if (!id)
      throw BadCell{column.index,
                    fmt::format("column \"{}\": {}", column.name, no_id_text(*words.input->row_ids, word))};
    row_.row_ids.push_back(*id);
  }
  if (words.input->has_id_weights) row_.word_weights.push_back(weight);
  ++row_.counts.back();
}

bool TableBuilder::take_missing_id(const WordColumn& words, std::string_view cell) {
  if (!words.has_row_ids() || *words.input->row_ids == IdType::string || !is_missing_cell(cell)) return false;
  if (words.input->is_bag) return true;
  if (!words.input->missing_id) {
    throw BadCell{
        words.column->index,
        fmt::format("column \"{}\": has no value ({}); say which id it counts as, missing: 0 of the "
                    "input in the schema",
                    words.column->name, shown_cell(cell))};
  }
  row_.row_ids.push_back(*words.input->missing_id);
  ++row_.counts.back();
  return true;
}

// The words of the column in this row: one, or those of a bag, with their weights.
void TableBuilder::take_words(const WordColumn& words, std::span<const std::string_view> cells) {
  const TableInput& input = *words.input;
  const TableColumn& column = *words.column;
  const auto cell = [&](std::int64_t index) { return trimmed_cell(cells[static_cast<std::size_t>(index)]); };
  row_.counts.push_back(0);
  if (!column.crossed.empty()) {
    std::string word;  // with sizes, so that no two pairs are one text
    for (const TableCell& c : column.crossed)
      word += fmt::format("{}:{}", cell(c.index).size(), cell(c.index));
    return add_word(words, word, 1);
  }
  std::string_view rest = cell(column.index);
  if (take_missing_id(words, rest)) return;
  if (!input.is_bag) return add_word(words, rest, 1);
  while (!rest.empty()) {
    const std::size_t end = rest.find(input.split);
    std::string_view word = trimmed_cell(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + input.split.size());
    double weight = 1;
    const std::size_t colon = input.has_id_weights ? word.rfind(':') : std::string_view::npos;
    if (colon != std::string_view::npos) {
      const std::optional<double> number = number_in(word.substr(colon + 1));
      if (!number || trimmed_cell(word.substr(0, colon)).empty()) {
        throw BadCell{column.index, fmt::format("column \"{}\": expected words, or word:weight, got {}",
                                                column.name, shown_cell(word))};
      }
      if (!is_id_weight(*number))
        throw BadCell{column.index,
                      fmt::format("column \"{}\": {}", column.name, no_id_weight_text(*number))};
      weight = *number;
      word = trimmed_cell(word.substr(0, colon));
    }
    if (!word.empty()) add_word(words, word, weight);
  }
}

// Into row_.targets, or `name`.
void TableBuilder::take_labels(std::span<const std::string_view> cells, std::string& name) {
  for (const TableColumn& c : schema_.label.columns) {
    const std::string_view cell = cells[static_cast<std::size_t>(c.index)];
    if (schema_.label.type == LabelType::number) {
      if (!is_missing_cell(cell)) {
        row_.targets.push_back(number(c, cell));
        continue;
      }
      if (!answers_all())
        throw BadCell{c.index, fmt::format("column \"{}\": has no value ({}); {}", c.name, shown_cell(cell),
                                           kNoAnswer)};
      lacks_labels_ = true;
      row_.targets.push_back(0);
      continue;
    }
    name = class_names_.of(cell);
    const std::vector<std::string>& classes = schema_.label.classes;
    if (answers_all() && std::ranges::find(classes, name) == classes.end()) {
      lacks_labels_ = true;
      name = classes.front();
    }
    if (name.empty())
      throw BadCell{c.index, fmt::format("column \"{}\": has no class; {}", c.name, kNoAnswer)};
    if (classes.empty() && is_missing_cell(cell)) {
      throw BadCell{c.index,
                    fmt::format("column \"{}\": has no class ({}); {}; where that is a class, name all of "
                                "them, classes: [...] of the label in the schema",
                                c.name, shown_cell(cell), kNoAnswer)};
    }
    require_utf8(c, name);
    if (!classes.empty() && std::ranges::find(classes, name) == classes.end()) {
      std::vector<std::string> shown(classes.begin(),
                                     classes.begin() + std::min<std::ptrdiff_t>(20, std::ssize(classes)));
      if (shown.size() < classes.size()) shown.emplace_back("...");
      throw BadCell{c.index,
                    fmt::format("column \"{}\": {} is no class; there are {} (classes: of the label in the "
                                "schema names others)",
                                c.name, shown_cell(name), comma_list(shown))};
    }
  }
}

void TableBuilder::add(std::span<const std::string_view> cells) {
  const auto cell = [&](const TableColumn& c) { return cells[static_cast<std::size_t>(c.index)]; };
  row_.numbers.clear();
  row_.targets.clear();
  row_.counts.clear();
  row_.codes.clear();
  row_.row_ids.clear();
  row_.word_weights.clear();
  row_words_.clear();
  for (const TableColumn* c : numbers_) row_.numbers.push_back(number(*c, cell(*c)));
  for (const WordColumn& w : words_) take_words(w, cells);
  std::string name;
  if (!schema_.label.is_absent) take_labels(cells, name);
  if (schema_.weight) {
    const std::optional<double> weight = weight_in(cell(*schema_.weight));
    if (!weight) {
      throw BadCell{schema_.weight->index, fmt::format("column \"{}\": {}", schema_.weight->name,
                                                       no_weight_text(cell(*schema_.weight)))};
    }
    if (*weight == 0 && without_ == WithoutWeight::left_out) {
      ++n_left_out_;
      return;
    }
    row_.weight = *weight;
  }
  take_codes();
  if (has_classes()) row_.label = class_words_.code(std::move(name));
  keep_row();
}

// Of the row's words.
void TableBuilder::take_codes() {
  std::size_t word = 0;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    if (words_[i].has_row_ids()) continue;
    const std::int64_t buckets = words_[i].column->buckets;
    for (const std::size_t end = word + row_.counts[i]; word < end; ++word) {
      std::string& text = row_words_[word];
      row_.codes.push_back(buckets > 0
                               ? static_cast<std::int32_t>(hash64(text) % static_cast<std::uint64_t>(buckets))
                               : words_[i].words.code(std::move(text)));
    }
  }
}

void TableBuilder::keep_row() {
  record_.clear();
  append(record_, std::span<const double>(&row_.weight, 1));
  append(record_, row_.numbers);
  append(record_, std::span<const std::int32_t>(&row_.label, 1));
  append(record_, row_.targets);
  append(record_, row_.counts);
  append(record_, row_.codes);
  append(record_, row_.row_ids);
  append(record_, row_.word_weights);
  spool_.add(record_);
}

void TableBuilder::read_row(std::span<const std::byte> record) {
  const auto take_one = [&](auto& value) {
    std::memcpy(&value, record.data(), sizeof value);
    record = record.subspan(sizeof value);
  };
  take_one(row_.weight);
  take(record, row_.numbers, numbers_.size());
  take_one(row_.label);
  take(
      record, row_.targets,
      schema_.label.type == LabelType::number && !schema_.label.is_absent ? schema_.label.columns.size() : 0);
  take(record, row_.counts, words_.size());
  std::size_t n_codes = 0, n_row_ids = 0, n_weights = 0;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    (words_[i].has_row_ids() ? n_row_ids : n_codes) += row_.counts[i];
    n_weights += words_[i].input->has_id_weights ? row_.counts[i] : 0;
  }
  take(record, row_.codes, n_codes);
  take(record, row_.row_ids, n_row_ids);
  take(record, row_.word_weights, n_weights);
}

template <class F>
void TableBuilder::for_each_row(const RowSelection& rows, F&& f) {
  std::int64_t row = 0;
  spool_.for_each([&](std::span<const std::byte> record) {
    if (rows.is_between(row)) {
      read_row(record);
      f(rows.has(row));
    }
    ++row;
  });
}

// Of the rows in their order: the mean of what is there; then each transform's constants, of what the one
// before made.
void TableBuilder::fit_numbers(const RowSelection& rows) {
  std::vector<ColumnFit> fits;
  fits.reserve(numbers_.size());
  for (TableColumn* c : numbers_) fits.emplace_back(*c);
  // One pass over the rows: see(fit, number) for the columns of which `takes` holds.
  const auto pass = [&](const auto& takes, const auto& see) {
    std::vector<std::size_t> of;
    for (std::size_t i = 0; i < fits.size(); ++i) {
      if (takes(i)) of.push_back(i);
    }
    if (of.empty()) return;
    for_each_row(rows, [&](bool is_sample) {
      if (!is_sample) return;
      for (const std::size_t i : of) see(fits[i], row_.numbers[i]);
    });
  };
  pass([&](std::size_t i) { return fits[i].needs_mean_of_present(); },
       [](ColumnFit& fit, double x) { fit.see_present(x); });
  for (ColumnFit& fit : fits) {
    if (fit.needs_mean_of_present()) fit.set_missing();
  }
  for (std::size_t stage = 0; std::ranges::any_of(fits, [&](const auto& f) { return f.has_stage(stage); });
       ++stage) {
    for (ColumnFit& fit : fits) fit.begin_stage();
    pass([&](std::size_t i) { return fits[i].has_stage(stage); },
         [&](ColumnFit& fit, double x) { fit.see(x, stage); });
    std::vector<bool> needs_squares(fits.size(), false);
    for (std::size_t i = 0; i < fits.size(); ++i)
      needs_squares[i] = fits[i].has_stage(stage) && fits[i].end_of_sums(stage);
    pass([&](std::size_t i) { return needs_squares[i]; },
         [&](ColumnFit& fit, double x) { fit.see_square(x, stage); });
    for (std::size_t i = 0; i < fits.size(); ++i) {
      if (needs_squares[i]) fits[i].end_of_squares(stage);
      if (fits[i].has_stage(stage)) fits[i].check(stage);
    }
  }
}

void TableBuilder::fit_words_and_classes(const RowSelection& rows) {
  std::vector<std::vector<std::int64_t>> counts;  // of each word, by column of words
  counts.reserve(words_.size());
  for (const WordColumn& w : words_) counts.emplace_back(w.words.words.size(), 0);
  std::vector<bool> occurs(class_words_.words.size(), false);
  const bool fits_classes = has_classes() && schema_.label.classes.empty();
  const bool has_vocabulary = std::ranges::any_of(words_, [](const auto& w) { return w.has_vocabulary(); });
  if (fits_classes || has_vocabulary) {
    for_each_row(rows, [&](bool is_sample) {
      if (fits_classes) occurs[static_cast<std::size_t>(row_.label)] = true;
      std::size_t at = 0;
      for (std::size_t i = 0; is_sample && i < words_.size(); ++i) {
        if (words_[i].has_row_ids()) continue;
        for (const std::size_t end = at + row_.counts[i]; at < end; ++at) {
          if (words_[i].column->buckets == 0) ++counts[i][static_cast<std::size_t>(row_.codes[at])];
        }
      }
    });
  }
  set_vocabularies(counts);
  if (!fits_classes) return;
  for (std::size_t i = 0; i < occurs.size(); ++i) {
    if (occurs[i]) schema_.label.classes.push_back(*class_words_.words[i]);
  }
  sort_classes(schema_.label.classes);
}

void TableBuilder::set_vocabularies(const std::vector<std::vector<std::int64_t>>& counts) {
  std::size_t at = 0;
  for (TableInput& input : schema_.inputs) {
    if (!input.is_category) continue;
    std::int64_t first_id = 0;
    if (input.row_ids) {
      at += input.columns.size();
      continue;
    }
    for (TableColumn& c : input.columns) {
      c.first_id = first_id;
      const Words& words = words_[at].words;
      std::vector<std::pair<std::int64_t, std::string>> sorted;
      for (std::size_t w = 0; w < words.words.size(); ++w) {
        if (counts[at][w] >= c.min_count) sorted.emplace_back(-counts[at][w], *words.words[w]);
      }
      std::ranges::sort(sorted);
      for (auto& [count, word] : sorted) {
        if (static_cast<std::int64_t>(c.vocabulary.size()) + 1 >= c.most_words) break;
        c.vocabulary.push_back(std::move(word));
      }
      first_id += c.n_ids();
      ++at;
    }
    if (first_id > std::numeric_limits<std::int32_t>::max())
      fail(ErrorKind::config, "schema.features.{}: {} ids are more than an input can have", input.name,
           first_id);
  }
}

std::vector<std::int32_t> TableBuilder::ids_of(const WordColumn& column) {
  std::unordered_map<std::string_view, std::int64_t> known;
  for (std::size_t i = 0; i < column.column->vocabulary.size(); ++i)
    known[column.column->vocabulary[i]] = static_cast<std::int64_t>(i) + 1;
  std::vector<std::int32_t> ids;
  ids.reserve(column.words.words.size());
  for (const std::string* word : column.words.words) {
    const auto found = known.find(*word);
    ids.push_back(static_cast<std::int32_t>(column.column->first_id +
                                            (found == known.end() ? std::int64_t{0} : found->second)));
  }
  return ids;
}

void TableBuilder::add_numbers(const TableInput& input, Places& at, TableColumns& columns) const {
  const auto numbers = std::span(row_.numbers).subspan(at.number, input.columns.size());
  for (std::size_t k = 0; k < numbers.size(); ++k) {
    const TableColumn& c = input.columns[k];
    double x = std::isnan(numbers[k]) ? c.missing : numbers[k];
    for (const Transform& t : c.transforms) x = t(x);
    columns.numbers.push_back(x);
  }
  for (std::size_t k = 0; input.indicator && k < numbers.size(); ++k)
    columns.numbers.push_back(std::isnan(numbers[k]) ? 1 : 0);
  at.number += numbers.size();
}

void TableBuilder::add_ids(const TableInput& input, const std::vector<std::vector<std::int32_t>>& ids,
                           Places& at, TableColumns& columns) const {
  TableColumns::Bags* bags = input.is_bag ? &columns.bags[at.bag++] : nullptr;
  for (const TableColumn& c : input.columns) {
    const std::size_t n = row_.counts[at.column];
    for (const std::size_t end = at.word + n; at.word < end; ++at.word) {
      const std::int32_t code = row_.codes[at.word];
      const std::int32_t id = c.buckets > 0 ? static_cast<std::int32_t>(c.first_id) + code
                                            : ids[at.column][static_cast<std::size_t>(code)];
      (bags == nullptr ? columns.ids : bags->ids).push_back(id);
      if (input.has_id_weights) bags->weights.push_back(row_.word_weights[at.weight++]);
      if (c.buckets > 0) continue;
      ++columns.unknown.of;
      if (id == c.first_id) ++columns.unknown.n;
    }
    ++at.column;
  }
  if (bags != nullptr) bags->offsets.push_back(static_cast<std::int64_t>(bags->ids.size()));
}

void TableBuilder::add_row_ids(const TableInput& input, Places& at, TableColumns& columns) const {
  TableColumns::Bags* bags = input.is_bag ? &columns.bags[at.bag++] : nullptr;
  GrowingArray<std::int64_t>& to = bags == nullptr ? columns.row_ids : bags->row_ids;
  for (std::size_t k = 0; k < input.columns.size(); ++k) {
    for (const std::size_t end = at.row_id + row_.counts[at.column]; at.row_id < end; ++at.row_id) {
      to.push_back(static_cast<std::int64_t>(row_.row_ids[at.row_id]));
      if (input.has_id_weights) bags->weights.push_back(row_.word_weights[at.weight++]);
    }
    ++at.column;
  }
  if (bags != nullptr) bags->offsets.push_back(static_cast<std::int64_t>(to.size()));
}

// Those of row_.
void TableBuilder::add_inputs(const std::vector<std::vector<std::int32_t>>& ids,
                              TableColumns& columns) const {
  Places at;
  for (const TableInput& input : schema_.inputs) {
    if (input.row_ids) {
      add_row_ids(input, at, columns);
    } else if (input.is_category) {
      add_ids(input, ids, at, columns);
    } else {
      add_numbers(input, at, columns);
    }
  }
}

std::unique_ptr<TableDataset> TableBuilder::build(const RowSelection& rows, LeftOut left_out) {
  if (!is_fitted_) {
    fit_numbers(rows);
    fit_words_and_classes(rows);
  }
  std::vector<std::vector<std::int32_t>> ids;  // by column of words, by code
  ids.reserve(words_.size());
  for (const WordColumn& w : words_) ids.push_back(ids_of(w));
  const std::vector<std::string>& classes = schema_.label.classes;
  std::vector<std::int32_t> class_of_code;
  class_of_code.reserve(class_words_.words.size());
  for (const std::string* word : class_words_.words)
    class_of_code.push_back(static_cast<std::int32_t>(std::ranges::find(classes, *word) - classes.begin()));
  const bool is_class = schema_.label.type == LabelType::cls,
             is_absent = schema_.label.is_absent || lacks_labels_;
  const std::vector<double> no_targets(is_class ? 0 : schema_.label.columns.size(), 0);
  TableColumns columns = TableColumns::make(schema_, folder_);
  std::int64_t n = 0;
  for_each_row(rows, [&](bool is_sample) {
    if (!is_sample) return;
    add_inputs(ids, columns);
    if (is_class)
      columns.labels.push_back(is_absent ? 0 : class_of_code[static_cast<std::size_t>(row_.label)]);
    columns.targets.add(is_class || !is_absent ? row_.targets : no_targets);
    if (schema_.weight) columns.weights.push_back(row_.weight);
    ++n;
  });
  columns.finish();
  TableSchema schema = schema_;
  schema.label.is_absent = is_absent;
  return std::make_unique<TableDataset>(std::move(schema), n, std::move(columns), std::move(left_out));
}

}  // namespace varscope
