#include "worker/data/table_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/config/binder.h"
#include "common/config/yaml_reader.h"
#include "worker/data/csv_reader.h"
#include "worker/data/raw_ids.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

constexpr const char* kNoIds = "none";
const std::vector<std::string>& id_names() {
  static const std::vector<std::string> names{kNoIds, "int64", "uint64", "string"};
  return names;
}

struct VocabularyKeys {
  std::int64_t size = 10000;
  std::int64_t min_count = 1;
  void describe(Keys& keys) {
    keys.key("size", size, "ids, that of all other words included",
             {.unit = "ids", .min = 2, .max = 1 << 24});
    keys.key("min_count", min_count, "words that occur less often have no id of their own",
             {.min = 1, .max = 1e12});
  }
};

struct FeatureKeys {
  ConfigNode columns, missing, transform, cross;
  bool indicator = false;
  std::optional<VocabularyKeys> vocabulary;
  std::int64_t hash = 0;
  std::string split;
  bool weights = false;
  std::string ids = kNoIds;
  void describe(Keys& keys) {
    keys.key("columns", columns, "names, numbers from 0 on, or ranges as \"b..f\"",
             {.type_name = "a column or a list of columns"});
    keys.key("missing", missing,
             "what a cell without a value counts as: error, mean, or a number; of ids: int64 or uint64 an id",
             {.type_name = "error, mean or a number"});
    keys.key("indicator", indicator, "add a column for each that is 1 where the value is missing, else 0");
    keys.key("transform", transform, "log1p, standardize, min_max, or a list of them, in their order",
             {.type_name = "a transform or a list of transforms"});
    keys.optional_section("vocabulary", vocabulary,
                          "the columns are words: ids by their frequency in data.train");
    keys.key("hash", hash, "the columns are words: ids by a hash, so many for each column; 0: no",
             {.unit = "ids", .min = 0, .max = 1 << 24});
    keys.choice(
        "ids", ids, id_names(),
        "the columns are ids of any 64 bits, for a layer with a table: int64 and uint64 as they are, of a "
        "string its hash; none: no");
    keys.key("cross", cross,
             "instead of columns: two or more whose words together are one, with hash or ids: string",
             {.type_name = "a list of columns"});
    keys.key(
        "split", split,
        "what stands between the words of a cell, which has any number of them: the input is a bag of ids, "
        "for embedding with a combiner");
    keys.key("weights", weights,
             "with split: a word may be followed by its weight, word:0.5; without it it has 1");
  }
};

// What the keys make of the columns: ids of any kind, not numbers.
bool makes_ids(const FeatureKeys& keys) {
  return keys.hash > 0 || keys.vocabulary.has_value() || keys.ids != kNoIds;
}

class Resolver {
 public:
  Resolver(const TableSchemaKeys& keys, std::span<const std::string> header,
           std::span<const std::int64_t> nameless)
      : keys_(keys), header_(header), nameless_(nameless) {}

  TableSchema resolve() {
    TableSchema schema;
    resolve_label(schema.label);
    resolve_weight(schema.weight);
    if (keys_.features.is_null()) {
      schema.inputs.push_back(all_others());
    } else if (!keys_.features.is_map() || keys_.features.entries.empty()) {
      fail(ErrorKind::config, "schema.features: expected a map from an input's name to its columns, got {}",
           keys_.features.describe());
    } else {
      for (const ConfigEntry& entry : keys_.features.entries) schema.inputs.push_back(input(entry));
    }
    return schema;
  }

