#include "worker/data/array_source.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "worker/data/array_files.h"
#include "worker/data/idx.h"

namespace varscope {
namespace {

// An input's name, and the file or array that it comes from.
using Named = std::pair<std::string, std::string>;

std::string text_of(const ConfigNode& node, const char* what) {
  if (!node.is_scalar() || node.scalar.empty())
    fail(ErrorKind::config, "inputs: expected the name of {}, got {}", what, node.describe());
  return node.scalar;
}

// A single one is called x.
std::vector<Named> named_inputs(const ConfigNode& inputs, const char* what) {
  std::vector<Named> named;
  if (inputs.is_scalar()) return {{"x", text_of(inputs, what)}};
  named.reserve(inputs.entries.size() + inputs.items.size());
  for (const ConfigEntry& e : inputs.entries) named.emplace_back(e.key, text_of(e.value, what));
  for (const ConfigNode& item : inputs.items) {
    const std::string name = text_of(item, what);
    named.emplace_back(inputs.items.size() == 1 ? "x" : name, name);
  }
  if (named.empty()) fail(ErrorKind::config, "inputs: name {}", what);
  for (const Named& n : named) {
    if (n.first == "y") fail(ErrorKind::config, "inputs: y is what the labels are called; take another name");
    if (std::ranges::count(named, n.first, &Named::first) > 1)
      fail(ErrorKind::config, "inputs: \"{}\" is named twice", n.first);
  }
  return named;
}

// Arrays of numbers have no texts, whose hashes would be ids; records have.
void refuse_texts(const ArrayRules& rules) {
  for (const ConfigEntry& e : rules.row_ids.entries) {
    if (e.value.is_scalar() && e.value.scalar == to_string(IdType::string))
      fail(ErrorKind::config, "row_ids.{}: expected one of int64, uint64, got {}", e.key, e.value.describe());
  }
}

std::unique_ptr<Dataset> dataset_of(std::vector<NamedArray> inputs, NumberArray labels,
                                    const ArrayRules& rules, const ArrayPart& part,
                                    const SourceContext& context, const std::string& label_array) {
  refuse_texts(rules);
  if (context.schema.empty())
    return std::make_unique<ArrayDataset>(std::move(inputs), std::move(labels), rules, part, label_array);
  return std::make_unique<ArrayDataset>(std::move(inputs), std::move(labels),
                                        array_schema_from_json(context.schema), part);
}

// The arrays that a test set's inputs are in, where its keys do not say.
std::vector<Named> inputs_of_npz(const NpzSource& source, const NpzFile& file, const SourceContext& context) {
  if (!source.inputs.is_null()) return named_inputs(source.inputs, "an array");
  std::vector<Named> named;
  if (!context.schema.empty()) {
    for (const ArrayInput& i : array_schema_from_json(context.schema).inputs)
      named.emplace_back(i.name, i.array.empty() ? i.name : i.array);
    return named;
  }
  for (const std::string& array : file.arrays()) {
    if (array != source.labels) named.emplace_back(array, array);
  }
  if (named.empty())
    fail(ErrorKind::data, "{}: has no array besides the labels \"{}\"", file.name(), source.labels);
  if (named.size() == 1) named.front().first = "x";
  return named;
}

ArrayRules rules_of(const IdxSource& source, std::int64_t classes) {
  ArrayRules rules;
  rules.scale = source.scale;
  rules.classes = classes;
  if (source.scale.is_map())
    fail(ErrorKind::config, "scale: expected a number or a fraction such as 1/255, got a map");
  const ConfigNode& type = source.label_type;
  const bool is_known =
      type.is_null() || (type.is_scalar() && (type.scalar == "class" || type.scalar == "number"));
  if (!is_known)
    fail(ErrorKind::config, "label_type: expected one of class, number, got {}", type.describe());
  if (source.predicts_numbers()) rules.label_type = LabelType::number;
  return rules;
}

bool are_images_of_bytes(const std::filesystem::path& file) {
  const IdxHeader header = read_idx_header(file);
  return is_image_of_bytes(header.type, Shape(std::vector(header.dims.begin() + 1, header.dims.end())));
}

// Images of bytes with classes of bytes, as the files tell.
bool is_of_bytes(const IdxSource& source, const std::filesystem::path& root) {
  if (!source.scale.is_null() || source.predicts_numbers()) return false;
  if (!are_images_of_bytes(root / source.images)) return false;
  const IdxHeader labels = read_idx_header(root / source.labels);
  return labels.type == NumberType::uint8 && labels.dims.size() == 1;
}

std::vector<NamedArray> idx_input(const std::filesystem::path& file) {
  std::vector<NamedArray> inputs;
  inputs.push_back({"x", "", read_idx_array(file)});
  return inputs;
}

}  // namespace

std::unique_ptr<Dataset> open_idx_source(const IdxSource& source, const SourceContext& context,
                                         std::int64_t classes) {
  const std::filesystem::path& root = context.root;
  const auto* train = context.train == nullptr ? nullptr : context.train->get<IdxSource>();
  IdxSource mine = source;
  if (train != nullptr) {
    if ((!mine.scale.is_null() && mine.scale != train->scale) ||
        (!mine.label_type.is_null() && mine.label_type != train->label_type))
      fail(ErrorKind::config, "scale and label_type are those of data.train; remove them here");
    mine.scale = train->scale;
    mine.label_type = train->label_type;
  }
  const ArrayRules rules = rules_of(mine, classes);
  // Where data.train is not there any more, it is taken to be as the test data are.
  const bool train_is_there = train != nullptr && std::filesystem::exists(root / train->images);
  const bool train_is_of_bytes = context.schema.empty() && (!train_is_there || is_of_bytes(*train, root));
  if (train_is_of_bytes && is_of_bytes(mine, root))
    return std::make_unique<IdxDataset>(root / mine.images, root / mine.labels, mine.samples, classes);
  std::vector<NamedArray> inputs = idx_input(root / mine.images);
  NumberArray labels = read_idx_array(root / mine.labels);
  const ArrayPart part{.samples = mine.samples};
  std::string schema = context.schema;
  if (schema.empty() && train_is_there && !train_is_of_bytes)
    schema = open_idx_source(*train, {.root = root}, train->classes)->schema();
  if (!schema.empty())
    return std::make_unique<ArrayDataset>(std::move(inputs), std::move(labels),
                                          array_schema_from_json(schema), part);
  if (train_is_there && !are_images_of_bytes(root / mine.images)) {
    fail(ErrorKind::data, "{}: holds no images of bytes, as {} does: their numbers would not mean the same",
         inputs.front().numbers.name(), (root / train->images).string());
  }
  return std::make_unique<ArrayDataset>(std::move(inputs), std::move(labels), rules, part);
}

std::unique_ptr<Dataset> open_idx_to_predict(const std::filesystem::path& file, const ArraySchema& schema) {
  return std::make_unique<ArrayDataset>(idx_input(file), std::nullopt, schema, ArrayPart{});
}

std::unique_ptr<Dataset> open_npy_source(const NpySource& source, const SourceContext& context) {
  std::vector<NamedArray> inputs;
  for (const auto& [name, file] : named_inputs(source.inputs, "a file"))
    inputs.push_back({name, "", open_npy(context.root / file)});
  return dataset_of(std::move(inputs), open_npy(context.root / source.labels), source.rules,
                    {source.from, source.to}, context, "");
}

std::unique_ptr<Dataset> open_npz_source(const NpzSource& source, const SourceContext& context) {
  const NpzFile file(context.root / source.file);
  std::vector<NamedArray> inputs;
  for (const auto& [name, array] : inputs_of_npz(source, file, context))
    inputs.push_back({name, array, file.array(array)});
  return dataset_of(std::move(inputs), file.array(source.labels), source.rules, {source.from, source.to},
                    context, source.labels);
}

std::unique_ptr<Dataset> open_arrays_to_predict(const std::filesystem::path& file,
                                                const ArraySchema& schema) {
  std::vector<NamedArray> inputs;
  if (file.extension() != ".npz") {
    if (schema.inputs.size() > 1) {
      std::string names;
      for (const ArrayInput& i : schema.inputs) names += (names.empty() ? "" : ", ") + i.name;
      fail(ErrorKind::config,
           "{}: the model has the inputs {}: give it an .npz archive with an array for each of them",
           file.string(), names);
    }
    inputs.push_back({schema.inputs.front().name, "", open_npy(file)});
    return std::make_unique<ArrayDataset>(std::move(inputs), std::nullopt, schema, ArrayPart{});
  }
  const NpzFile archive(file);
  for (const ArrayInput& i : schema.inputs) {
    const bool is_by_array = !archive.has(i.name) && !i.array.empty() && archive.has(i.array);
    inputs.push_back({i.name, "", archive.array(is_by_array ? i.array : i.name)});
  }
  std::optional<NumberArray> labels;
  for (const std::string& name : {schema.label_array, std::string("y")}) {
    if (!labels && !name.empty() && archive.has(name)) labels = archive.array(name);
  }
  return std::make_unique<ArrayDataset>(std::move(inputs), std::move(labels), schema, ArrayPart{});
}

}  // namespace varscope
