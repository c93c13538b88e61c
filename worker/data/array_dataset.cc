#include "worker/data/array_dataset.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kMostIds = std::int64_t{1} << 31;
constexpr std::int64_t kMostClasses = 1 << 24;

// A number, or two with a stroke between them.
std::optional<Scale> scale_in(const ConfigNode& node) {
  if (!node.is_scalar()) return std::nullopt;
  const std::string& text = node.scalar;
  const std::size_t stroke = text.find('/');
  const auto trimmed = [](std::string part) {
    part.erase(0, std::min(part.find_first_not_of(' '), part.size()));
    part.erase(part.find_last_not_of(' ') + 1);
    return part;
  };
  Scale scale;
  if (!parse_number(trimmed(text.substr(0, stroke)), scale.numerator)) return std::nullopt;
  if (stroke != std::string::npos && !parse_number(trimmed(text.substr(stroke + 1)), scale.denominator))
    return std::nullopt;
  if (scale.numerator == 0 || scale.denominator == 0) return std::nullopt;
  return scale;
}

std::vector<std::string> names_of(const std::vector<NamedArray>& arrays) {
  std::vector<std::string> names;
  names.reserve(arrays.size());
  for (const NamedArray& a : arrays) names.push_back(a.input);
  return names;
}

void require_input(const std::string& name, const std::vector<NamedArray>& arrays, const char* key) {
  const std::vector<std::string> names = names_of(arrays);
  if (std::ranges::find(names, name) != names.end()) return;
  const std::string hint = did_you_mean(name, names);
  fail(ErrorKind::config, "{}: there is no input \"{}\"{}", key, name,
       hint.empty() ? "; there are " + comma_list(names) : hint);
}

// The scales that the config says, by input.
std::optional<Scale> scale_of(const ArrayRules& rules, const NamedArray& array, std::size_t n_inputs) {
  if (rules.scale.is_null()) return std::nullopt;
  const ConfigNode* node = &rules.scale;
  if (node->is_map()) {
    node = node->find(array.input);
    if (node == nullptr) return std::nullopt;
  } else if (n_inputs > 1) {
    fail(ErrorKind::config, "scale: there are {} inputs; say of which it is: scale: {{{}: 1/255}}", n_inputs,
         array.input);
  }
  const std::optional<Scale> scale = scale_in(*node);
  if (!scale)
    fail(ErrorKind::config, "scale: expected a number that is not 0, or a fraction such as 1/255, got {}",
         node->describe());
  return scale;
}

// The type of the ids of rows that an input is, where the config says so.
std::optional<IdType> row_ids_of(const ArrayRules& rules, const std::string& input) {
  if (rules.row_ids.is_null()) return std::nullopt;
  if (!rules.row_ids.is_map()) {
    fail(ErrorKind::config,
         "row_ids: expected a map from inputs to int64 or uint64, such as {{user: uint64}}, got {}",
         rules.row_ids.describe());
  }
  const ConfigNode* type = rules.row_ids.find(input);
  if (type == nullptr) return std::nullopt;
  for (const IdType known : {IdType::int64, IdType::uint64, IdType::string}) {
    if (type->is_scalar() && type->scalar == to_string(known)) return known;
  }
  fail(ErrorKind::config, "row_ids.{}: expected one of int64, uint64, got {}", input, type->describe());
}

Json json_of(const ArrayInput& input) {
  Json dims = Json::array();
  for (const std::int64_t d : input.shape.dims()) dims.push_back(d);
  Json json{{"name", input.name},
            {"array", input.array},
            {"shape", dims},
            {"dtype", to_string(input.type)},
            {"scale", {input.scale.numerator, input.scale.denominator}},
            {"default_scale", input.is_default_scale},
            {"ids", input.is_ids},
            {"n_ids", input.n_ids}};
  if (input.row_ids) json["row_ids"] = to_string(*input.row_ids);
  return json;
}

