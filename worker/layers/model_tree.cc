#include "worker/layers/model_tree.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/text.h"
#include "worker/layers/scope_config.h"

namespace varscope {
namespace {

// Messages of scopes, variables and ops know no YAML; they get the layer's position here.
template <class Work>
auto at_position(const ConfigNode& node, const std::string& file, const std::string& path, Work work) {
  try {
    return work();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::argument) throw;
    fail_at(node, file, path, e.what(), e.where());
  }
}

std::int64_t flops_between(const Graph& graph, std::size_t begin, std::size_t end) {
  std::int64_t flops = 0;
  for (std::size_t i = begin; i < end; ++i) flops += graph.flops(NodeId(static_cast<int>(i)), 1);
  return flops;
}

void collect(const Graph& graph, NodeId id, std::set<const Variable*>& found) {
  const Graph::Node& node = graph.node(id);
  if (node.kind == Graph::Kind::variable && node.variable->trainable()) found.insert(node.variable);
}

// Of the trained variables that the nodes read.
std::int64_t parameters_between(const Graph& graph, std::size_t begin, std::size_t end) {
  std::set<const Variable*> found;
  for (std::size_t i = begin; i < end; ++i) {
    const Graph::Node& node = graph.node(NodeId(static_cast<int>(i)));
    for (const NodeId input : node.inputs) collect(graph, input, found);
  }
  std::int64_t n = 0;
  for (const Variable* v : found) n += v->shape().n_elements();
  return n;
}

constexpr std::int64_t kMostCounter = 1 << 30;

void replace_counter(std::string& text, const std::string& counter, std::int64_t value) {
  for (std::size_t at = text.find("$("); at != std::string::npos; at = text.find("$(", at + 1)) {
    const std::size_t end = text.find(')', at);
    if (end == std::string::npos) return;
    std::string inside = text.substr(at + 2, end - at - 2);
    if (!inside.starts_with(counter)) continue;
    inside.erase(0, counter.size());
    std::int64_t offset = 0;
    const bool plain = inside.empty();
    if (!plain && inside[0] != '+' && inside[0] != '-') continue;
    if (!plain && !parse_number(inside[0] == '+' ? inside.substr(1) : inside, offset)) continue;
    if (offset < -kMostCounter || offset > kMostCounter) continue;
    text.replace(at, end - at + 1, std::to_string(value + offset));
  }
}

// The `name:` of a layer or block of the tree that says this name, or null.
const ConfigNode* find_name(const ConfigNode& layers, const std::string& name) {
  for (const ConfigNode& item : layers.items) {
    const ConfigNode* given = item.find("name");
    if (given != nullptr && given->is_scalar() && given->scalar == name) return given;
    const ConfigNode* inner = item.find("layers");
    const ConfigNode* found = inner == nullptr ? nullptr : find_name(*inner, name);
    if (found != nullptr) return found;
  }
  return nullptr;
}

ConfigNode without_repeat(ConfigNode item) {
  std::erase_if(item.entries, [](const ConfigEntry& e) {
    return e.key == "repeat" || e.key == "counter" || e.key == "from";
  });
  return item;
}

constexpr std::size_t kMaxNodes = 200000;

}  // namespace

void ModelTree::BlockKeys::describe(Keys& keys) {
  keys.key("scope", scope, "scope around the block's layers");
  keys.key("reuse", reuse,
           "no; auto: the scope's variables if there are any; or the scope of another block, whose "
           "variables are shared, and whose layers are built again if the block has none of its own");
  keys.key("layers", layers, "the layers inside", {.type_name = "a list of layers"});
  keys.key("repeat", repeat, "how many times the layers are built, one after the other",
           {.min = 1, .max = 10000});
  keys.key("counter", counter, "name of the number that $(name) in the layers stands for");
  keys.key("from", from, "the counter's first value", {.min = 0, .max = kMostCounter});
  defaults.describe(keys);
}