 private:
  void resolve_label(TableLabel& label) {
    const TableLabelKeys& keys = keys_.label;
    if (keys.column.empty() == keys.columns.empty())
      fail(ErrorKind::config, "schema.label: name its column, or with type: number its columns");
    std::vector<std::string> names = keys.columns;
    if (names.empty()) names = {keys.column};
    for (const std::string& name : names) add(name, "schema.label", label.columns);
    label.type = keys.type;
    if (keys.type == LabelType::cls && label.columns.size() > 1)
      fail(ErrorKind::config, "schema.label: a class has one column; several are for type: number");
    if (keys.type == LabelType::number && !keys.classes.empty())
      fail(ErrorKind::config, "schema.label.classes: numbers have no classes; remove it, or say type: class");
    for (const std::string& name : keys.classes) label.classes.push_back(class_name(name));
    for (const TableColumn& c : label.columns) used_[c.index] = "schema.label";
  }

  void resolve_weight(std::optional<TableColumn>& weight) {
    if (!keys_.weight) return;
    std::vector<TableColumn> columns;
    add(keys_.weight->column, "schema.weight", columns);
    if (columns.size() != 1) fail(ErrorKind::config, "schema.weight: a weight has one column");
    weight = columns.front();
    used_[weight->index] = "schema.weight";
  }

  TableInput all_others() const {
    TableInput input;
    for (std::size_t i = 0; i < header_.size(); ++i) {
      const auto index = static_cast<std::int64_t>(i);
      if (!used_.contains(index) && std::ranges::find(nameless_, index) == nameless_.end())
        input.columns.push_back({.name = header_[i], .index = index});
    }
    if (input.columns.empty() && !header_.empty())
      fail(ErrorKind::config, "schema: the table has no column with a name besides the label");
    return input;
  }

  TableInput input(const ConfigEntry& entry) {
    const std::string path = "schema.features." + entry.key;
    const auto keys = bind_keys<FeatureKeys>(entry.value, "", path);
    TableInput input;
    input.name = entry.key;
    if (entry.key == "y")
      fail(ErrorKind::config, "{}: y is what the labels are called; take another name", path);
    if (!keys.cross.is_null()) {
      input.columns.push_back(crossed(keys, path));
    } else {
      input.columns = named_columns(keys.columns, path, path + ".columns");
    }
    input.is_category = makes_ids(keys);
    set_bag(keys, path, input);
    if (keys.hash > 0 && keys.vocabulary)
      fail(ErrorKind::config, "{}: hash and vocabulary are two ways to make ids; remove one", path);
    set_row_ids(keys, path, input);
    if (input.is_category && !input.row_ids &&
        (keys.indicator || !keys.missing.is_null() || !keys.transform.is_null()))
      fail(ErrorKind::config, "{}: missing, indicator and transform are for numbers, not for words", path);
    input.indicator = keys.indicator;
    for (TableColumn& c : input.columns) {
      if (input.row_ids) continue;
      if (input.is_category) {
        c.buckets = keys.hash;
        if (keys.vocabulary) c.most_words = keys.vocabulary->size, c.min_count = keys.vocabulary->min_count;
      } else {
        set_missing(keys, path, c);
        set_transforms(keys, path, c);
      }
    }
    return input;
  }

  std::vector<TableColumn> named_columns(const ConfigNode& names, const std::string& path,
                                         const std::string& key) {
    if (names.is_null()) fail(ErrorKind::config, "{}: missing; name the columns of the input", key);
    std::vector<TableColumn> columns;
    for (const ConfigNode& c : names.is_list() ? names.items : std::vector<ConfigNode>{names}) {
      if (!c.is_scalar()) fail(ErrorKind::config, "{}: expected a column, got {}", key, c.describe());
      add(c.scalar, path, columns);
    }
    if (columns.empty()) fail(ErrorKind::config, "{}: names no column", key);
    return columns;
  }

  // Of several columns one, whose words are theirs together.
  TableColumn crossed(const FeatureKeys& keys, const std::string& path) {
    if (!keys.columns.is_null())
      fail(ErrorKind::config, "{}: columns and cross both name the columns; remove one of them", path);
    if (keys.hash == 0 && keys.ids != "string") {
      fail(ErrorKind::config, "{}.cross: needs hash: how many ids the words together have; or ids: string",
           path);
    }
    if (!keys.split.empty())
      fail(ErrorKind::config, "{}.cross: cells with several words cannot be crossed", path);
    TableColumn column;
    for (const TableColumn& c : named_columns(keys.cross, path, path + ".cross")) {
      column.name += (column.name.empty() ? "" : " x ") + c.name;
      column.crossed.push_back({c.name, c.index});
    }
    column.index = column.crossed.front().index;
    if (column.crossed.size() < 2)
      fail(ErrorKind::config, "{}.cross: names one column; it takes two or more", path);
    return column;
  }