ArrayInput input_from(const Json& json) {
  ArrayInput input{.name = json.at("name").get<std::string>(),
                   .array = json.at("array").get<std::string>(),
                   .shape = Shape(json.at("shape").get<std::vector<std::int64_t>>()),
                   .scale = {json.at("scale").at(0).get<double>(), json.at("scale").at(1).get<double>()},
                   .is_default_scale = json.at("default_scale").get<bool>(),
                   .is_ids = json.at("ids").get<bool>(),
                   .n_ids = json.at("n_ids").get<std::int64_t>()};
  const std::optional<NumberType> type = number_type(json.at("dtype").get<std::string>());
  if (!type) fail(ErrorKind::data, "there is no dtype {}", json.at("dtype").dump());
  input.type = *type;
  if (!json.contains("row_ids")) return input;
  const auto name = json.at("row_ids").get<std::string>();
  for (const IdType known : {IdType::int64, IdType::uint64, IdType::string}) {
    if (name == to_string(known)) input.row_ids = known;
  }
  if (!input.row_ids) fail(ErrorKind::data, "no schema of arrays: there are no ids of type \"{}\"", name);
  return input;
}

// Numbers as they are called in messages: "3", "-1", "0.5".
std::string number_text(const NumberArray& array, std::int64_t row) {
  std::vector<double> values(static_cast<std::size_t>(array.row_shape().n_elements()));
  array.read(row, Scale{}, values.data());
  return fmt::format("{}", values.front());
}

}  // namespace

bool is_image_of_bytes(NumberType type, const Shape& shape) {
  if (type != NumberType::uint8) return false;
  return shape.rank() == 2 || (shape.rank() == 3 && shape[2] >= 1 && shape[2] <= 4);
}

std::string to_json(const ArraySchema& schema) {
  Json inputs = Json::array();
  for (const ArrayInput& i : schema.inputs) inputs.push_back(json_of(i));
  return Json{{"arrays", inputs},
              {"label",
               {{"type", choice_name(kLabelTypes, schema.label_type)},
                {"array", schema.label_array},
                {"width", schema.label_width},
                {"classes", schema.n_classes},
                {"exact", schema.knows_classes}}}}
      .dump();
}

ArraySchema array_schema_from_json(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    ArraySchema schema;
    for (const Json& i : json.at("arrays")) schema.inputs.push_back(input_from(i));
    if (schema.inputs.empty()) fail(ErrorKind::data, "the schema of the arrays has no inputs");
    const Json& label = json.at("label");
    schema.label_type = label.at("type") == "number" ? LabelType::number : LabelType::cls;
    schema.label_array = label.at("array").get<std::string>();
    schema.label_width = label.at("width").get<std::int64_t>();
    schema.n_classes = label.at("classes").get<std::int64_t>();
    schema.knows_classes = label.at("exact").get<bool>();
    return schema;
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "no schema of arrays: {}", e.what());
  }
}

ArrayDataset::ArrayDataset(std::vector<NamedArray> inputs, NumberArray labels, const ArrayRules& rules,
                           const ArrayPart& part, std::string label_array)
    : arrays_(std::move(inputs)), labels_(std::move(labels)) {
  for (const std::string& name : rules.ids) require_input(name, arrays_, "ids");
  for (const ConfigEntry& e : rules.row_ids.entries) require_input(e.key, arrays_, "row_ids");
  for (const ConfigEntry& e : rules.scale.entries) require_input(e.key, arrays_, "scale");
  for (const NamedArray& a : arrays_) {
    ArrayInput input{
        .name = a.input, .array = a.array, .shape = a.numbers.row_shape(), .type = a.numbers.type()};
    input.is_ids = std::ranges::find(rules.ids, a.input) != rules.ids.end();
    const std::optional<Scale> said = scale_of(rules, a, arrays_.size());
    input.row_ids = row_ids_of(rules, a.input);
    if (input.is_ids && input.row_ids) {
      fail(ErrorKind::config, "row_ids: input \"{}\" is among ids, too: these are from 0 on; remove one",
           a.input);
    }
    if (said && !input.are_numbers())
      fail(ErrorKind::config, "scale: input \"{}\" is ids, which have none", a.input);
    input.is_default_scale = !said.has_value();
    if (said) input.scale = *said;
    if (!said && input.are_numbers() && is_image_of_bytes(input.type, input.shape)) input.scale = {1, 255};
    schema_.inputs.push_back(std::move(input));
  }
  schema_.label_type = rules.label_type;
  schema_.label_array = std::move(label_array);
  schema_.n_classes = rules.classes;
  schema_.knows_classes = rules.classes > 0 || rules.label_type == LabelType::number;
  if (rules.label_type == LabelType::number && rules.classes > 0)
    fail(ErrorKind::config, "classes: numbers have no classes; remove it, or say label_type: class");
  const Shape& shape = labels_->row_shape();
  if (rules.label_type == LabelType::number) {
    if (shape.rank() != 1)
      fail(ErrorKind::data, "{}: has shape {}; the numbers to be answered with are [n] or [n, k]",
           labels_->name(), labels_->shape_text());
    schema_.label_width = shape[0];
  }
  take_part(part);
  check_ids(true);
  if (target() == Target::classes) {
    take_classes(true);
    return;
  }
  label_shape_ = shape;
  check_numbers();
}

