#include "serve/engine/request_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "common/base/error.h"
#include "common/base/text.h"
#include "worker/data/number_array.h"
#include "worker/data/raw_ids.h"

namespace varscope {
namespace {

std::optional<NumberType> number_type_of(OipType type) {
  switch (type) {
    case OipType::boolean:
      return NumberType::boolean;
    case OipType::uint8:
      return NumberType::uint8;
    case OipType::uint16:
      return NumberType::uint16;
    case OipType::uint32:
      return NumberType::uint32;
    case OipType::uint64:
      return NumberType::uint64;
    case OipType::int8:
      return NumberType::int8;
    case OipType::int16:
      return NumberType::int16;
    case OipType::int32:
      return NumberType::int32;
    case OipType::int64:
      return NumberType::int64;
    case OipType::fp16:
      return NumberType::float16;
    case OipType::fp32:
      return NumberType::float32;
    case OipType::fp64:
      return NumberType::float64;
    case OipType::bytes:
      break;
  }
  return std::nullopt;
}

std::int64_t elements_of_row(const InputTensor& tensor) {
  return std::accumulate(tensor.shape.begin() + 1, tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
}

// The numbers of a tensor, of rows that are not empty.
NumberArray numbers_of(const InputTensor& tensor) {
  return NumberArray(tensor.name, nullptr, tensor.data, {.type = *number_type_of(tensor.type)}, tensor.shape);
}

// An element as a cell of a table has it: of floats the shortest text that reads back.
template <class T>
T element(const InputTensor& tensor, std::int64_t i) {
  T value;
  std::memcpy(&value, tensor.data.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
  return value;
}
template <class T>
std::string float_cell(const InputTensor& tensor, std::int64_t i) {
  const T value = element<T>(tensor, i);
  return std::isnan(value) ? std::string() : fmt::format("{}", value);
}
std::string cell_of(const InputTensor& tensor, std::int64_t i) {
  if (std::ranges::binary_search(tensor.missing, i)) return {};
  switch (tensor.type) {
    case OipType::bytes:
      return std::string(tensor.texts[static_cast<std::size_t>(i)]);
    case OipType::fp32:
      return float_cell<float>(tensor, i);
    case OipType::fp64:
      return float_cell<double>(tensor, i);
    case OipType::uint64:
      return fmt::format("{}", element<std::uint64_t>(tensor, i));
    case OipType::int64:
      return fmt::format("{}", element<std::int64_t>(tensor, i));
    case OipType::int32:
      return fmt::format("{}", element<std::int32_t>(tensor, i));
    case OipType::uint8:
      return fmt::format("{}", element<std::uint8_t>(tensor, i));
    default:
      return fmt::format("{}", element<std::int16_t>(tensor, i));
  }
}

constexpr OipType kCellTypes[] = {OipType::bytes, OipType::fp32,  OipType::fp64,  OipType::uint64,
                                  OipType::int64, OipType::int32, OipType::uint8, OipType::int16};

std::vector<OipType> all_but(OipType type, std::span<const OipType> types) {
  std::vector<OipType> rest;
  std::ranges::copy_if(types, std::back_inserter(rest), [&](OipType t) { return t != type; });
  return rest;
}

std::vector<std::int64_t> shape_of_rows(const Shape& sample) {
  std::vector<std::int64_t> shape{-1};
  shape.insert(shape.end(), sample.dims().begin(), sample.dims().end());
  return shape;
}

bool fits(std::span<const std::int64_t> shape, std::span<const std::int64_t> wanted) {
  if (shape.size() != wanted.size()) return false;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (wanted[i] >= 0 && shape[i] != wanted[i]) return false;
  }
  return true;
}

std::string column_about(const TableInput& input, const TableColumn& column) {
  if (input.row_ids) return fmt::format("ids of type {} of a sparse table", to_string(*input.row_ids));
  if (!input.is_category) return "a number";
  if (column.buckets > 0) return fmt::format("words, hashed to {} ids", column.buckets);
  return fmt::format("words; {} are known", column.vocabulary.size());
}

}  // namespace

RequestRows::RequestRows(const ServableSchema& schema) : schema_(schema) {
  schema.table ? describe_table() : describe_arrays();
  for (const std::string& word : schema.vocabulary)
    ids_of_words_.emplace(word, static_cast<std::int64_t>(ids_of_words_.size()));
}

// Columns by their names, each once, whatever inputs of the model it goes to.
void RequestRows::describe_table() {
  table_ = schema_.table;
  table_->label.is_absent = true;
  table_->weight.reset();
  const auto number_of = [&](const std::string& name, const TableInput& input, const TableColumn& column) {
    const auto known = std::ranges::find(columns_, name, &Column::name);
    const bool is_number = !input.is_category && !input.row_ids;
    const bool may_be_missing = is_number ? column.takes_missing : !input.row_ids || input.missing_id;
    if (known != columns_.end()) {
      known->may_be_missing = known->may_be_missing && may_be_missing;
      return known - columns_.begin();
    }
    columns_.push_back({name, is_number, may_be_missing});
    const bool is_number_id = input.row_ids && *input.row_ids != IdType::string && !input.is_bag;
    const OipType type = is_number                                          ? OipType::fp64
                         : is_number_id && *input.row_ids == IdType::uint64 ? OipType::uint64
                         : is_number_id                                     ? OipType::int64
                                                                            : OipType::bytes;
    inputs_.push_back({.name = name,
                       .type = type,
                       .shape = {-1},
                       .also = all_but(type, kCellTypes),
                       .may_be_missing = may_be_missing,
                       .about = column_about(input, column)});
    return std::ssize(columns_) - 1;
  };
  for (TableInput& input : table_->inputs) {
    for (TableColumn& column : input.columns) {
      if (column.crossed.empty()) column.index = number_of(column.name, input, column);
      for (TableCell& cell : column.crossed) cell.index = number_of(cell.name, input, column);
    }
  }
}

void RequestRows::describe_arrays() {
  constexpr OipType kNumbers[] = {OipType::fp32,  OipType::fp64,   OipType::uint8,
                                  OipType::int8,  OipType::uint16, OipType::int16,
                                  OipType::int32, OipType::int64,  OipType::fp16};
  constexpr OipType kIds[] = {OipType::int32, OipType::int64, OipType::uint8, OipType::uint16,
                              OipType::uint32};
  for (std::size_t k = 0; k < schema_.spec.inputs.size(); ++k) {
    const InputSpec& input = schema_.spec.inputs[k];
    if (input.is_of_bag())
      fail(ErrorKind::checkpoint,
           "input \"{}\" has bags of any number of ids, which are served of tables with columns only",
           input.name);
    TensorInfo info{.name = input.name, .shape = shape_of_rows(input.shape)};
    if (input.features == Features::real) {
      info.type = schema_.dtype == DType::float64 ? OipType::fp64 : OipType::fp32;
      info.also = all_but(info.type, kNumbers);
      info.about = "numbers";
      if (k < schema_.arrays.size() && !schema_.arrays[k].scale.is_one())
        info.about = fmt::format("numbers as the model sees them; of type {} times {} / {}",
                                 to_string(schema_.arrays[k].type), schema_.arrays[k].scale.numerator,
                                 schema_.arrays[k].scale.denominator);
    } else if (input.features == Features::row_ids) {
      info.type = input.id_type == IdType::uint64   ? OipType::uint64
                  : input.id_type == IdType::string ? OipType::bytes
                                                    : OipType::int64;
      if (input.id_type == IdType::int64) info.also = {OipType::int32};
      info.about = fmt::format("ids of type {} of a sparse table", to_string(input.id_type));
    } else {
      info.type = OipType::int32;
      info.also = all_but(info.type, kIds);
      info.about = fmt::format("ids, 0 .. {}", input.n_ids - 1);
      if (!schema_.vocabulary.empty()) {
        info.also.push_back(OipType::bytes);
        info.about += fmt::format(", or words; {} are known", schema_.vocabulary.size() - 1);
      }
    }
    inputs_.push_back(std::move(info));
  }
}

const TensorInfo& RequestRows::info_of(const InputTensor& tensor) const {
  const auto info = std::ranges::find(inputs_, tensor.name, &TensorInfo::name);
  if (info == inputs_.end()) {
    std::vector<std::string> names;
    names.reserve(inputs_.size());
    for (const TensorInfo& i : inputs_) names.push_back(i.name);
    fail(ErrorKind::data, "the model has no input \"{}\", it has {}{}", tensor.name, comma_list(names),
         did_you_mean(tensor.name, names));
  }
  return *info;
}

std::int64_t RequestRows::check(const InferRequest& request) const {
  std::int64_t n = -1;
  const std::string* first = nullptr;
  for (const InputTensor& tensor : request.inputs) {
    const TensorInfo& info = info_of(tensor);
    if (std::ranges::count(request.inputs, tensor.name, &InputTensor::name) > 1)
      fail(ErrorKind::data, "input \"{}\" is there twice", tensor.name);
    const bool is_type =
        tensor.type == info.type || std::ranges::find(info.also, tensor.type) != info.also.end();
    if (!is_type || !fits(tensor.shape, info.shape))
      fail(ErrorKind::data, "input \"{}\" has shape {}; the model takes {}", tensor.name,
           tensor_text(tensor.shape, tensor.type), tensor_text(info.shape, info.type));
    if (!tensor.missing.empty() && !schema_.table)
      fail(ErrorKind::data, "input \"{}\" has no number at element {}", tensor.name, tensor.missing.front());
    if (n >= 0 && tensor.shape.front() != n)
      fail(ErrorKind::data, "input \"{}\" has {} rows, but \"{}\" has {}", tensor.name, tensor.shape.front(),
           *first, n);
    n = tensor.shape.front();
    first = &tensor.name;
  }
  for (const TensorInfo& info : inputs_) {
    if (std::ranges::find(request.inputs, info.name, &InputTensor::name) == request.inputs.end() &&
        !info.may_be_missing)
      fail(ErrorKind::data, "input \"{}\" is missing: {}", info.name, tensor_text(info.shape, info.type));
  }
  if (n < 0) fail(ErrorKind::data, "the request has no inputs");
  if (n == 0) fail(ErrorKind::data, "input \"{}\" has no rows", *first);
  return n;
}

RequestRows::Rows::Rows(const RequestRows& rows) : rows_(rows), dense_(rows.schema_.spec.inputs.size()) {
  if (rows.table_) records_.emplace(*rows.table_, true, TableBuilder::WithoutWeight::kept);
}

std::string RequestRows::Rows::add(const InferRequest& request, std::int64_t begin, std::int64_t n) {
  return records_ ? add_records(request, begin, n) : add_dense(request, begin, n);
}

std::string RequestRows::Rows::add_records(const InferRequest& request, std::int64_t begin, std::int64_t n) {
  std::vector<const InputTensor*> tensors;
  for (const Column& column : rows_.columns_) {
    const auto found = std::ranges::find(request.inputs, column.name, &InputTensor::name);
    tensors.push_back(found == request.inputs.end() ? nullptr : &*found);
  }
  std::vector<std::string> cells(tensors.size());
  std::vector<std::string_view> views(tensors.size());
  for (std::int64_t row = begin; row < begin + n; ++row) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      cells[i] = tensors[i] == nullptr ? std::string() : cell_of(*tensors[i], row);
      views[i] = cells[i];
    }
    try {
      records_->add(views);
    } catch (const TableBuilder::BadCell& bad) {
      return fmt::format("row {}: {}", row, bad.what);
    }
    ++n_;
  }
  return {};
}

