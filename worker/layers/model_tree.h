#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/config/job_config.h"
#include "worker/layers/layer.h"
#include "worker/layers/scope_config.h"

namespace varscope {

// An array of the samples, as layers name it. What goes `with` it is read wherever it is: the offsets and
// weights of a bag's ids.
struct NamedInput {
  std::string name;
  NodeId node;
  std::vector<NodeId> with = {};
};

// Adds the layers of a `model` section to a graph: single layers, blocks under a scope, blocks that repeat,
// blocks and layers that share another one's variables, and named outputs. One object builds one graph.
class ModelTree {
 public:
  ModelTree(Graph& graph, VariableStore& store, const JobConfig& config, GraphMode mode,
            const LayerRegistry& registry);

  // From the data's inputs, by name. The first layer's input is the only one; where there are several, it
  // says which. Returns the last layer's output.
  NodeId build(const std::vector<NamedInput>& inputs);
  std::vector<LayerInfo> take_layers() { return std::move(layers_); }

 private:
  NodeId build_list(const ConfigNode& list, const std::string& path, NodeId input);
  NodeId build_item(const ConfigNode& item, const std::string& path, NodeId input);
  NodeId build_layer(const ConfigNode& item, const std::string& path, const std::vector<NodeId>& inputs);
  NodeId build_block(const ConfigNode& item, const std::string& path, NodeId input);
  struct BlockKeys {
    ScopeKeys defaults;
    std::string scope, reuse = "no";
    ConfigNode layers;
    std::int64_t repeat = 1, from = 1;
    std::string counter = "i";
    void describe(Keys& keys);
  };
  // A block's layers, and how often they are built; without a counter, once.
  struct Rounds {
    ConfigNode layers;
    std::string path;
    std::string counter;
    std::int64_t repeat = 1, from = 1;
  };
  void check_block(const ConfigNode& item, const std::string& path, const BlockKeys& keys) const;
  const Rounds& shared_rounds(const ConfigNode& item, const std::string& path,
                              const std::string& scope) const;
  NodeId build_rounds(const ConfigNode& item, const std::string& path, const Rounds& rounds, NodeId input);
  std::vector<NodeId> inputs_of(const ConfigNode& item, const std::string& path, NodeId previous) const;
  // Each bag followed by its offsets and weights.
  std::vector<NodeId> with_bags(const std::vector<NodeId>& nodes) const;
  std::string place_of(const Mark& mark) const;  // "job.yaml:7:5"
  NodeId find_output(const ConfigNode& name, const std::string& path) const;
  void keep_name(const ConfigNode& item, const std::string& path, NodeId output);

  Graph& graph_;
  VariableStore& store_;
  const JobConfig& config_;
  GraphMode mode_;
  const LayerRegistry& registry_;
  struct Output {
    NodeId node;
    std::string made_at;
  };
  std::map<std::string, Output> outputs_;    // by name
  std::map<int, std::vector<NodeId>> bags_;  // what goes with the ids of a bag, by their node
  std::map<std::string, Rounds> blocks_;     // that are complete, by full scope
  std::set<std::string> counters_;           // of the repeats that are open
  std::map<std::string, int> count_;         // layers of each type, in the scope that is open
  std::vector<LayerInfo> layers_;
};

// A copy in which $(counter), $(counter+n) and $(counter-n) are replaced by numbers, in texts, not in keys.
ConfigNode with_counter(const ConfigNode& node, const std::string& counter, std::int64_t value);

}  // namespace varscope