ArrayDataset::ArrayDataset(std::vector<NamedArray> inputs, std::optional<NumberArray> labels,
                           const ArraySchema& schema, const ArrayPart& part)
    : schema_(schema), arrays_(std::move(inputs)), labels_(std::move(labels)) {
  order_inputs();
  take_part(part);
  check_ids(false);
  if (target() == Target::classes) {
    take_classes(false);
    return;
  }
  label_shape_ = Shape{schema_.label_width};
  if (!labels_) return;
  if (labels_->row_shape() != label_shape_)
    fail(ErrorKind::data, "{}: has shape {}, but data.train is answered with {} numbers a row",
         labels_->name(), labels_->shape_text(), schema_.label_width);
  check_numbers();
}

// One array for each input of the schema, in its order, that fits it.
void ArrayDataset::order_inputs() {
  std::vector<NamedArray> ordered;
  for (const ArrayInput& input : schema_.inputs) {
    const auto found = std::ranges::find(arrays_, input.name, &NamedArray::input);
    if (found == arrays_.end())
      fail(ErrorKind::data, "input \"{}\" is missing, which data.train has; there are {}", input.name,
           comma_list(names_of(arrays_)));
    const NumberArray& a = found->numbers;
    if (a.row_shape() != input.shape)
      fail(ErrorKind::data, "{}: its rows have shape {}, those of the training data {}", a.name(),
           a.row_shape().str(), input.shape.str());
    const bool was_image = is_image_of_bytes(input.type, input.shape);
    if (input.is_default_scale && input.are_numbers() &&
        is_image_of_bytes(a.type(), a.row_shape()) != was_image) {
      fail(
          ErrorKind::data,
          "{}: has numbers of dtype {}, but those of the training data were {}{}: give it that dtype, or say "
          "scale in data.train",
          a.name(), to_string(a.type()), to_string(input.type), was_image ? ", divided by 255" : "");
    }
    ordered.push_back(std::move(*found));
    arrays_.erase(found);
  }
  if (!arrays_.empty()) fail(ErrorKind::data, "input \"{}\" is none of data.train", arrays_.front().input);
  arrays_ = std::move(ordered);
}

void ArrayDataset::take_part(const ArrayPart& part) {
  const NumberArray& first = arrays_.front().numbers;
  const auto require_rows = [&](const NumberArray& a) {
    if (a.n_rows() == first.n_rows()) return;
    fail(ErrorKind::data, "{} has {} rows, but {} has {}", first.name(), first.n_rows(), a.name(),
         a.n_rows());
  };
  for (const NamedArray& a : arrays_) require_rows(a.numbers);
  if (labels_) require_rows(*labels_);
  if (!(part.from < part.to))
    fail(ErrorKind::config, "from is {}, to is {}: nothing is between", part.from, part.to);
  const auto at = [&](double share) {
    return static_cast<std::int64_t>(std::floor(share * static_cast<double>(first.n_rows())));
  };
  begin_ = at(part.from);
  n_ = at(part.to) - begin_;
  if (part.samples < 0 || part.samples > n_)
    fail(ErrorKind::data, "{}: {} samples were asked for; it has {}", first.name(), part.samples, n_);
  if (part.samples > 0) n_ = part.samples;
}

