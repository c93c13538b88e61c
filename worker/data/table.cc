#include "worker/data/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/text.h"
#include "common/config/utf8.h"
#include "worker/data/csv_reader.h"

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
void copy_numbers(std::span<const double> from, T* to) {
  std::ranges::transform(from, to, [](double x) { return static_cast<T>(x); });
}

void copy_numbers(std::span<const double> from, const TensorView& to, std::int64_t at) {
  if (to.dtype() == DType::float32) return copy_numbers(from, to.data<float>() + at);
  copy_numbers(from, to.data<double>() + at);
}

std::vector<const TableColumn*> columns_of(const TableSchema& schema, bool categories) {
  std::vector<const TableColumn*> columns;
  for (const TableInput& input : schema.inputs) {
    for (const TableColumn& c : input.columns) {
      if (input.is_category == categories) columns.push_back(&c);
    }
  }
  return columns;
}

}  // namespace

namespace {

std::int64_t most_of(const TableDataset::Bags& bags) {
  std::int64_t most = 0;
  for (std::size_t i = 1; i < bags.offsets.size(); ++i)
    most = std::max(most, bags.offsets[i] - bags.offsets[i - 1]);
  return most;
}

}  // namespace

TableDataset::TableDataset(TableSchema schema, std::int64_t n, Columns columns, LeftOut left_out)
    : schema_(std::move(schema)), n_(n), columns_(std::move(columns)), left_out_(std::move(left_out)) {
  std::size_t at_bag = 0;
  for (const TableInput& input : schema_.inputs) {
    for (InputSpec& spec : input.specs()) {
      if (spec.is_ragged()) spec.most = most_of(columns_.bags[at_bag]);
      specs_.push_back(std::move(spec));
    }
    if (input.is_bag) {
      ++at_bag;
    } else {
      (input.is_category ? n_ids_ : n_numbers_) += input.width();
    }
  }
  first_shape_ = specs_.front().shape;
  if (target() == Target::numbers)
    label_shape_ = Shape{static_cast<std::int64_t>(schema_.label.columns.size())};
}

std::vector<std::string> TableDataset::warnings() const {
  std::vector<std::string> lines;
  if (left_out_.n > 0) lines.push_back(left_out_.text());
  return lines;
}

std::optional<std::int64_t> TableDataset::only_class() const {
  const std::vector<std::int32_t>& labels = columns_.labels;
  if (!has_labels() || labels.size() < 2 ||
      std::ranges::adjacent_find(labels, std::not_equal_to()) != labels.end())
    return std::nullopt;
  return labels.front();
}

std::int64_t TableDataset::n_bytes() const {
  std::int64_t of_bags = 0;
  for (const Bags& bags : columns_.bags)
    of_bags += 8 * std::ssize(bags.offsets) + 4 * std::ssize(bags.ids) + 8 * std::ssize(bags.weights);
  return of_bags + n_ * (n_numbers_ * 8 + n_ids_ * 4 + (columns_.weights.empty() ? 0 : 8) +
                         (target() == Target::classes ? 4 : label_shape_.n_elements() * 8));
}

namespace {

bool is_real(DType dtype) { return dtype == DType::float32 || dtype == DType::float64; }

}  // namespace

// Of bags there must be room for the longest ones.
bool TableDataset::fits(const InputSpec& spec, const TensorView& x, std::int64_t n) const {
  const bool has_dtype =
      spec.features == Features::real ? is_real(x.dtype()) : x.dtype() == spec.dtype(x.dtype());
  if (!has_dtype) return false;
  if (!spec.is_ragged()) return x.shape() == spec.array_shape(n);
  return x.shape().rank() == 1 && x.n_elements() >= n * spec.most;
}

void TableDataset::check(std::span<const std::int64_t> indices, const BatchView& batch) const {
  const auto n = static_cast<std::int64_t>(indices.size());
  bool all_fit = batch.inputs.size() == specs_.size() && batch.y.shape() == batched(label_shape_, n) &&
                 (target() == Target::classes ? batch.y.dtype() == DType::int32 : is_real(batch.y.dtype()));
  for (std::size_t i = 0; all_fit && i < specs_.size(); ++i) all_fit = fits(specs_[i], batch.inputs[i], n);
  if (!all_fit) fail(ErrorKind::argument, "{} rows of a table do not fit into the batch", n);
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= n_) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, n_);
  }
}