  static void set_bag(const FeatureKeys& keys, const std::string& path, TableInput& input) {
    if (keys.weights && keys.split.empty())
      fail(ErrorKind::config,
           "{}.weights: are those of the words of a cell; say what stands between them, split: \"|\"", path);
    if (keys.split.empty()) return;
    if (!input.is_category)
      fail(ErrorKind::config, "{}.split: is for words; say vocabulary: {{}}, hash or ids, how they get ids",
           path);
    if (keys.weights && keys.split.find(':') != std::string::npos)
      fail(ErrorKind::config, "{}.split: \":\" stands before the weights; take another one", path);
    input.is_bag = true;
    input.has_id_weights = keys.weights;
    input.split = keys.split;
  }

  // ids: int64, uint64 or string.
  static void set_row_ids(const FeatureKeys& keys, const std::string& path, TableInput& input) {
    if (keys.ids == kNoIds) return;
    if (keys.hash > 0 || keys.vocabulary) {
      fail(ErrorKind::config, "{}: {} and ids are two ways to make ids; remove one", path,
           keys.hash > 0 ? "hash" : "vocabulary");
    }
    if (keys.indicator || !keys.transform.is_null())
      fail(ErrorKind::config, "{}: indicator and transform are for numbers, not for ids", path);
    input.row_ids = id_type_from_string(keys.ids);
    if (keys.missing.is_null() || (keys.missing.is_scalar() && keys.missing.scalar == "error")) return;
    if (*input.row_ids == IdType::string) {
      fail(ErrorKind::config,
           "{}.missing: is for ids that are numbers; of strings an empty cell is an id as any other", path);
    }
    if (input.is_bag)
      fail(ErrorKind::config, "{}.missing: with split a cell without a value is an empty bag; remove it",
           path);
    if (keys.missing.is_scalar()) input.missing_id = number_id_in(*input.row_ids, keys.missing.scalar);
    if (!input.missing_id) {
      fail(ErrorKind::config, "{}.missing: {}", path,
           no_id_text(*input.row_ids,
                      keys.missing.is_scalar() ? keys.missing.scalar : keys.missing.describe()));
    }
  }

  static void set_missing(const FeatureKeys& keys, const std::string& path, TableColumn& column) {
    if (keys.missing.is_null() || (keys.missing.is_scalar() && keys.missing.scalar == "error")) {
      if (keys.indicator)
        fail(ErrorKind::config, "{}.indicator: needs missing: mean, or a number for what is missing", path);
      return;
    }
    column.takes_missing = true;
    column.is_missing_mean = keys.missing.is_scalar() && keys.missing.scalar == "mean";
    if (column.is_missing_mean) return;
    const std::optional<double> value =
        keys.missing.is_scalar() ? number_in(keys.missing.scalar) : std::nullopt;
    if (!value)
      fail(ErrorKind::config, "{}.missing: expected error, mean or a number, got {}", path,
           keys.missing.describe());
    column.missing = *value;
  }

  static void set_transforms(const FeatureKeys& keys, const std::string& path, TableColumn& column) {
    if (keys.transform.is_null() || (keys.transform.is_scalar() && keys.transform.scalar == "none")) return;
    const bool is_list = keys.transform.is_list();
    for (const ConfigNode& t : is_list ? keys.transform.items : std::vector<ConfigNode>{keys.transform}) {
      const auto* found = std::ranges::find_if(
          kTransforms, [&](const auto& choice) { return t.is_scalar() && t.scalar == choice.name; });
      if (found == std::end(kTransforms)) {
        std::vector<std::string> names{"none"};
        for (const auto& choice : kTransforms) names.emplace_back(choice.name);
        fail(ErrorKind::config, "{}.transform: expected one of {}, got {}{}", path, comma_list(names),
             t.describe(), t.is_scalar() ? did_you_mean(t.scalar, names) : "");
      }
      column.transforms.push_back({.type = found->value});
    }
  }