namespace {

// Rows of ids into `out`; "" or what is no id of the range.
std::string add_ids(const InputTensor& tensor, const InputSpec& input, std::int64_t begin, std::int64_t n,
                    const std::unordered_map<std::string_view, std::int64_t>& ids_of_words,
                    std::vector<std::byte>& out) {
  const std::int64_t width = elements_of_row(tensor);
  const auto of_row = static_cast<std::size_t>(width);
  std::vector<std::int64_t> ids(of_row);
  for (std::int64_t row = begin; row < begin + n; ++row) {
    if (tensor.type == OipType::bytes) {
      for (std::size_t i = 0; i < of_row; ++i) {
        const std::string_view word = tensor.texts[static_cast<std::size_t>(row) * of_row + i];
        const auto found = ids_of_words.find(word);
        ids[i] = found == ids_of_words.end() ? 0 : found->second;
      }
    } else {
      numbers_of(tensor).read(row, ids.data());
    }
    for (std::size_t i = 0; i < of_row; ++i) {
      if (ids[i] < 0 || ids[i] >= input.n_ids)
        return fmt::format("input \"{}\", row {}, place {}: {} is not among the ids 0 .. {}", tensor.name,
                           row, i, ids[i], input.n_ids - 1);
      const auto id = static_cast<std::int32_t>(ids[i]);
      const std::span<const std::byte> bytes = std::as_bytes(std::span(&id, 1));
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
  }
  return {};
}

// Ids of rows of tables, any 64 bits.
void add_row_ids(const InputTensor& tensor, std::int64_t begin, std::int64_t n, std::vector<std::byte>& out) {
  const auto of_row = static_cast<std::size_t>(elements_of_row(tensor));
  std::vector<std::uint64_t> ids(of_row);
  for (std::int64_t row = begin; row < begin + n; ++row) {
    const std::size_t at = static_cast<std::size_t>(row) * of_row;
    for (std::size_t i = 0; i < of_row; ++i) {
      const auto k = static_cast<std::int64_t>(at + i);
      ids[i] = tensor.type == OipType::bytes ? word_id(tensor.texts[at + i], 0)
               : tensor.type == OipType::int32
                   ? static_cast<std::uint64_t>(std::int64_t{element<std::int32_t>(tensor, k)})
                   : element<std::uint64_t>(tensor, k);
    }
    const std::span<const std::byte> bytes = std::as_bytes(std::span(ids));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
}

template <class T>
void add_numbers(const NumberArray& numbers, const Scale& scale, std::int64_t begin, std::int64_t n,
                 std::vector<std::byte>& out) {
  const auto of_row = static_cast<std::size_t>(numbers.row_shape().n_elements());
  std::vector<T> row(of_row);
  for (std::int64_t i = begin; i < begin + n; ++i) {
    numbers.read(i, scale, row.data());
    const std::span<const std::byte> bytes = std::as_bytes(std::span(row));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
}

}  // namespace

std::string RequestRows::Rows::add_dense(const InferRequest& request, std::int64_t begin, std::int64_t n) {
  const ServableSchema& schema = rows_.schema_;
  std::string problem;
  for (std::size_t k = 0; k < schema.spec.inputs.size(); ++k) {
    const InputSpec& input = schema.spec.inputs[k];
    const InputTensor& tensor = *std::ranges::find(request.inputs, input.name, &InputTensor::name);
    std::vector<std::byte>& out = dense_[k];
    if (input.features == Features::row_ids) {
      add_row_ids(tensor, begin, n, out);
    } else if (input.features == Features::ids) {
      const std::string told = add_ids(tensor, input, begin, n, rows_.ids_of_words_, out);
      if (problem.empty()) problem = told;
    } else {
      const NumberArray numbers = numbers_of(tensor);
      const bool is_as_trained = k < schema.arrays.size() && schema.arrays[k].type == numbers.type();
      const Scale scale = is_as_trained ? schema.arrays[k].scale : Scale();
      schema.dtype == DType::float64 ? add_numbers<double>(numbers, scale, begin, n, out)
                                     : add_numbers<float>(numbers, scale, begin, n, out);
    }
  }
  n_ += n;
  // What is missing of rows that cannot be read is zeros: others' rows stay at their places.
  for (std::size_t k = 0; k < schema.spec.inputs.size(); ++k) {
    const InputSpec& input = schema.spec.inputs[k];
    const auto of_row =
        static_cast<std::size_t>(input.shape.n_elements()) * size_of(input.dtype(schema.dtype));
    dense_[k].resize(static_cast<std::size_t>(n_) * of_row);
  }
  return problem;
}

BatchView RequestRows::Rows::view() {
  const ServableSchema& schema = rows_.schema_;
  if (records_) {
    table_ = records_->build({}, {});
    batch_.emplace(table_->spec(), schema.dtype, n_);
    std::vector<std::int64_t> indices(static_cast<std::size_t>(n_));
    std::iota(indices.begin(), indices.end(), 0);
    BatchView view = batch_->view(n_);
    table_->read(indices, view);
    return view;
  }
  SampleSpec spec = schema.spec;
  spec.has_weights = false;
  batch_.emplace(spec, schema.dtype, n_);
  BatchView view = batch_->view(n_);
  for (std::size_t k = 0; k < dense_.size(); ++k)
    std::memcpy(view.inputs[k].bytes(), dense_[k].data(), dense_[k].size());
  return view;
}

}  // namespace varscope