void TableDataset::read_bags(std::span<const std::int64_t> indices, const Bags& bags,
                             std::span<const TensorView> to) const {
  std::int64_t* offsets = to[1].data<std::int64_t>();
  std::int64_t at = 0;
  for (const std::int64_t i : indices) {
    *offsets++ = at;
    const auto begin = static_cast<std::size_t>(bags.offsets[static_cast<std::size_t>(i)]);
    const std::size_t n = static_cast<std::size_t>(bags.offsets[static_cast<std::size_t>(i) + 1]) - begin;
    std::ranges::copy(std::span(bags.ids).subspan(begin, n), to[0].data<std::int32_t>() + at);
    if (to.size() > 2) copy_numbers(std::span(bags.weights).subspan(begin, n), to[2], at);
    at += static_cast<std::int64_t>(n);
  }
  *offsets = at;
}

void TableDataset::read(std::span<const std::int64_t> indices, const BatchView& batch) const {
  check(indices, batch);
  std::size_t k = 0, at_number = 0, at_id = 0, at_bag = 0;  // of the next input
  for (const TableInput& input : schema_.inputs) {
    if (input.is_bag) {
      const std::size_t n_arrays = input.has_id_weights ? 3 : 2;
      read_bags(indices, columns_.bags[at_bag++], std::span(batch.inputs).subspan(k, n_arrays));
      k += n_arrays;
      continue;
    }
    const auto width = static_cast<std::size_t>(input.width());
    std::int64_t to = 0;
    for (const std::int64_t index : indices) {
      const auto i = static_cast<std::size_t>(index);
      if (input.is_category) {
        const std::size_t from = i * static_cast<std::size_t>(n_ids_) + at_id;
        std::ranges::copy(std::span(columns_.ids).subspan(from, width),
                          batch.inputs[k].data<std::int32_t>() + to);
      } else {
        const std::size_t from = i * static_cast<std::size_t>(n_numbers_) + at_number;
        copy_numbers(std::span(columns_.numbers).subspan(from, width), batch.inputs[k], to);
      }
      to += static_cast<std::int64_t>(width);
    }
    (input.is_category ? at_id : at_number) += width;
    ++k;
  }
  const auto width = static_cast<std::size_t>(label_shape_.n_elements());
  for (std::size_t row = 0; row < indices.size(); ++row) {
    const auto i = static_cast<std::size_t>(indices[row]);
    if (target() == Target::classes) {
      batch.y.data<std::int32_t>()[row] = columns_.labels[i];
    } else {
      copy_numbers(std::span(columns_.targets).subspan(i * width, width), batch.y,
                   static_cast<std::int64_t>(row * width));
    }
  }
}

Digest TableDataset::content() const {
  Digester digester;
  digester.update(std::as_bytes(std::span(columns_.numbers)));
  digester.update(std::as_bytes(std::span(columns_.ids)));
  digester.update(std::as_bytes(std::span(columns_.labels)));
  digester.update(std::as_bytes(std::span(columns_.targets)));
  digester.update(std::as_bytes(std::span(columns_.weights)));
  for (const Bags& bags : columns_.bags) {
    digester.update(std::as_bytes(std::span(bags.offsets)));
    digester.update(std::as_bytes(std::span(bags.ids)));
    digester.update(std::as_bytes(std::span(bags.weights)));
  }
  return digester.finish();
}

Digest TableDataset::vocabulary_digest() const {
  Digester digester;
  bool any = false;
  const auto add = [&](const std::vector<std::string>& words) {
    for (const std::string& word : words) digester.update(fmt::format("{}:{}\n", word.size(), word));
    any = any || !words.empty();
  };
  for (const TableInput& input : schema_.inputs) {
    for (const TableColumn& c : input.columns) add(c.vocabulary);
  }
  add(schema_.label.classes);
  return any ? digester.finish() : Digest();
}

std::size_t TableBuilder::WordColumn::begin_of(std::int64_t row) const {
  if (!is_of_bag) return static_cast<std::size_t>(row);
  return row == 0 ? 0 : static_cast<std::size_t>(ends[static_cast<std::size_t>(row) - 1]);
}

std::span<const std::int32_t> TableBuilder::WordColumn::of_row(std::int64_t row) const {
  return std::span(codes).subspan(begin_of(row), begin_of(row + 1) - begin_of(row));
}

std::span<const double> TableBuilder::WordColumn::weights_of_row(std::int64_t row) const {
  if (!is_of_bag) return {};
  return std::span(weights).subspan(begin_of(row), begin_of(row + 1) - begin_of(row));
}

