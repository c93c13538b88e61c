#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/config/binder.h"
#include "common/config/config_node.h"
#include "common/variable_scope.h"
#include "worker/graph/graph.h"

namespace varscope {

// What a layer is given when the model is built from YAML. All borrowed for the call.
struct LayerContext {
  Graph& graph;
  VariableStore& store;
  NodeId input;
  DType dtype;                            // of variables and activations
  const ConfigNode& node;                 // the layer's map, with `type`
  std::string_view file;                  // for messages
  std::string path;                       // "model.layers.2"
  const ConfigNode& default_initializer;  // model.initializer; null when absent
  std::string_view default_initializer_path;
  int number;  // how many layers of this type there are up to this one: 1, 2, ...

  std::string made_at() const;  // "job.yaml:14:5"
  [[noreturn]] void fail_key(std::string_view key,
                             const std::string& text) const;  // at the key, or at the layer
};

// What a layer made, for `varscope plan` and `varscope explain`.
struct LayerInfo {
  NodeId output;
  std::string scope;  // of its variables; empty if it has none
  std::string text;   // "hidden1: dense [?, 784] -> [?, 256], relu; 200960 parameters"
  std::int64_t n_parameters = 0;
  std::int64_t flops_per_sample = 0;  // forward; backward is about twice that
};

// A type of layer that YAML can name. Plain functions, no state.
struct LayerType {
  const char* name;
  const char* summary;
  LayerInfo (*build)(const LayerContext& context);
  void (*describe)(Keys& keys);  // its keys with their defaults, besides `type`; for explain
};

std::span<const LayerType> layer_types();
// Throws Error(config) at `type`, with the nearest name, for one that does not exist.
const LayerType& find_layer_type(const ConfigNode& layer, std::string_view file, std::string_view path);
// Every layer type with its keys, and the initializers, as text.
std::string explain_layers();

}  // namespace varscope
