#include "worker/data/tfrecord.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "common/base/record_file.h"
#include "common/base/text.h"
#include "common/config/binder.h"
#include "common/config/utf8.h"
#include "worker/data/csv.h"
#include "worker/data/csv_reader.h"
#include "worker/data/example.pb.h"
#include "worker/data/gzip_file.h"
#include "worker/data/raw_ids.h"

namespace varscope {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::int64_t kMostOfAFeature = std::int64_t{1} << 30;

const char* kind_of(const example::Feature& feature) {
  switch (feature.kind_case()) {
    case example::Feature::kBytesList:
      return "bytes";
    case example::Feature::kFloatList:
      return "float";
    case example::Feature::kInt64List:
      return "int64";
    case example::Feature::KIND_NOT_SET:
      return "nothing";
  }
  return "nothing";
}

struct InputKeys {
  std::string feature;
  std::vector<std::int64_t> shape;
  std::string dtype = "uint8";
  ConfigNode ids;
  ConfigNode scale;
  void describe(Keys& keys) {
    keys.key("feature", feature, "what it is called in the records; without it as the input is called");
    keys.key("shape", shape, "of a sample; without it as many numbers as the first record has",
             {.min = 1, .max = 1 << 24});
    keys.choice("dtype", dtype,
                {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
                 "float32", "float64"},
                "of a feature of bytes: what they are, little-endian");
    keys.key(
        "ids", ids,
        "true: the input is ids, for embeddings: integers from 0 on. int64, uint64, string: ids of any 64 "
        "bits, for a layer with a table, of string the hashes of texts",
        {.type_name = "one of true, false, int64, uint64, string"});
    keys.key("scale", scale, "what numbers are multiplied by: a number, or a fraction such as 1/255",
             {.type_name = "a number or a fraction"});
  }
};

void take_ids(const ConfigNode& ids, ExampleFeature& feature, ArrayRules& rules) {
  if (ids.is_null() || (ids.is_scalar() && ids.scalar == "false")) return;
  if (ids.is_scalar() && ids.scalar == "true") {
    feature.is_ids = true;
    rules.ids.push_back(feature.input);
    return;
  }
  for (const IdType type : {IdType::int64, IdType::uint64, IdType::string}) {
    if (ids.is_scalar() && ids.scalar == to_string(type)) feature.row_ids = type;
  }
  if (!feature.row_ids) {
    fail(ErrorKind::config, "features.{}.ids: expected one of true, false, int64, uint64, string, got {}",
         feature.input, ids.describe());
  }
  if (!rules.row_ids.is_map()) rules.row_ids = ConfigNode::map();
  rules.row_ids.add(feature.input, ConfigNode::plain(to_string(*feature.row_ids)));
}

// What the keys say, as arrays have it too.
struct Said {
  std::vector<ExampleFeature> features;
  ArrayRules rules;
};

Said said_by(const TfrecordSource& source) {
  Said said;
  said.rules.label_type = source.label_type;
  said.rules.classes = source.classes;
  if (source.features.is_null()) return said;
  if (!source.features.is_map() || source.features.entries.empty())
    fail(ErrorKind::config, "features: expected a map from an input's name to a feature, got {}",
         source.features.describe());
  ConfigNode scales = ConfigNode::map();
  for (const ConfigEntry& e : source.features.entries) {
    ExampleFeature feature{.input = e.key, .name = e.key};
    if (e.key == "y") fail(ErrorKind::config, "features: y is what the labels are called; take another name");
    if (e.value.is_scalar()) {
      feature.name = e.value.scalar;
    } else {
      const auto keys = bind_keys<InputKeys>(e.value, "", "features." + e.key);
      if (!keys.feature.empty()) feature.name = keys.feature;
      feature.shape = keys.shape;
      feature.bytes_are = number_type(keys.dtype).value();
      take_ids(keys.ids, feature, said.rules);
      if (!keys.scale.is_null()) scales.add(e.key, keys.scale);
    }
    said.features.push_back(std::move(feature));
  }
  if (!scales.entries.empty()) said.rules.scale = std::move(scales);
  return said;
}

}  // namespace