// All labels count, so that a part has the classes of the whole.
void ArrayDataset::take_classes(bool is_training) {
  if (!labels_) return;
  if (labels_->row_shape() != Shape{1}) {
    fail(
        ErrorKind::data,
        "{}: has shape {}; classes are [n]. Of one-hot rows save argmax(axis=1); numbers to be answered with "
        "are for label_type: number",
        labels_->name(), labels_->shape_text());
  }
  const bool is_bounded = schema_.knows_classes;
  std::int64_t n_shown = 0;
  classes_.resize(static_cast<std::size_t>(n_));
  for (std::int64_t i = 0; i < labels_->n_rows(); ++i) {
    std::int32_t label = 0;
    if (!labels_->read(i, &label) || label < 0 || label >= kMostClasses) {
      fail(
          ErrorKind::data,
          "{}: row {} is {}, which is no class: classes are 0, 1, 2, ...; numbers to be answered with are for "
          "label_type: number",
          labels_->name(), i, number_text(*labels_, i));
    }
    if (is_bounded && label >= schema_.n_classes) {
      fail(ErrorKind::data,
           "{}: row {} has label {}, but classes are 0 to {}: mend the label or raise classes",
           labels_->name(), i, label, schema_.n_classes - 1);
    }
    n_shown = std::max<std::int64_t>(n_shown, label + 1);
    if (i >= begin_ && i < begin_ + n_) classes_[static_cast<std::size_t>(i - begin_)] = label;
  }
  if (is_bounded) return;
  schema_.n_classes = is_training ? n_shown : std::max(n_shown, schema_.n_classes);
}

void ArrayDataset::check_numbers() const {
  std::vector<double> row(static_cast<std::size_t>(schema_.label_width));
  for (std::int64_t i = begin_; i < begin_ + n_; ++i) {
    labels_->read(i, Scale{}, row.data());
    const auto bad = std::ranges::find_if(row, [](double x) { return !std::isfinite(x); });
    if (bad != row.end())
      fail(ErrorKind::data, "{}: row {} is to be answered with {}", labels_->name(), i, *bad);
  }
}

void ArrayDataset::check_ids(bool is_training) {
  for (std::size_t k = 0; k < arrays_.size(); ++k) {
    ArrayInput& input = schema_.inputs[k];
    if (input.row_ids) check_row_ids(k);
    if (!input.is_ids) continue;
    const NumberArray& a = arrays_[k].numbers;
    std::vector<std::int32_t> row(static_cast<std::size_t>(input.shape.n_elements()));
    for (std::int64_t i = 0; i < a.n_rows(); ++i) {
      const bool are_integers = a.read(i, row.data());
      const auto [least, greatest] = std::ranges::minmax(row);
      if (!are_integers || least < 0) {
        fail(ErrorKind::data, "{}: row {} has an id that is none: ids are integers from 0 to {}", a.name(), i,
             kMostIds - 2);
      }
      if (is_training) {
        if (greatest >= kMostIds - 1)
          fail(ErrorKind::data, "{}: row {} has the id {}, which is too large", a.name(), i, greatest);
        input.n_ids = std::max<std::int64_t>(input.n_ids, std::int64_t{greatest} + 1);
      } else if (greatest >= input.n_ids) {
        fail(ErrorKind::data, "{}: row {} has the id {}, but those of the training data are 0 to {}",
             a.name(), i, greatest, input.n_ids - 1);
      }
    }
  }
}

bool ArrayDataset::read_row_ids(std::size_t k, std::int64_t row, std::int64_t* ids) const {
  const NumberArray& a = arrays_[k].numbers;
  // An int64 and a uint64 of the same bits may share memory.
  if (schema_.inputs[k].row_ids != IdType::int64) return a.read(row, reinterpret_cast<std::uint64_t*>(ids));
  return a.read(row, ids);
}

void ArrayDataset::check_row_ids(std::size_t k) const {
  const NumberArray& a = arrays_[k].numbers;
  const char* type = schema_.inputs[k].row_ids == IdType::int64 ? "int64" : "uint64";
  if (is_floating(a.type())) {
    fail(ErrorKind::data, "{}: has numbers of dtype {}, which do not hold all ids; save it as {}", a.name(),
         to_string(a.type()), type);
  }
  std::vector<std::int64_t> row(static_cast<std::size_t>(schema_.inputs[k].shape.n_elements()));
  for (std::int64_t i = 0; i < a.n_rows(); ++i) {
    if (read_row_ids(k, i, row.data())) continue;
    fail(ErrorKind::data, "{}: row {} has an id that is none of type {}: {}", a.name(), i, type,
         a.type() == NumberType::uint64 ? "it is 2^63 or more; say uint64" : "it is negative; say int64");
  }
}

std::vector<InputSpec> ArrayDataset::inputs() const {
  std::vector<InputSpec> specs;
  specs.reserve(schema_.inputs.size());
  for (const ArrayInput& i : schema_.inputs) {
    specs.push_back({.name = i.name,
                     .shape = i.shape,
                     .features = i.is_ids ? Features::ids : Features::real,
                     .n_ids = i.n_ids});
    if (!i.row_ids) continue;
    specs.back().features = Features::row_ids;
    specs.back().id_type = *i.row_ids;
  }
  return specs;
}