std::int32_t TableBuilder::Words::code(std::string word) {
  const auto [at, is_new] = codes.try_emplace(std::move(word), static_cast<std::int32_t>(codes.size()));
  if (is_new) words.push_back(&at->first);
  return at->second;
}

TableBuilder::TableBuilder(TableSchema schema, bool is_fitted, WithoutWeight without)
    : schema_(std::move(schema)), is_fitted_(is_fitted), without_(without) {
  numbers_.resize(columns_of(schema_, false).size());
  for (const TableInput& input : schema_.inputs) {
    for (std::size_t i = 0; input.is_category && i < input.columns.size(); ++i)
      words_.emplace_back().is_of_bag = input.is_bag;
  }
  targets_.resize(schema_.label.type == LabelType::number ? schema_.label.columns.size() : 0);
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

// The words of the column in this row: one, or those of a bag, with their weights.
void TableBuilder::take_words(const TableInput& input, const TableColumn& column,
                              std::span<const std::string_view> cells) {
  const auto cell = [&](std::int64_t index) { return trimmed_cell(cells[static_cast<std::size_t>(index)]); };
  const auto add_word = [&](std::string word, double weight) {
    if (column.buckets == 0) require_utf8(column, word);
    row_words_.push_back(std::move(word));
    row_word_weights_.push_back(weight);
    ++row_word_counts_.back();
  };
  row_word_counts_.push_back(0);
  if (!column.crossed.empty()) {
    std::string word;  // with sizes, so that no two pairs are one text
    for (const TableCell& c : column.crossed)
      word += fmt::format("{}:{}", cell(c.index).size(), cell(c.index));
    return add_word(std::move(word), 1);
  }
  std::string_view rest = cell(column.index);
  if (!input.is_bag) return add_word(std::string(rest), 1);
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
      weight = *number;
      word = trimmed_cell(word.substr(0, colon));
    }
    if (!word.empty()) add_word(std::string(word), weight);
  }
}

void TableBuilder::add(std::span<const std::string_view> cells) {
  const auto cell = [&](const TableColumn& c) { return cells[static_cast<std::size_t>(c.index)]; };
  row_numbers_.clear();
  row_words_.clear();
  row_word_weights_.clear();
  row_word_counts_.clear();
  row_targets_.clear();
  for (const TableInput& input : schema_.inputs) {
    for (const TableColumn& c : input.columns) {
      if (input.is_category) {
        take_words(input, c, cells);
      } else {
        row_numbers_.push_back(number(c, cell(c)));
      }
    }
  }
  std::string name;
  for (const TableColumn& c : schema_.label.columns) {
    if (schema_.label.is_absent) continue;
    if (schema_.label.type == LabelType::number) {
      if (is_missing_cell(cell(c))) {
        if (answers_all()) {
          lacks_labels_ = true;
          row_targets_.push_back(0);
          continue;
        }
        throw BadCell{c.index, fmt::format("column \"{}\": has no value ({}); {}", c.name,
                                           shown_cell(cell(c)), kNoAnswer)};
      }
      row_targets_.push_back(number(c, cell(c)));
      continue;
    }
    name = class_names_.of(cell(c));
    const std::vector<std::string>& known = schema_.label.classes;
    if (answers_all() && std::ranges::find(known, name) == known.end()) {
      lacks_labels_ = true;
      name = known.front();
    }
    if (name.empty())
      throw BadCell{c.index, fmt::format("column \"{}\": has no class; {}", c.name, kNoAnswer)};
    require_utf8(c, name);
    const std::vector<std::string>& classes = schema_.label.classes;
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
    weights_.push_back(*weight);
  }
  for (std::size_t i = 0; i < row_numbers_.size(); ++i) numbers_[i].push_back(row_numbers_[i]);
  std::size_t word = 0;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    for (const std::size_t end = word + row_word_counts_[i]; word < end; ++word) {
      words_[i].codes.push_back(words_[i].words.code(std::move(row_words_[word])));
      if (words_[i].is_of_bag) words_[i].weights.push_back(row_word_weights_[word]);
    }
    if (words_[i].is_of_bag) words_[i].ends.push_back(std::ssize(words_[i].codes));
  }
  for (std::size_t i = 0; i < row_targets_.size(); ++i) targets_[i].push_back(row_targets_[i]);
  if (schema_.label.type == LabelType::cls && !schema_.label.is_absent)
    classes_.push_back(class_words_.code(std::move(name)));
  ++n_;
}

