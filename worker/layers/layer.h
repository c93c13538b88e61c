#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/binder.h"
#include "common/config/config_node.h"
#include "common/variables/variable_scope.h"
#include "worker/graph/graph.h"

namespace varscope {

// A model is built as two graphs over the same variables: dropout and batch normalisation differ in them.
enum class GraphMode : std::uint8_t { train, evaluate };

// What a layer is given when the model is built from YAML. All borrowed for the call.
struct LayerContext {
  Graph& graph;
  VariableStore& store;        // in the scope that encloses the layer
  std::vector<NodeId> inputs;  // at least one; most layers take one
  GraphMode mode;
  const ConfigNode& node;  // the layer's map, with `type`
  std::string_view file;   // for messages
  std::string path;        // "model.layers.2"
  int number;              // how many layers of this type there are in this scope up to this one: 1, 2, ...

  NodeId input() const { return inputs.front(); }
  const TensorType& type(NodeId id) const { return graph.node(id).type; }
  const Shape& shape() const { return type(input()).shape; }
  // Of the variables of the scope, unless they say otherwise: what a layer without variables makes.
  DType dtype() const { return store.current_handle().state().dtype; }
  std::string made_at() const;  // "job.yaml:14:5"
  // The name of an op of this layer: in the scope's path, "tower/dense".
  NodeOptions op(std::string_view name) const;
  // Throws Error(config) at the key, or at the layer.
  [[noreturn]] void fail_key(std::string_view key, const std::string& text) const;
  void require_inputs(std::size_t n) const;  // throws Error(config)
};

// What a layer made.
struct LayerInfo {
  NodeId output;
  std::string scope = {};  // of its variables; empty if it has none
  std::string text = {};   // "hidden1: dense 784 -> 256, relu"
  // Set by the builder of the model:
  std::int64_t n_parameters = 0;      // of the variables it reads
  std::int64_t flops_per_sample = 0;  // forward; backward is about twice that
};

// A type of layer that YAML can name.
struct LayerType {
  std::string name;
  std::string summary;
  // Adds ops and variables. Throws Error(config), or Error(argument), to which the layer's position is added.
  std::function<LayerInfo(const LayerContext&)> build;
  Describe describe;  // its keys with their defaults, besides the common ones; for --explain
};

// The types of layers a program knows. A value: a program of one's own adds its layers to the built-in ones
// (docs/custom_layers.md).
class LayerRegistry {
 public:
  static LayerRegistry built_in();
  // Throws Error(argument) if there is one of this name.
  void add(LayerType type);
  std::span<const LayerType> types() const { return types_; }
  // Throws Error(config) at `type`, with the nearest name, for one that does not exist.
  const LayerType& find(const ConfigNode& layer, std::string_view file, std::string_view path) const;
  // Every layer type with its keys, blocks, and what initializers etc. are, as text. The keys of all layers
  // that have variables are there once, or in each.
  std::string explain(ExplainDetail detail = ExplainDetail::once) const;

 private:
  std::vector<LayerType> types_;
};

// The keys that every layer may have besides its own; the builder of the model reads them.
inline const std::vector<std::string> kCommonLayerKeys = {"type", "name", "input", "inputs"};

// Reads a layer's own keys. Throws Error(config).
template <class K>
K read_keys(const LayerContext& context) {
  return bind_keys<K>(context.node, context.file, context.path, kCommonLayerKeys);
}

template <class K>
void describe_keys(Keys& keys) {
  K defaults;
  defaults.describe(keys);
}

}  // namespace varscope