std::int64_t ArrayDataset::n_bytes() const {
  std::int64_t n = std::ssize(classes_) * 4 + (labels_ ? labels_->n_bytes() : 0);
  for (const NamedArray& a : arrays_) n += a.numbers.n_bytes();
  return n;
}

void ArrayDataset::check(std::span<const std::int64_t> indices, const BatchView& batch) const {
  const auto n = static_cast<std::int64_t>(indices.size());
  const auto is_real = [](DType dtype) { return dtype == DType::float32 || dtype == DType::float64; };
  bool fits = batch.inputs.size() == arrays_.size() && batch.y.shape() == batched(label_shape_, n) &&
              (target() == Target::classes ? batch.y.dtype() == DType::int32 : is_real(batch.y.dtype()));
  for (std::size_t k = 0; fits && k < arrays_.size(); ++k) {
    const TensorView& x = batch.inputs[k];
    fits = x.shape() == batched(schema_.inputs[k].shape, n) &&
           (schema_.inputs[k].row_ids  ? x.dtype() == DType::int64
            : schema_.inputs[k].is_ids ? x.dtype() == DType::int32
                                       : is_real(x.dtype()));
  }
  if (!fits) fail(ErrorKind::argument, "{} rows of arrays do not fit into the batch", n);
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= n_) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, n_);
  }
}

void ArrayDataset::read_input(std::size_t k, std::int64_t row, const TensorView& x, std::int64_t at) const {
  const NumberArray& a = arrays_[k].numbers;
  const ArrayInput& input = schema_.inputs[k];
  const std::int64_t width = input.shape.n_elements();
  if (x.dtype() == DType::float32) return a.read(row, input.scale, x.data<float>() + at * width);
  if (x.dtype() == DType::float64) return a.read(row, input.scale, x.data<double>() + at * width);
  if (input.row_ids) {
    if (read_row_ids(k, row, x.data<std::int64_t>() + at * width)) return;
    fail(ErrorKind::data, "{}: row {} has changed while it is being read", a.name(), row);
  }
  const std::span<std::int32_t> ids(x.data<std::int32_t>() + at * width, static_cast<std::size_t>(width));
  // The file is mapped: what has been checked may have changed.
  if (!a.read(row, ids.data()) ||
      std::ranges::any_of(ids, [&](std::int32_t id) { return id < 0 || id >= input.n_ids; }))
    fail(ErrorKind::data, "{}: row {} has changed while it is being read", a.name(), row);
}

void ArrayDataset::read(std::span<const std::int64_t> indices, const BatchView& batch) const {
  check(indices, batch);
  for (std::size_t r = 0; r < indices.size(); ++r) {
    const std::int64_t i = indices[r];
    const auto at = static_cast<std::int64_t>(r);
    for (std::size_t k = 0; k < arrays_.size(); ++k) read_input(k, begin_ + i, batch.inputs[k], at);
    if (target() == Target::classes) {
      batch.y.data<std::int32_t>()[r] = labels_ ? classes_[static_cast<std::size_t>(i)] : 0;
    } else if (batch.y.dtype() == DType::float32) {
      float* y = batch.y.data<float>() + at * schema_.label_width;
      labels_ ? labels_->read(begin_ + i, Scale{}, y) : void(std::fill_n(y, schema_.label_width, 0.0F));
    } else {
      double* y = batch.y.data<double>() + at * schema_.label_width;
      labels_ ? labels_->read(begin_ + i, Scale{}, y) : void(std::fill_n(y, schema_.label_width, 0.0));
    }
  }
}

void ArrayDataset::fill(std::span<const std::int64_t> indices, const TensorView& x,
                        const TensorView& y) const {
  read(indices, {{x}, y});
}

// In C order and this machine's order of bytes: a file that is stored otherwise has the same samples.
Digest ArrayDataset::content() const {
  Digester digester;
  const auto add = [&](const Digest& d) { digester.update(std::as_bytes(std::span(d.bytes))); };
  for (const NamedArray& a : arrays_) add(a.numbers.content(begin_, begin_ + n_));
  digester.update(std::as_bytes(std::span(classes_)));
  if (target() == Target::numbers && labels_) add(labels_->content(begin_, begin_ + n_));
  return digester.finish();
}

}  // namespace varscope