  std::optional<std::int64_t> find(const std::string& name) const {
    const auto found = std::ranges::find(header_, name);
    if (found != header_.end()) return found - header_.begin();
    std::int64_t index = 0;
    if (parse_number(name, index) && index >= 0 && index < static_cast<std::int64_t>(header_.size()))
      return index;
    return std::nullopt;
  }

  std::int64_t index_of(const std::string& name, const std::string& path) const {
    if (const auto index = find(name)) return *index;
    std::vector<std::string> known(header_.begin(), header_.end());
    const std::string hint = did_you_mean(name, known);
    if (known.size() > 20) known.resize(20), known.emplace_back("...");
    for (const auto& [c, delimiter] :
         {std::pair{';', "';'"}, std::pair{'\t', "tab"}, std::pair{'|', "'|'"}}) {
      if (header_.size() != 1 || known[0].find(c) == std::string::npos) continue;
      fail(
          ErrorKind::config,
          "{}: the table has no column \"{}\": its first line is one cell, {}; say what stands between cells, "
          "delimiter: {}",
          path, name, shown_cell(known[0]), delimiter);
    }
    fail(ErrorKind::config, "{}: the table has no column \"{}\"{}{}", path, name, hint,
         hint.empty() ? fmt::format("; it has {} columns: {}", header_.size(), comma_list(known)) : "");
  }

  void add(const std::string& name, const std::string& path, std::vector<TableColumn>& columns) {
    if (header_.empty()) {  // any name may be one
      columns.push_back({.name = name, .index = static_cast<std::int64_t>(used_.size())});
      used_.emplace(columns.back().index, path);
      return;
    }
    std::int64_t first = 0, last = 0;
    const std::size_t dots = name.find("..");
    if (!find(name) && dots != std::string::npos) {
      first = index_of(name.substr(0, dots), path);
      last = index_of(name.substr(dots + 2), path);
      if (last < first) fail(ErrorKind::config, "{}: range \"{}\" ends before it begins", path, name);
    } else {
      first = last = index_of(name, path);
    }
    for (std::int64_t i = first; i <= last; ++i) {
      const auto [other, is_new] = used_.try_emplace(i, path);
      const std::string& column = header_[static_cast<std::size_t>(i)];
      if (!is_new && other->second == "schema.label" && path == "schema.weight")
        fail(ErrorKind::config, "schema.weight: column \"{}\" is the label", column);
      if (!is_new && other->second == "schema.weight")
        fail(ErrorKind::config, "{}: column \"{}\" is the weight of the rows", path, column);
      if (!is_new && other->second == "schema.label")
        fail(ErrorKind::config, "{}: column \"{}\" is the label: the answer would be among the features",
             path, column);
      if (std::ranges::any_of(columns, [&](const TableColumn& c) { return c.index == i; }))
        fail(ErrorKind::config, "{}: column \"{}\" is named twice", path, column);
      columns.push_back({.name = column, .index = i});
    }
  }

  const TableSchemaKeys& keys_;
  std::span<const std::string> header_;
  std::span<const std::int64_t> nameless_;
  std::map<std::int64_t, std::string> used_;
};

Json json_of(const TableColumn& c) {
  Json transforms = Json::array();
  for (const Transform& t : c.transforms)
    transforms.push_back({{"type", choice_name(kTransforms, t.type)}, {"a", t.a}, {"b", t.b}});
  Json json{{"name", c.name},
            {"index", c.index},
            {"missing", c.takes_missing ? Json(c.missing) : Json(nullptr)},
            {"transforms", transforms},
            {"first_id", c.first_id},
            {"buckets", c.buckets},
            {"vocabulary", c.vocabulary}};
  for (const TableCell& cell : c.crossed)
    json["crossed"].push_back({{"name", cell.name}, {"index", cell.index}});
  return json;
}