ConfigNode with_counter(const ConfigNode& node, const std::string& counter, std::int64_t value) {
  ConfigNode copy = node;
  replace_counter(copy.scalar, counter, value);
  for (ConfigNode& item : copy.items) item = with_counter(item, counter, value);
  for (ConfigEntry& entry : copy.entries) entry.value = with_counter(entry.value, counter, value);
  return copy;
}

ModelTree::ModelTree(Graph& graph, VariableStore& store, const JobConfig& config, GraphMode mode,
                     const LayerRegistry& registry)
    : graph_(graph), store_(store), config_(config), mode_(mode), registry_(registry) {}

NodeId ModelTree::build(const std::vector<NamedInput>& inputs) {
  std::vector<std::string> names;
  for (const NamedInput& input : inputs) {
    outputs_[input.name] = {input.node, "the samples"};
    names.push_back(input.name);
    if (!input.with.empty()) bags_[input.node.value] = input.with;
  }
  if (inputs.size() == 1) outputs_.try_emplace("x", Output{inputs.front().node, "the samples"});
  const ConfigNode& layers = config_.model.layers;
  const bool says = layers.is_list() && !layers.items.empty() &&
                    (layers.items[0].find("input") != nullptr || layers.items[0].find("inputs") != nullptr);
  if (inputs.size() > 1 && !says) {
    fail_at(layers.is_list() && !layers.items.empty() ? layers.items[0] : layers, config_.file,
            "model.layers.0",
            fmt::format("the samples have the inputs {}: say which one the layer takes, input: {}",
                        comma_list(names), names.front()));
  }
  return build_list(layers, "model.layers", inputs.front().node);
}

NodeId ModelTree::build_list(const ConfigNode& list, const std::string& path, NodeId input) {
  if (!list.is_list() || list.items.empty()) {
    fail_at(list, config_.file, path,
            fmt::format("expected a list of at least one layer (- type: dense), got {}",
                        list.is_list() ? "an empty one" : list.describe()));
  }
  for (std::size_t i = 0; i < list.items.size(); ++i)
    input = build_item(list.items[i], join_keys(path, std::to_string(i)), input);
  return input;
}

NodeId ModelTree::build_item(const ConfigNode& item, const std::string& path, NodeId input) {
  if (!item.is_map()) {
    fail_at(item, config_.file, path,
            fmt::format("expected a layer (type: dense, units: 10), got {}", item.describe()));
  }
  const bool is_block =
      item.find("layers") != nullptr || (item.find("type") == nullptr && item.find("reuse") != nullptr);
  const std::vector<NodeId> inputs = inputs_of(item, path, input);
  NodeId output;
  if (!is_block) {
    output = build_layer(item, path, inputs);
  } else if (item.find("type") != nullptr) {
    fail_at(*item.find("type"), config_.file, join_keys(path, "type"),
            "a block of layers has no type; remove it, or layers");
  } else if (inputs.size() != 1) {
    fail_at(item, config_.file, join_keys(path, "inputs"), "a block of layers takes one input");
  } else {
    output = build_block(item, path, inputs.front());
  }
  keep_name(item, path, output);
  return output;
}

NodeId ModelTree::build_layer(const ConfigNode& item, const std::string& path,
                              const std::vector<NodeId>& inputs) {
  const LayerType& type = registry_.find(item, config_.file, path);
  const LayerContext context{graph_,       store_, with_bags(inputs),  mode_, item,
                             config_.file, path,   ++count_[type.name]};
  const std::size_t begin = graph_.size();
  LayerInfo info = at_position(item, config_.file, path, [&] { return type.build(context); });
  info.flops_per_sample = flops_between(graph_, begin, graph_.size());
  info.n_parameters = parameters_between(graph_, begin, graph_.size());
  if (info.n_parameters > 0) info.text += fmt::format("; {} parameters", info.n_parameters);
  layers_.push_back(std::move(info));
  return layers_.back().output;
}