// Of the training rows, in their order: the mean of what is there; then each transform's constants, of what
// the one before made.
void TableBuilder::fit_numbers(std::span<const std::int64_t> rows) {
  std::size_t at = 0;
  for (TableInput& input : schema_.inputs) {
    if (input.is_category) continue;
    for (TableColumn& c : input.columns) {
      const std::vector<double>& all = numbers_[at++];
      std::vector<double> values;
      values.reserve(rows.size());
      for (const std::int64_t i : rows) values.push_back(all[static_cast<std::size_t>(i)]);
      if (c.is_missing_mean) {
        double sum = 0;
        std::int64_t n = 0;
        std::optional<double> constant;
        bool is_constant = true;
        for (const double x : values) {
          if (std::isnan(x)) continue;
          sum += x;
          ++n;
          is_constant = is_constant && constant.value_or(x) == x;
          constant = x;
        }
        // A rounded mean would be beside the constant.
        c.missing = n == 0 ? 0 : is_constant ? *constant : sum / static_cast<double>(n);
        if (!std::isfinite(c.missing))
          fail(
              ErrorKind::data,
              "column \"{}\": its numbers are too large for missing: mean; bring them to a smaller scale first",
              c.name);
      }
      for (double& x : values) x = std::isnan(x) ? c.missing : x;
      const auto n = static_cast<double>(values.size());
      for (Transform& t : c.transforms) {
        const auto [least, greatest] = std::ranges::minmax(values);
        if (t.type == Transform::Type::standardize && least == greatest) {
          // A rounded mean would be beside the constant, and the deviation as small as that.
          t.a = least;
          t.b = 1;
        } else if (t.type == Transform::Type::standardize) {
          t.a = std::accumulate(values.begin(), values.end(), 0.0) / n;
          double squares = 0;
          for (const double x : values) squares += (x - t.a) * (x - t.a);
          t.b = std::sqrt(squares / n);
          if (!(t.b > 0)) t.b = 1;
        } else if (t.type == Transform::Type::min_max) {
          t.a = least;
          t.b = greatest;
        }
        if (t.type != Transform::Type::log1p &&
            !(std::isfinite(t.a) && std::isfinite(t.b) && std::isfinite(greatest - least))) {
          fail(
              ErrorKind::data,
              "column \"{}\": its numbers, {} to {}, are too large for {}; bring them to a smaller scale first",
              c.name, least, greatest, choice_name(kTransforms, t.type));
        }
        for (double& x : values) x = t(x);
      }
    }
  }
}

void TableBuilder::fit_words(std::span<const std::int64_t> rows) {
  std::size_t at = 0;
  for (TableInput& input : schema_.inputs) {
    if (!input.is_category) continue;
    std::int64_t first_id = 0;
    for (TableColumn& c : input.columns) {
      c.first_id = first_id;
      const WordColumn& column = words_[at++];
      const Words& words = column.words;
      if (c.buckets == 0) {
        std::vector<std::int64_t> counts(words.words.size(), 0);
        for (const std::int64_t i : rows) {
          for (const std::int32_t code : column.of_row(i)) ++counts[static_cast<std::size_t>(code)];
        }
        std::vector<std::pair<std::int64_t, std::string>> sorted;
        for (std::size_t w = 0; w < counts.size(); ++w) {
          if (counts[w] >= c.min_count) sorted.emplace_back(-counts[w], *words.words[w]);
        }
        std::ranges::sort(sorted);
        for (const auto& [count, word] : sorted) {
          if (static_cast<std::int64_t>(c.vocabulary.size()) + 1 >= c.most_words) break;
          c.vocabulary.push_back(word);
        }
      }
      first_id += c.n_ids();
    }
    if (first_id > std::numeric_limits<std::int32_t>::max())
      fail(ErrorKind::config, "schema.features.{}: {} ids are more than an input can have", input.name,
           first_id);
  }
}

void TableBuilder::fit_classes(std::span<const std::int64_t> rows) {
  if (schema_.label.type == LabelType::number || !schema_.label.classes.empty()) return;
  std::vector<bool> occurs(class_words_.words.size(), false);
  for (const std::int64_t i : rows)
    occurs[static_cast<std::size_t>(classes_[static_cast<std::size_t>(i)])] = true;
  for (std::size_t i = 0; i < occurs.size(); ++i) {
    if (occurs[i]) schema_.label.classes.push_back(*class_words_.words[i]);
  }
  sort_classes(schema_.label.classes);
}