TableColumn column_from(const Json& json) {
  TableColumn c{.name = json.at("name").get<std::string>(), .index = json.at("index").get<std::int64_t>()};
  c.takes_missing = !json.at("missing").is_null();
  if (c.takes_missing) c.missing = json.at("missing").get<double>();
  for (const Json& t : json.at("transforms")) {
    const auto* found = std::ranges::find_if(
        kTransforms, [&](const auto& choice) { return t.at("type").get<std::string>() == choice.name; });
    if (found == std::end(kTransforms))
      fail(ErrorKind::data, "there is no transform {}", t.at("type").dump());
    c.transforms.push_back({found->value, t.at("a").get<double>(), t.at("b").get<double>()});
  }
  c.first_id = json.at("first_id").get<std::int64_t>();
  c.buckets = json.at("buckets").get<std::int64_t>();
  c.vocabulary = json.at("vocabulary").get<std::vector<std::string>>();
  if (json.contains("crossed")) {
    for (const Json& cell : json.at("crossed"))
      c.crossed.push_back({cell.at("name").get<std::string>(), cell.at("index").get<std::int64_t>()});
  }
  return c;
}

void take_row_ids(const Json& json, TableInput& input) {
  if (!json.contains("row_ids")) return;
  const auto name = json.at("row_ids").get<std::string>();
  if (name == kNoIds || std::ranges::find(id_names(), name) == id_names().end())
    fail(ErrorKind::data, "no schema of a table: there are no ids of type \"{}\"", name);
  input.row_ids = id_type_from_string(name);
  if (!json.contains("missing_id")) return;
  const auto text = json.at("missing_id").get<std::string>();
  if (*input.row_ids != IdType::string) input.missing_id = number_id_in(*input.row_ids, text);
  if (!input.missing_id)
    fail(ErrorKind::data, "no schema of a table: \"{}\" is no id of type {}", text, name);
}

}  // namespace

double Transform::operator()(double x) const {
  switch (type) {
    case Type::log1p:
      return std::copysign(std::log1p(std::abs(x)), x);
    case Type::standardize:
      return (x - a) / b;
    case Type::min_max:
      return b > a ? (x - a) / (b - a) : 0;
  }
  return x;
}

std::vector<InputSpec> TableInput::specs() const {
  InputSpec spec{.name = name, .shape = Shape{width()}};
  if (!is_category) return {spec};
  spec.features = row_ids ? Features::row_ids : Features::ids;
  if (row_ids) spec.id_type = *row_ids;
  for (const TableColumn& c : columns) spec.n_ids += row_ids ? 0 : c.n_ids();
  if (!is_bag) return {spec};
  spec.shape = Shape{Shape::kRagged};
  std::vector<InputSpec> specs{
      spec, {.name = name + "/offsets", .shape = Shape{Shape::kBounds}, .features = Features::offsets}};
  if (has_id_weights) specs.push_back({.name = name + "/weights", .shape = Shape{Shape::kRagged}});
  return specs;
}

void check_schema(const TableSchemaKeys& keys, std::span<const std::string> header) {
  Resolver(keys, header, {}).resolve();
}

TableSchema resolve_schema(const TableSchemaKeys& keys, std::span<const std::string> header,
                           std::span<const std::int64_t> nameless) {
  return Resolver(keys, header, nameless).resolve();
}

std::string explain_table_features() {
  return "\ndata.train.schema.features[name]: section\n    an input of a table\n" +
         explain_keys<FeatureKeys>("data.train.schema.features[name]");
}

