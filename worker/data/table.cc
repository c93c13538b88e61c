#include "worker/data/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/text.h"
#include "worker/data/csv_reader.h"

namespace varscope {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

bool says_nothing(std::string_view cell) {
  constexpr std::array kNothing = {"", "NA", "N/A", "na", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None"};
  return std::ranges::find(kNothing, trimmed(cell)) != kNothing.end();
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

TableDataset::TableDataset(TableSchema schema, std::int64_t n, Columns columns,
                           std::vector<std::string> warnings)
    : schema_(std::move(schema)), n_(n), columns_(std::move(columns)), warnings_(std::move(warnings)) {
  for (const TableInput& input : schema_.inputs) {
    specs_.push_back(input.spec());
    (input.is_category ? n_ids_ : n_numbers_) += input.width();
  }
  first_shape_ = specs_.front().shape;
  if (target() == Target::numbers)
    label_shape_ = Shape{static_cast<std::int64_t>(schema_.label.columns.size())};
}

std::int64_t TableDataset::n_bytes() const {
  return n_ * (n_numbers_ * 8 + n_ids_ * 4 + (columns_.weights.empty() ? 0 : 8) +
               (target() == Target::classes ? 4 : label_shape_.n_elements() * 8));
}

void TableDataset::check(std::span<const std::int64_t> indices, const BatchView& batch) const {
  const auto n = static_cast<std::int64_t>(indices.size());
  const auto is_real = [](DType dtype) { return dtype == DType::float32 || dtype == DType::float64; };
  bool fits = batch.inputs.size() == specs_.size() && batch.y.shape() == batched(label_shape_, n) &&
              (target() == Target::classes ? batch.y.dtype() == DType::int32 : is_real(batch.y.dtype()));
  for (std::size_t i = 0; fits && i < specs_.size(); ++i) {
    const TensorView& x = batch.inputs[i];
    fits = x.shape() == batched(specs_[i].shape, n) &&
           (specs_[i].features == Features::ids ? x.dtype() == DType::int32 : is_real(x.dtype()));
  }
  if (!fits) fail(ErrorKind::argument, "{} rows of a table do not fit into the batch", n);
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= n_) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, n_);
  }
}

