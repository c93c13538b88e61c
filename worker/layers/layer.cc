#include "worker/layers/layer.h"

#include <algorithm>
#include <utility>

#include "common/base/text.h"
#include "worker/layers/built_in.h"
#include "worker/layers/initializer_config.h"
#include "worker/layers/layer_variables.h"
#include "worker/layers/scope_config.h"

namespace varscope {

std::string LayerContext::made_at() const {
  std::string text = position_of(node.mark, file);
  while (text.ends_with(' ') || text.ends_with(':')) text.pop_back();
  return text;
}

NodeOptions LayerContext::op(std::string_view name) const {
  const std::string& scope = store.current_scope();
  return {scope.empty() ? std::string(name) : fmt::format("{}/{}", scope, name), made_at()};
}

void LayerContext::fail_key(std::string_view key, const std::string& text) const {
  const ConfigNode* value = node.find(key);
  fail_at(value != nullptr ? *value : node, file, join_keys(path, key), text);
}

void LayerContext::require_inputs(std::size_t n) const {
  if (inputs.size() == n) return;
  for (const NodeId input : inputs) {
    if (!type(input).shape.has(Shape::kRagged)) continue;
    fail_key("inputs",
             fmt::format(
                 "\"{}\" is a bag, any number of ids for each sample; what reads it is an embedding with a "
                 "combiner, or a factorization_machine",
                 graph.node(input).name));
  }
  fail_key("inputs", fmt::format("this layer takes {} input{}, got {}", n, n == 1 ? "" : "s", inputs.size()));
}

LayerRegistry LayerRegistry::built_in() {
  LayerRegistry registry;
  for (const auto& add : {add_dense_layers, add_array_layers, add_image_layers, add_normalization_layers,
                          add_sequence_layers, add_feature_layers}) {
    add(registry);
  }
  return registry;
}

void LayerRegistry::add(LayerType type) {
  for (const LayerType& t : types_) {
    if (t.name == type.name) fail(ErrorKind::argument, "there is a layer type \"{}\" already", type.name);
  }
  types_.push_back(std::move(type));
}

const LayerType& LayerRegistry::find(const ConfigNode& layer, std::string_view file,
                                     std::string_view path) const {
  const ConfigNode* type = layer.find("type");
  const std::string type_path = join_keys(path, "type");
  if (type == nullptr) fail_at(layer, file, type_path, "missing; every layer has a type");
  std::vector<std::string> names;
  for (const LayerType& t : types_) {
    if (type->is_scalar() && type->scalar == t.name) return t;
    names.push_back(t.name);
  }
  fail_at(*type, file, type_path,
          fmt::format("unknown layer type {}{}; known are {}", type->describe(),
                      type->is_scalar() ? did_you_mean(type->scalar, names) : "", comma_list(names)));
}

namespace {

std::string joined(const std::vector<ExplainedKey>& keys) {
  std::string text;
  for (const ExplainedKey& key : keys) text += key.text;
  return text;
}

// What --explain says of a type. Without the keys that say the same as all layers with variables: `shared`.
std::string explain_type(const LayerType& type, const std::string& path,
                         const std::vector<std::string>& shared) {
  std::vector<ExplainedKey> keys = explained_keys(explain_node(path, type.describe));
  std::vector<std::string> left_out;
  std::erase_if(keys, [&](const ExplainedKey& key) {
    const bool is_shared = std::ranges::find(shared, key.text.substr(path.size())) != shared.end();
    if (is_shared) left_out.push_back(key.path.substr(path.size() + 1));
    return is_shared;
  });
  std::string text = fmt::format("type: {}\n  {}\n", type.name, type.summary);
  if (!left_out.empty()) text += fmt::format("  {}: as all layers with variables\n", comma_list(left_out));
  return text + joined(keys);
}

}  // namespace

std::string LayerRegistry::explain(ExplainDetail detail) const {
  std::string text =
      "every layer: name (for `input` of later ones), input: a name (x is the sample; default: the layer "
      "before), inputs: a list of names; in a block, input is what the block gets\n"
      "a block of layers: scope, layers, or repeat: n with counter: i and from: 1, and layers that say "
      "$(i), $(i+1), $(i-1); or reuse: another block's scope, whose layers it then has too\n" +
      explain_scope_keys("model.layers[block]");
  std::vector<std::string> shared;  // without the path at the beginning
  if (detail == ExplainDetail::once) {
    const std::string path = "model.layers[with variables]";
    const std::string keys = explain_keys<VariableKeys>(path);
    text += "all layers with variables\n" + keys;
    for (const ExplainedKey& key : explained_keys(keys)) shared.push_back(key.text.substr(path.size()));
  }
  for (const LayerType& t : types_)
    text += explain_type(t, fmt::format("model.layers[type={}]", t.name), shared);
  return text + "an initializer: a name, a number, or a map\n" +
         explain_keys<InitializerConfig>("initializer") + explain_scope_values();
}

}  // namespace varscope