std::vector<std::int32_t> TableBuilder::ids_of(const TableColumn& column, const Words& words) {
  std::unordered_map<std::string_view, std::int64_t> known;
  for (std::size_t i = 0; i < column.vocabulary.size(); ++i)
    known[column.vocabulary[i]] = static_cast<std::int64_t>(i) + 1;
  std::vector<std::int32_t> ids;
  for (const std::string* word : words.words) {
    std::int64_t id = 0;
    if (column.buckets > 0) {
      id = static_cast<std::int64_t>(hash64(*word) % static_cast<std::uint64_t>(column.buckets));
    } else if (const auto found = known.find(*word); found != known.end()) {
      id = found->second;
    }
    ids.push_back(static_cast<std::int32_t>(column.first_id + id));
  }
  return ids;
}

void TableBuilder::add_labels(std::span<const std::int64_t> rows, TableDataset::Columns& columns) const {
  const std::vector<std::string>& classes = schema_.label.classes;
  if (schema_.label.is_absent) {
    if (schema_.label.type == LabelType::cls) columns.labels.assign(rows.size(), 0);
    columns.targets.assign(rows.size() * targets_.size(), 0);
    return;
  }
  std::vector<std::int32_t> class_of_code;
  class_of_code.reserve(class_words_.words.size());
  for (const std::string* word : class_words_.words)
    class_of_code.push_back(static_cast<std::int32_t>(std::ranges::find(classes, *word) - classes.begin()));
  for (const std::int64_t row : rows) {
    const auto i = static_cast<std::size_t>(row);
    for (const std::vector<double>& target : targets_) columns.targets.push_back(target[i]);
    if (!classes_.empty()) columns.labels.push_back(class_of_code[static_cast<std::size_t>(classes_[i])]);
  }
}

std::unique_ptr<TableDataset> TableBuilder::build(std::span<const std::int64_t> rows,
                                                  std::span<const std::int64_t> answered, LeftOut left_out) {
  if (!is_fitted_ && !rows.empty()) {
    fit_numbers(rows);
    fit_words(rows);
    fit_classes(answered);
  }
  if (lacks_labels_) schema_.label.is_absent = true;
  std::vector<std::vector<std::int32_t>> ids;  // by column of words, by code
  for (const TableColumn* c : columns_of(schema_, true)) ids.push_back(ids_of(*c, words_[ids.size()].words));
  TableDataset::Columns columns;
  for (const TableInput& input : schema_.inputs) {
    if (input.is_bag) columns.bags.emplace_back();
  }
  for (const std::int64_t row : rows) {
    const auto i = static_cast<std::size_t>(row);
    std::size_t at_number = 0, at_word = 0, at_bag = 0;
    for (const TableInput& input : schema_.inputs) {
      if (input.is_category) {
        TableDataset::Bags* bags = input.is_bag ? &columns.bags[at_bag++] : nullptr;
        for (const TableColumn& c : input.columns) {
          const WordColumn& words = words_[at_word];
          const std::span<const double> weights = words.weights_of_row(row);
          std::size_t in_row = 0;
          for (const std::int32_t code : words.of_row(row)) {
            const std::int32_t id = ids[at_word][static_cast<std::size_t>(code)];
            (bags == nullptr ? columns.ids : bags->ids).push_back(id);
            if (input.has_id_weights) bags->weights.push_back(weights[in_row]);
            ++in_row;
            if (c.buckets > 0) continue;
            ++columns.unknown.of;
            if (id == c.first_id) ++columns.unknown.n;
          }
          ++at_word;
        }
        if (bags != nullptr) bags->offsets.push_back(std::ssize(bags->ids));
        continue;
      }
      for (std::size_t k = 0; k < input.columns.size(); ++k) {
        const TableColumn& c = input.columns[k];
        double x = numbers_[at_number + k][i];
        if (std::isnan(x)) x = c.missing;
        for (const Transform& t : c.transforms) x = t(x);
        columns.numbers.push_back(x);
      }
      for (std::size_t k = 0; input.indicator && k < input.columns.size(); ++k)
        columns.numbers.push_back(std::isnan(numbers_[at_number + k][i]) ? 1 : 0);
      at_number += input.columns.size();
    }
    if (!weights_.empty()) columns.weights.push_back(weights_[i]);
  }
  add_labels(rows, columns);
  return std::make_unique<TableDataset>(schema_, std::ssize(rows), std::move(columns), std::move(left_out));
}

}  // namespace varscope