void TableDataset::read(std::span<const std::int64_t> indices, const BatchView& batch) const {
  check(indices, batch);
  for (std::size_t row = 0; row < indices.size(); ++row) {
    const auto i = static_cast<std::size_t>(indices[row]);
    const auto numbers = std::span(columns_.numbers).subspan(i * static_cast<std::size_t>(n_numbers_));
    const auto ids = std::span(columns_.ids).subspan(i * static_cast<std::size_t>(n_ids_));
    std::size_t at_number = 0, at_id = 0;
    for (std::size_t k = 0; k < specs_.size(); ++k) {
      const auto width = static_cast<std::size_t>(specs_[k].shape.n_elements());
      const auto to = static_cast<std::int64_t>(row * width);
      if (specs_[k].features == Features::ids) {
        std::ranges::copy(ids.subspan(at_id, width), batch.inputs[k].data<std::int32_t>() + to);
        at_id += width;
      } else {
        copy_numbers(numbers.subspan(at_number, width), batch.inputs[k], to);
        at_number += width;
      }
    }
    if (target() == Target::classes) {
      batch.y.data<std::int32_t>()[row] = columns_.labels[i];
    } else {
      const auto width = static_cast<std::size_t>(label_shape_.n_elements());
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

std::int32_t TableBuilder::Words::code(std::string word) {
  const auto [at, is_new] = codes.try_emplace(std::move(word), static_cast<std::int32_t>(codes.size()));
  if (is_new) words.push_back(&at->first);
  return at->second;
}

TableBuilder::TableBuilder(TableSchema schema, bool is_fitted, WithoutWeight without)
    : schema_(std::move(schema)), is_fitted_(is_fitted), without_(without) {
  numbers_.resize(columns_of(schema_, false).size());
  codes_.resize(columns_of(schema_, true).size());
  words_.resize(codes_.size());
  targets_.resize(schema_.label.type == LabelType::number ? schema_.label.columns.size() : 0);
}

double TableBuilder::number(const TableColumn& column, std::string_view cell) const {
  if (const std::optional<double> value = number_in(cell)) return *value;
  if (!says_nothing(cell))
    throw BadCell{column.index,
                  fmt::format("column \"{}\": expected a number, got {}", column.name, shown_cell(cell))};
  if (column.takes_missing) return kMissing;
  throw BadCell{
      column.index,
      fmt::format("column \"{}\": has no value ({}); say what is missing counts as, missing: mean or "
                  "missing: 0 of the input in the schema",
                  column.name, shown_cell(cell))};
}

void TableBuilder::add(std::span<const std::string_view> cells) {
  const auto cell = [&](const TableColumn& c) { return cells[static_cast<std::size_t>(c.index)]; };
  row_numbers_.clear();
  row_words_.clear();
  row_targets_.clear();
  for (const TableInput& input : schema_.inputs) {
    for (const TableColumn& c : input.columns) {
      if (input.is_category) {
        row_words_.emplace_back(trimmed(cell(c)));
      } else {
        row_numbers_.push_back(number(c, cell(c)));
      }
    }
  }
  std::string name;
  for (const TableColumn& c : schema_.label.columns) {
    if (schema_.label.is_absent) continue;
    if (schema_.label.type == LabelType::number) {
      row_targets_.push_back(number(c, cell(c)));
      continue;
    }
    name = class_name(cell(c));
    if (name.empty()) throw BadCell{c.index, fmt::format("column \"{}\": has no class", c.name)};
    const std::vector<std::string>& classes = schema_.label.classes;
    if (!classes.empty() && std::ranges::find(classes, name) == classes.end()) {
      std::vector<std::string> shown(classes.begin(),
                                     classes.begin() + std::min<std::ptrdiff_t>(20, std::ssize(classes)));
      if (shown.size() < classes.size()) shown.emplace_back("...");
      throw BadCell{c.index, fmt::format("column \"{}\": {} is no class; there are {}", c.name,
                                         shown_cell(name), comma_list(shown))};
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
  for (std::size_t i = 0; i < row_words_.size(); ++i)
    codes_[i].push_back(words_[i].code(std::move(row_words_[i])));
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
        for (const double x : values) {
          if (!std::isnan(x)) sum += x, ++n;
        }
        c.missing = n == 0 ? 0 : sum / static_cast<double>(n);
      }
      for (double& x : values) x = std::isnan(x) ? c.missing : x;
      const auto n = static_cast<double>(values.size());
      for (Transform& t : c.transforms) {
        if (t.type == Transform::Type::standardize) {
          t.a = std::accumulate(values.begin(), values.end(), 0.0) / n;
          double squares = 0;
          for (const double x : values) squares += (x - t.a) * (x - t.a);
          t.b = std::sqrt(squares / n);
          if (!(t.b > 0)) t.b = 1;
        } else if (t.type == Transform::Type::min_max) {
          const auto [least, greatest] = std::ranges::minmax_element(values);
          t.a = *least;
          t.b = *greatest;
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
      const Words& words = words_[at];
      const std::vector<std::int32_t>& codes = codes_[at++];
      if (c.buckets == 0) {
        std::vector<std::int64_t> counts(words.words.size(), 0);
        for (const std::int64_t i : rows)
          ++counts[static_cast<std::size_t>(codes[static_cast<std::size_t>(i)])];
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

std::unique_ptr<TableDataset> TableBuilder::build(std::span<const std::int64_t> rows,
                                                  std::span<const std::int64_t> answered,
                                                  std::vector<std::string> warnings) {
  if (!is_fitted_ && !rows.empty()) {
    fit_numbers(rows);
    fit_words(rows);
    fit_classes(answered);
  }
  // By code: ids of words, and of classes.
  std::vector<std::vector<std::int32_t>> ids;
  const std::vector<const TableColumn*> categories = columns_of(schema_, true);
  for (std::size_t k = 0; k < categories.size(); ++k) {
    const TableColumn& c = *categories[k];
    std::unordered_map<std::string_view, std::int64_t> known;
    for (std::size_t i = 0; i < c.vocabulary.size(); ++i)
      known[c.vocabulary[i]] = static_cast<std::int64_t>(i) + 1;
    std::vector<std::int32_t> of_code;
    for (const std::string* word : words_[k].words) {
      std::int64_t id = 0;
      if (c.buckets > 0) {
        id = static_cast<std::int64_t>(hash64(*word) % static_cast<std::uint64_t>(c.buckets));
      } else if (const auto found = known.find(*word); found != known.end()) {
        id = found->second;
      }
      of_code.push_back(static_cast<std::int32_t>(c.first_id + id));
    }
    ids.push_back(std::move(of_code));
  }
  std::vector<std::int32_t> class_of_code;
  for (const std::string* word : class_words_.words) {
    const auto& classes = schema_.label.classes;
    class_of_code.push_back(static_cast<std::int32_t>(std::ranges::find(classes, *word) - classes.begin()));
  }
  TableDataset::Columns columns;
  for (const std::int64_t row : rows) {
    const auto i = static_cast<std::size_t>(row);
    std::size_t at_number = 0, at_word = 0;
    for (const TableInput& input : schema_.inputs) {
      if (input.is_category) {
        for (std::size_t k = 0; k < input.columns.size(); ++k, ++at_word)
          columns.ids.push_back(ids[at_word][static_cast<std::size_t>(codes_[at_word][i])]);
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
    for (const std::vector<double>& target : targets_) {
      if (!target.empty()) columns.targets.push_back(target[i]);
    }
    if (!weights_.empty()) columns.weights.push_back(weights_[i]);
    if (!classes_.empty()) columns.labels.push_back(class_of_code[static_cast<std::size_t>(classes_[i])]);
  }
  if (schema_.label.is_absent) {
    const std::size_t n = rows.size();
    if (schema_.label.type == LabelType::cls) columns.labels.assign(n, 0);
    columns.targets.assign(n * targets_.size(), 0);
  }
  return std::make_unique<TableDataset>(schema_, std::ssize(rows), std::move(columns), std::move(warnings));
}

}  // namespace varscope