// A parsed record, and what messages begin with.
struct ExampleReader::Record {
  example::Example example;
  const std::string& where;

  // Of two of one name the last one counts, as in a map; null where there is none.
  const example::Feature* look_for(const std::string& name) const {
    const auto& all = example.features().feature();
    const auto found = std::find_if(all.rbegin(), all.rend(), [&](const auto& e) { return e.key() == name; });
    return found == all.rend() ? nullptr : &found->value();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : example.features().feature()) names.push_back(entry.key());
    std::ranges::sort(names);
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }
  const example::Feature& find(const ExampleFeature& feature) const {
    if (const example::Feature* found = look_for(feature.name)) return *found;
    std::vector<std::string> there = names();
    const std::string hint = did_you_mean(feature.name, there);
    if (there.size() > 20) there.resize(20), there.emplace_back("...");
    fail(ErrorKind::data, "{}: has no feature \"{}\"{}{}", where, feature.name, hint,
         !hint.empty()   ? ""
         : there.empty() ? "; it has none"
                         : "; it has " + comma_list(there));
  }
};

ExampleReader::ExampleReader(std::vector<ExampleFeature> features, ExampleFeature label, LabelType label_type,
                             std::int64_t n_classes)
    : label_{.feature = std::move(label)}, label_type_(label_type), n_classes_(n_classes) {
  for (ExampleFeature& f : features) columns_.push_back({.feature = std::move(f)});
}