std::string to_json(const TableSchema& schema) {
  Json inputs = Json::array(), columns = Json::array();
  for (const TableInput& input : schema.inputs) {
    Json of_input = Json::array();
    for (const TableColumn& c : input.columns) of_input.push_back(json_of(c));
    inputs.push_back({{"name", input.name},
                      {"type", input.is_category ? "category" : "number"},
                      {"indicator", input.indicator},
                      {"columns", of_input}});
    if (input.row_ids) inputs.back()["row_ids"] = to_string(*input.row_ids);
    if (input.missing_id) inputs.back()["missing_id"] = id_text(*input.row_ids, *input.missing_id);
    if (input.is_bag) inputs.back()["bag"] = {{"split", input.split}, {"weights", input.has_id_weights}};
  }
  for (const TableColumn& c : schema.label.columns) columns.push_back(json_of(c));
  Json json{{"inputs", inputs},
            {"label",
             {{"type", choice_name(kLabelTypes, schema.label.type)},
              {"columns", columns},
              {"classes", schema.label.classes}}}};
  if (schema.weight) json["weight"] = json_of(*schema.weight);
  return json.dump();
}

TableSchema schema_from_json(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    TableSchema schema;
    for (const Json& i : json.at("inputs")) {
      TableInput input{.name = i.at("name").get<std::string>(),
                       .is_category = i.at("type") == "category",
                       .indicator = i.at("indicator").get<bool>()};
      for (const Json& c : i.at("columns")) input.columns.push_back(column_from(c));
      if (i.contains("bag")) {
        input.is_bag = true;
        input.split = i.at("bag").at("split").get<std::string>();
        input.has_id_weights = i.at("bag").at("weights").get<bool>();
      }
      take_row_ids(i, input);
      schema.inputs.push_back(std::move(input));
    }
    const Json& label = json.at("label");
    schema.label.type = label.at("type") == "number" ? LabelType::number : LabelType::cls;
    for (const Json& c : label.at("columns")) schema.label.columns.push_back(column_from(c));
    schema.label.classes = label.at("classes").get<std::vector<std::string>>();
    if (json.contains("weight")) schema.weight = column_from(json.at("weight"));
    return schema;
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "no schema of a table: {}", e.what());
  }
}

std::optional<double> weight_in(std::string_view cell) {
  const std::optional<double> weight = number_in(cell);
  if (!weight || *weight == 0) return weight;
  return *weight >= kLeastWeight && *weight <= kGreatestWeight ? weight : std::nullopt;
}

std::string no_weight_text(std::string_view cell) {
  return fmt::format("expected a weight, 0 or a number from {:g} to {:g}, got {}", kLeastWeight,
                     kGreatestWeight, shown_cell(cell));
}

std::string class_name(std::string_view cell) {
  cell = trimmed_cell(cell);
  const std::optional<double> number = number_in(cell);
  if (!number) return std::string(cell);
  // Of whole numbers beyond 2^53 a double holds every second one, or fewer: ids that are next to each other.
  constexpr double kMostExact = 0x1p53;
  if (std::abs(*number) >= kMostExact && cell.find_first_of(".eE") == std::string_view::npos) {
    const bool is_negative = cell.front() == '-';
    cell.remove_prefix(cell.find_first_not_of("+-0"));
    return (is_negative ? "-" : "") + std::string(cell);
  }
  return fmt::format("{}", *number == 0 ? 0.0 : *number);
}

const std::string& ClassNames::of(std::string_view cell) {
  for (const auto& [known, name] : names_) {
    if (known == cell) return name;
  }
  if (names_.size() == kMostRemembered) return other_ = class_name(cell);
  return names_.emplace_back(cell, class_name(cell)).second;
}

void sort_classes(std::vector<std::string>& classes) {
  std::ranges::sort(classes, [](const std::string& a, const std::string& b) {
    const std::optional<double> x = number_in(a), y = number_in(b);
    if (x && y && *x != *y) return *x < *y;
    return x.has_value() != y.has_value() ? x.has_value() : a < b;
  });
}

}  // namespace varscope
