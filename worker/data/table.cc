#include "worker/data/table.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash.h"

namespace varscope {
namespace {

// n of them from `begin` on, without allocating.
void copy_numbers(const GrowingArray<double>& from, std::size_t begin, std::size_t n, const TensorView& to,
                  std::int64_t at) {
  if (to.dtype() == DType::float64) return from.read(begin, {to.data<double>() + at, n});
  std::array<double, 128> some;  // NOLINT(*-member-init): filled where it is read
  float* out = to.data<float>() + at;
  for (std::size_t done = 0; done < n;) {
    const auto piece = std::span(some).first(std::min(some.size(), n - done));
    from.read(begin + done, piece);
    out = std::ranges::transform(piece, out, [](double x) { return static_cast<float>(x); }).out;
    done += piece.size();
  }
}

std::int64_t most_of(const TableColumns::Bags& bags) {
  std::int64_t most = 0, before = 0;
  bags.offsets.for_each_piece([&](std::span<const std::int64_t> offsets) {
    for (const std::int64_t end : offsets) most = std::max(most, end - std::exchange(before, end));
  });
  return most;
}

}  // namespace

template <class Make>
TableColumns TableColumns::of(const TableSchema& schema, const Make& make) {
  TableColumns columns;
  make("numbers", columns.numbers);
  make("ids", columns.ids);
  // Only where there are any: tables of before these have no such file.
  const auto is_array = [](const TableInput& i) { return i.row_ids && !i.is_bag; };
  if (std::ranges::any_of(schema.inputs, is_array)) make("row_ids", columns.row_ids);
  make("labels", columns.labels);
  make("targets", columns.targets);
  make("weights", columns.weights);
  for (const TableInput& input : schema.inputs) {
    if (!input.is_bag) continue;
    const std::string name = fmt::format("bag{}-", columns.bags.size());
    Bags& bags = columns.bags.emplace_back();
    make(name + "offsets", bags.offsets);
    if (input.row_ids) {
      make(name + "row_ids", bags.row_ids);
    } else {
      make(name + "ids", bags.ids);
    }
    make(name + "weights", bags.weights);
  }
  return columns;
}

TableColumns TableColumns::make(const TableSchema& schema, const std::filesystem::path& folder) {
  TableColumns columns = of(schema, [&]<class T>(const std::string& name, GrowingArray<T>& array) {
    if (!folder.empty()) array = GrowingArray<T>(folder / name);
  });
  for (Bags& bags : columns.bags) bags.offsets.push_back(0);
  return columns;
}

TableColumns TableColumns::open(const TableSchema& schema, std::int64_t n,
                                const std::filesystem::path& folder) {
  TableColumns columns = of(schema, [&]<class T>(const std::string& name, GrowingArray<T>& array) {
    array = GrowingArray<T>::open(folder / name);
  });
  columns.weights.map();
  const auto require = [&](const char* name, std::size_t size, std::int64_t expected) {
    if (size != static_cast<std::size_t>(expected))
      fail(ErrorKind::data, "{}: has {} elements, not {}", (folder / name).string(), size, expected);
  };
  std::int64_t n_numbers = 0, n_ids = 0, n_row_ids = 0;
  for (const TableInput& input : schema.inputs) {
    if (!input.is_bag) (input.row_ids ? n_row_ids : input.is_category ? n_ids : n_numbers) += input.width();
  }
  const bool is_class = schema.label.type == LabelType::cls;
  require("numbers", columns.numbers.size(), n * n_numbers);
  require("ids", columns.ids.size(), n * n_ids);
  require("row_ids", columns.row_ids.size(), n * n_row_ids);
  require("labels", columns.labels.size(), is_class ? n : 0);
  require("targets", columns.targets.size(), is_class ? 0 : n * std::ssize(schema.label.columns));
  require("weights", columns.weights.size(), schema.weight || !columns.weights.empty() ? n : 0);
  for (const Bags& bags : columns.bags) {
    require("offsets of a bag", bags.offsets.size(), n + 1);
    require("ids of a bag", bags.ids.size() + bags.row_ids.size(), bags.offsets.at(bags.offsets.size() - 1));
    if (!bags.weights.empty())
      require("weights of a bag", bags.weights.size(), bags.offsets.at(bags.offsets.size() - 1));
  }
  return columns;
}

template <class Columns, class F>
void TableColumns::for_each(Columns& columns, const F& f) {
  f(columns.numbers);
  f(columns.ids);
  f(columns.row_ids);
  f(columns.labels);
  f(columns.targets);
  f(columns.weights);
  for (auto& bags : columns.bags) {
    f(bags.offsets);
    f(bags.ids);
    f(bags.row_ids);
    f(bags.weights);
  }
}

void TableColumns::finish() {
  for_each(*this, [](auto& array) { array.finish(); });
  weights.map();  // Dataset::weights() is a span
}

Digest TableColumns::content() const {
  Digester digester;
  for_each(*this, [&]<class T>(const GrowingArray<T>& array) {
    array.for_each_piece([&](std::span<const T> piece) { digester.update(std::as_bytes(piece)); });
  });
  return digester.finish();
}

TableDataset::TableDataset(TableSchema schema, std::int64_t n, TableColumns columns, LeftOut left_out)
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
      n_of(input) += input.width();
    }
  }
  first_shape_ = specs_.front().shape;
  if (target() == Target::numbers)
    label_shape_ = Shape{static_cast<std::int64_t>(schema_.label.columns.size())};
}