void ExampleReader::add(std::string_view bytes, const std::string& where) {
  Record record{{}, where};
  if (bytes.size() > static_cast<std::size_t>(kMostOfAFeature) ||
      !record.example.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    fail(ErrorKind::data, "{}: is no tf.train.Example", where);
  if (n_ == 0) begin(record);
  for (Column& c : columns_) add(c, record);
  if (label_.is_there) {
    check_label(record);
    add(label_, record);
  }
  ++n_;
}

void ExampleReader::begin(const Record& record) {
  if (columns_.empty()) {
    std::vector<std::string> names = record.names();
    std::erase(names, label_.feature.name);
    if (names.empty())
      fail(ErrorKind::data, "{}: has no feature besides the label \"{}\"", record.where, label_.feature.name);
    for (std::string& name : names) {
      if (!is_utf8(name))
        fail(ErrorKind::data, "{}: has a feature {} whose name is no UTF-8; say which features are inputs",
             record.where, shown_cell(name));
      ExampleFeature f{.input = names.size() == 1 ? "x" : name, .name = name};
      columns_.push_back({.feature = std::move(f)});
    }
  }
  for (Column& c : columns_) begin(c, record);
  label_.is_there = !label_.feature.is_optional || record.look_for(label_.feature.name) != nullptr;
  if (label_.is_there) begin(label_, record);
}

// What all records must have as the first one has it.
void ExampleReader::begin(Column& c, const Record& record) const {
  const example::Feature& feature = record.find(c.feature);
  std::int64_t n_bytes = 0;
  c.is_bytes = feature.has_bytes_list();
  c.is_hashed = c.feature.row_ids == IdType::string;
  if (c.is_hashed && !c.is_bytes) {
    fail(ErrorKind::data, "{}: feature \"{}\" holds {}, and ids: string is for bytes; say ids: int64",
         record.where, c.feature.name, kind_of(feature));
  }
  if (c.is_hashed) {
    c.type = NumberType::uint64;
    c.n = feature.bytes_list().value_size();
  } else if (c.is_bytes) {
    c.type = c.feature.bytes_are;
    for (const std::string& bytes : feature.bytes_list().value()) n_bytes += std::ssize(bytes);
    const auto size = static_cast<std::int64_t>(size_of(c.type));
    if (n_bytes % size != 0) {
      fail(ErrorKind::data, "{}: feature \"{}\" has {} bytes, which are no whole numbers of {}", record.where,
           c.feature.name, n_bytes, to_string(c.type));
    }
    c.n = n_bytes / size;
  } else if (feature.has_float_list()) {
    c.type = NumberType::float32;
    c.n = feature.float_list().value_size();
  } else {
    // The records have no uint64: the 64 bits of an int64 are taken for one.
    c.type = c.feature.row_ids == IdType::uint64 ? NumberType::uint64 : NumberType::int64;
    c.n = feature.int64_list().value_size();
  }
  if (c.n == 0) fail(ErrorKind::data, "{}: feature \"{}\" has no numbers", record.where, c.feature.name);
  if (c.feature.shape.empty()) {
    c.feature.shape = {c.n};
    return;
  }
  std::int64_t n = 1;
  for (const std::int64_t d : c.feature.shape) n = d > kMostOfAFeature / n ? kMostOfAFeature : n * d;
  if (n != c.n) {
    fail(ErrorKind::data, "{}: feature \"{}\" has {} numbers, and its shape {} has {}", record.where,
         c.feature.name, c.n, Shape(c.feature.shape).str(), n);
  }
}

void ExampleReader::add(Column& c, const Record& record) const {
  const example::Feature& feature = record.find(c.feature);
  const char* wanted = c.is_bytes ? "bytes" : c.type == NumberType::float32 ? "float" : "int64";
  const std::string kind = kind_of(feature);
  if (kind != wanted) {
    fail(ErrorKind::data, "{}: feature \"{}\" holds {}, where {} are expected", record.where, c.feature.name,
         kind, wanted);
  }
  const std::size_t before = c.bytes.size();
  const auto append = [&](const void* data, std::size_t n) {
    const auto* bytes = static_cast<const std::byte*>(data);
    c.bytes.insert(c.bytes.end(), bytes, bytes + n);
  };
  if (c.is_hashed) {
    for (const std::string& bytes : feature.bytes_list().value()) {
      const std::uint64_t id = word_id(bytes, 0);
      append(&id, sizeof id);
    }
  } else if (c.is_bytes) {
    for (const std::string& bytes : feature.bytes_list().value()) append(bytes.data(), bytes.size());
  } else if (feature.has_float_list()) {
    const auto& values = feature.float_list().value();
    append(values.data(), static_cast<std::size_t>(values.size()) * sizeof(float));
  } else {
    const auto& values = feature.int64_list().value();
    append(values.data(), static_cast<std::size_t>(values.size()) * sizeof(std::int64_t));
  }
  const std::size_t n_bytes = c.bytes.size() - before, size = size_of(c.type);
  const auto wanted_bytes = static_cast<std::size_t>(c.n) * size;
  if (n_bytes != wanted_bytes) {
    const std::size_t unit = c.is_bytes && !c.is_hashed ? 1 : size;
    fail(ErrorKind::data, "{}: feature \"{}\" has {} {}, where the first record has {}", record.where,
         c.feature.name, n_bytes / unit,
         c.is_hashed  ? "texts"
         : c.is_bytes ? "bytes"
                      : "numbers",
         wanted_bytes / unit);
  }
  if (!c.feature.is_ids || c.is_bytes || c.type != NumberType::int64) return;
  for (const std::int64_t id : feature.int64_list().value()) {
    if (id < 0)
      fail(ErrorKind::data, "{}: feature \"{}\" has the id {}; ids are integers from 0 on", record.where,
           c.feature.name, id);
  }
}

void ExampleReader::check_label(const Record& record) const {
  const example::Feature& feature = record.find(label_.feature);
  const auto bad = [&](const auto& value, const char* why) {
    fail(ErrorKind::data, "{}: feature \"{}\" is {}, {}", record.where, label_.feature.name, value, why);
  };
  constexpr const char* kNoClass =
      "which is no class: classes are 0, 1, 2, ...; numbers to be answered with are for label_type: number";
  if (label_type_ == LabelType::number) {
    for (const float x : feature.float_list().value()) {
      if (!std::isfinite(x)) bad(x, "which is no number to be answered with");
    }
    return;
  }
  const auto check = [&](auto value) {
    const auto x = static_cast<double>(value);
    if (!(x >= 0) || std::trunc(x) != x) bad(value, kNoClass);
    if (n_classes_ > 0 && x >= static_cast<double>(n_classes_))
      bad(value, "but classes are less than those of the key classes, or of the training data");
  };
  for (const float x : feature.float_list().value()) check(x);
  for (const std::int64_t x : feature.int64_list().value()) check(x);
}

NumberArray ExampleReader::array_of(Column& c, const std::string& files) const {
  std::vector<std::int64_t> extents{n_};
  extents.insert(extents.end(), c.feature.shape.begin(), c.feature.shape.end());
  const auto bytes = std::make_shared<const std::vector<std::byte>>(std::move(c.bytes));
  return {fmt::format("{}: feature \"{}\"", files, c.feature.name),
          bytes,
          *bytes,
          {.type = c.type, .is_unpacked = true},
          extents};
}

std::vector<NamedArray> ExampleReader::inputs(const std::string& files) {
  std::vector<NamedArray> arrays;
  arrays.reserve(columns_.size());
  for (Column& c : columns_) arrays.push_back({c.feature.input, c.feature.name, array_of(c, files)});
  return arrays;
}

std::optional<NumberArray> ExampleReader::labels(const std::string& files) {
  if (!label_.is_there) return std::nullopt;
  return array_of(label_, files);
}

std::string explain_example_features() {
  return "\ndata.train[type=tfrecord].features[name]: section, or a feature's name\n    an input of TFRecords\n" +
         explain_keys<InputKeys>("data.train[type=tfrecord].features[name]");
}

std::unique_ptr<Dataset> open_tfrecord(const TfrecordSource& source, const SourceContext& context) {
  TfrecordSource mine = source;
  const auto* train = context.train == nullptr ? nullptr : context.train->get<TfrecordSource>();
  if (train != nullptr) {
    mine.features = train->features;
    mine.label = train->label;
    mine.label_type = train->label_type;
    mine.classes = train->classes;
  }
  Said said = said_by(mine);
  std::optional<ArraySchema> schema;
  if (!context.schema.empty()) {
    schema = array_schema_from_json(context.schema);
    if (said.features.empty()) {
      for (const ArrayInput& i : schema->inputs) said.features.push_back({.input = i.name, .name = i.array});
    }
  }
  const std::int64_t n_classes = schema && schema->knows_classes ? schema->n_classes : said.rules.classes;
  ExampleReader examples(said.features,
                         {.input = "y", .name = mine.label, .is_optional = context.may_lack_labels},
                         mine.label_type, n_classes);
  const std::vector<std::filesystem::path> files = files_of(mine.files, context.root);
  std::string data;
  for (const auto& file : files) {
    GzipReader bytes(file);
    RecordReader records(
        [&](std::span<std::byte> memory) {
          return bytes.read({reinterpret_cast<std::uint8_t*>(memory.data()), memory.size()});
        },
        bytes.name());
    while (records.next(data))
      examples.add(data, fmt::format("{}: record {}", bytes.name(), records.index()));
  }
  if (examples.size() == 0 && context.may_be_empty) return nullptr;
  if (examples.size() == 0) fail(ErrorKind::data, "{}: has no records", files.front().string());
  const std::string name = files.size() == 1
                               ? files.front().string()
                               : fmt::format("{} and {} more", files.front().string(), files.size() - 1);
  std::optional<NumberArray> labels = examples.labels(name);
  const ArrayPart part{mine.from, mine.to};
  if (schema) return std::make_unique<ArrayDataset>(examples.inputs(name), std::move(labels), *schema, part);
  return std::make_unique<ArrayDataset>(examples.inputs(name), std::move(labels).value(), said.rules, part,
                                        mine.label);
}

}  // namespace varscope