NodeId ModelTree::build_block(const ConfigNode& item, const std::string& path, NodeId input) {
  const auto keys = bind_keys<BlockKeys>(item, config_.file, path, {"name", "input", "inputs"});
  check_block(item, path, keys);
  const bool repeats = item.find("repeat") != nullptr;
  if (repeats && keys.scope.find("$(") != std::string::npos) {  // a scope for each round
    for (std::int64_t i = 0; i < keys.repeat; ++i)
      input = build_block(without_repeat(with_counter(item, keys.counter, keys.from + i)), path, input);
    return input;
  }
  const bool shares = keys.reuse != "no" && keys.reuse != "auto";
  Rounds rounds{keys.layers, join_keys(path, "layers"), repeats ? keys.counter : "", keys.repeat, keys.from};
  ScopeOptions options = keys.defaults.options(config_.file, path);
  if (keys.reuse != "no") options.reuse = shares ? Reuse::yes : Reuse::automatic;
  if (keys.scope.empty() && !shares) {  // repeats only, or hands defaults down
    const VariableScope same = store_.reenter(store_.current_scope(), options);
    return build_rounds(item, path, rounds, input);
  }
  const std::string name = shares ? keys.reuse : keys.scope;
  const VariableScope scope = at_position(item, config_.file, path, [&] {
    return name.starts_with('/') ? store_.reenter(name.substr(1), options) : store_.scope(name, options);
  });
  const auto outer = std::exchange(count_, {});
  if (keys.layers.is_null()) {
    const Rounds& shared = shared_rounds(item, path, scope.name());
    for (std::int64_t i = 0; i < keys.repeat; ++i) {
      count_.clear();
      input = build_rounds(item, path, shared, input);
    }
  } else {
    input = build_rounds(item, path, rounds, input);
    blocks_[scope.name()] = std::move(rounds);
  }
  count_ = outer;
  return input;
}

void ModelTree::check_block(const ConfigNode& item, const std::string& path, const BlockKeys& keys) const {
  const auto fail_key = [&](const char* key, const std::string& text) {
    const ConfigNode* value = item.find(key);
    fail_at(value != nullptr ? *value : item, config_.file, join_keys(path, key), text);
  };
  check_scope_name(item, "scope", keys.scope, config_.file, path);
  const bool shares = keys.reuse != "no" && keys.reuse != "auto";
  if (shares && !keys.scope.empty())
    fail_key("scope", fmt::format("reuse: {} names the scope already; remove one of them", keys.reuse));
  if (item.find("repeat") == nullptr) {
    for (const char* key : {"counter", "from"}) {
      if (item.find(key) != nullptr) fail_key(key, "counts the rounds of repeat, which this block has not");
    }
    return;
  }
  const auto is_word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  if (keys.counter.empty() || !std::all_of(keys.counter.begin(), keys.counter.end(), is_word))
    fail_key("counter", fmt::format("\"{}\" is not a name: letters, digits and _", keys.counter));
  if (counters_.contains(keys.counter)) {
    fail_key("counter", fmt::format("the block around counts with $({}) too; give this one another counter",
                                    keys.counter));
  }
}

const ModelTree::Rounds& ModelTree::shared_rounds(const ConfigNode& item, const std::string& path,
                                                  const std::string& scope) const {
  const auto found = blocks_.find(scope);
  if (found != blocks_.end()) return found->second;
  const ConfigNode* at = item.find("reuse");
  fail_at(at != nullptr ? *at : item, config_.file, join_keys(path, "reuse"),
          fmt::format("there is no block of scope \"{}\" that ends before this one; give it layers, or "
                      "the scope of a block",
                      scope));
}