std::int64_t& TableDataset::n_of(const TableInput& input) {
  return input.row_ids ? n_row_ids_ : input.is_category ? n_ids_ : n_numbers_;
}

std::vector<std::string> TableDataset::warnings() const {
  std::vector<std::string> lines = warnings_;
  if (left_out_.n > 0) lines.push_back(left_out_.text());
  return lines;
}

std::optional<std::int64_t> TableDataset::only_class() const {
  const GrowingArray<std::int32_t>& labels = columns_.labels;
  if (!has_labels() || labels.size() < 2) return std::nullopt;
  const std::int32_t first = labels.at(0);
  bool is_only = true;
  labels.for_each_piece([&](std::span<const std::int32_t> piece) {
    is_only = is_only && std::ranges::all_of(piece, [&](std::int32_t label) { return label == first; });
  });
  return is_only ? std::optional<std::int64_t>(first) : std::nullopt;
}

std::int64_t TableDataset::n_bytes() const {
  if (columns_.are_in_files()) return 0;
  std::int64_t of_bags = 0;
  for (const TableColumns::Bags& bags : columns_.bags)
    of_bags += static_cast<std::int64_t>(8 * bags.offsets.size() + 4 * bags.ids.size() +
                                         8 * bags.row_ids.size() + 8 * bags.weights.size());
  return of_bags + n_ * (n_numbers_ * 8 + n_ids_ * 4 + n_row_ids_ * 8 + (columns_.weights.empty() ? 0 : 8) +
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

void TableDataset::read_bags(std::span<const std::int64_t> indices, const TableColumns::Bags& bags,
                             std::span<const TensorView> to) const {
  std::int64_t* offsets = to[1].data<std::int64_t>();
  std::int64_t at = 0;
  for (const std::int64_t i : indices) {
    *offsets++ = at;
    std::array<std::int64_t, 2> bounds{};
    bags.offsets.read(static_cast<std::size_t>(i), bounds);
    const auto begin = static_cast<std::size_t>(bounds[0]), n = static_cast<std::size_t>(bounds[1]) - begin;
    if (to[0].dtype() == DType::int64) {
      bags.row_ids.read(begin, {to[0].data<std::int64_t>() + at, n});
    } else {
      bags.ids.read(begin, {to[0].data<std::int32_t>() + at, n});
    }
    if (to.size() > 2) copy_numbers(bags.weights, begin, n, to[2], at);
    at += static_cast<std::int64_t>(n);
  }
  *offsets = at;
}

void TableDataset::read(std::span<const std::int64_t> indices, const BatchView& batch) const {
  check(indices, batch);
  std::size_t k = 0, at_number = 0, at_id = 0, at_row_id = 0, at_bag = 0;  // of the next input
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
      if (input.row_ids) {
        const std::size_t from = i * static_cast<std::size_t>(n_row_ids_) + at_row_id;
        columns_.row_ids.read(from, {batch.inputs[k].data<std::int64_t>() + to, width});
      } else if (input.is_category) {
        const std::size_t from = i * static_cast<std::size_t>(n_ids_) + at_id;
        columns_.ids.read(from, {batch.inputs[k].data<std::int32_t>() + to, width});
      } else {
        const std::size_t from = i * static_cast<std::size_t>(n_numbers_) + at_number;
        copy_numbers(columns_.numbers, from, width, batch.inputs[k], to);
      }
      to += static_cast<std::int64_t>(width);
    }
    (input.row_ids ? at_row_id : input.is_category ? at_id : at_number) += width;
    ++k;
  }
  const auto width = static_cast<std::size_t>(label_shape_.n_elements());
  for (std::size_t row = 0; row < indices.size(); ++row) {
    const auto i = static_cast<std::size_t>(indices[row]);
    if (target() == Target::classes) {
      batch.y.data<std::int32_t>()[row] = columns_.labels.at(i);
    } else {
      copy_numbers(columns_.targets, i * width, width, batch.y, static_cast<std::int64_t>(row * width));
    }
  }
}

Digest TableDataset::content() const { return columns_.content(); }

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

}  // namespace varscope