NodeId ModelTree::build_rounds(const ConfigNode& item, const std::string& path, const Rounds& rounds,
                               NodeId input) {
  const bool counts = !rounds.counter.empty();
  if (counts) counters_.insert(rounds.counter);
  // Names inside are known inside only: a block that is built twice has them twice.
  const auto outer = outputs_;
  for (std::int64_t i = 0; i < rounds.repeat; ++i) {
    if (graph_.size() > kMaxNodes) {
      fail_at(item, config_.file, path,
              fmt::format("the model has more than {} operations by here", kMaxNodes));
    }
    outputs_["input"] = {input, "the block's input"};
    input = build_list(counts ? with_counter(rounds.layers, rounds.counter, rounds.from + i) : rounds.layers,
                       rounds.path, input);
    outputs_ = outer;
  }
  if (counts) counters_.erase(rounds.counter);
  return input;
}

std::vector<NodeId> ModelTree::inputs_of(const ConfigNode& item, const std::string& path,
                                         NodeId previous) const {
  const ConfigNode* one = item.find("input");
  const ConfigNode* many = item.find("inputs");
  if (one != nullptr && many != nullptr)
    fail_at(*one, config_.file, join_keys(path, "input"), "there is `inputs` too; keep one of them");
  if (one != nullptr) return {find_output(*one, join_keys(path, "input"))};
  if (many == nullptr) return {previous};
  if (!many->is_list() || many->items.empty()) {
    fail_at(
        *many, config_.file, join_keys(path, "inputs"),
        "expected a list of at least one name, got " + (many->is_list() ? "an empty one" : many->describe()));
  }
  std::vector<NodeId> nodes;
  nodes.reserve(many->items.size());
  for (std::size_t i = 0; i < many->items.size(); ++i)
    nodes.push_back(find_output(many->items[i], fmt::format("{}.inputs.{}", path, i)));
  return nodes;
}

std::vector<NodeId> ModelTree::with_bags(const std::vector<NodeId>& nodes) const {
  std::vector<NodeId> all;
  for (const NodeId node : nodes) {
    all.push_back(node);
    const auto bag = bags_.find(node.value);
    if (bag != bags_.end()) all.insert(all.end(), bag->second.begin(), bag->second.end());
  }
  return all;
}

std::string ModelTree::place_of(const Mark& mark) const {
  std::string text = position_of(mark, config_.file);
  while (text.ends_with(' ') || text.ends_with(':')) text.pop_back();
  return text;
}

NodeId ModelTree::find_output(const ConfigNode& name, const std::string& path) const {
  const auto found = name.is_scalar() ? outputs_.find(name.scalar) : outputs_.end();
  if (found != outputs_.end()) return found->second.node;
  if (const ConfigNode* later = name.is_scalar() ? find_name(config_.model.layers, name.scalar) : nullptr) {
    fail_at(name, config_.file, path,
            fmt::format(
                "\"{}\" is not known here: {} gives it to a layer that comes later, or inside another block. "
                "A layer reads what stands before it; a graph has no cycles",
                name.scalar, place_of(later->mark)));
  }
  std::vector<std::string> names;
  names.reserve(outputs_.size());
  for (const auto& [known, output] : outputs_) names.push_back(known);
  fail_at(
      name, config_.file, path,
      fmt::format(
          "unknown input {}{}; before this layer there are {} (name: gives a layer's output a name; a layer "
          "cannot read what comes after it)",
          name.describe(), name.is_scalar() ? did_you_mean(name.scalar, names) : "", comma_list(names)));
}

void ModelTree::keep_name(const ConfigNode& item, const std::string& path, NodeId output) {
  const ConfigNode* name = item.find("name");
  if (name == nullptr) return;
  if (!name->is_scalar() || name->scalar.empty())
    fail_at(*name, config_.file, join_keys(path, "name"), "expected a text, got " + name->describe());
  if (name->scalar == "input") {
    fail_at(*name, config_.file, join_keys(path, "name"),
            "\"input\" is what a block gets; choose another name");
  }
  std::string made_at = place_of(name->mark);
  const auto [it, is_new] = outputs_.try_emplace(name->scalar, Output{output, made_at});
  if (is_new) return;
  fail_at(*name, config_.file, join_keys(path, "name"),
          fmt::format("the name \"{}\" is taken ({})", name->scalar, it->second.made_at));
}

}  // namespace varscope
