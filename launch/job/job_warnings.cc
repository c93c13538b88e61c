#include "launch/job/job_warnings.h"

#include <sched.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>

#include "common/base/text.h"
#include "common/config/binder.h"
#include "worker/layers/model_output.h"

namespace varscope {
namespace {

std::string at(const JobConfig& job, std::string_view path, const std::string& text) {
  const ConfigNode* node = job.root.find_path(path);
  return fmt::format("{}{}: {}", position_of(node != nullptr ? node->mark : job.root.mark, job.file), path,
                     text);
}

std::string at(const std::string& made_at, const std::string& text) {
  return made_at.empty() ? text : fmt::format("{}: {}", made_at, text);
}

// The node that makes the output's values: what follows it only gives them another shape or dtype.
NodeId maker_of_output(const Model& model) {
  NodeId id = model.output;
  while (true) {
    const Graph::Node& node = model.graph.node(id);
    if (node.kind != Graph::Kind::op) return id;
    const std::string_view type = node.op->type();
    if (!node.op->is_reshape() && type != "reshape" && type != "flatten" && type != "cast") return id;
    id = node.inputs.front();
  }
}

// What the last layer's function is called in the config, for those whose values are probabilities; else "".
std::string probabilities_of(const JobConfig& job, const Graph::Node& output) {
  const std::string_view type = output.kind == Graph::Kind::op ? output.op->type() : "";
  if (type == "softmax" || type == "sigmoid") return std::string(type);
  const Place place = find_layer(job.model.layers, "model.layers", output.made_at, job.file);
  if (place.node == nullptr) return "";
  for (const char* key : {"activation", "kind"}) {
    const ConfigNode* value = place.node->find(key);
    if (value != nullptr && value->is_scalar() && value->scalar == "sigmoid") return "sigmoid";
  }
  return "";
}

void warn_of_double_probabilities(const JobConfig& job, const Model& model,
                                  std::vector<std::string>& warnings) {
  const LossType loss = job.model.loss.type;
  const bool softmax = loss == LossType::softmax_cross_entropy;
  if (!softmax && loss != LossType::sigmoid_cross_entropy) return;
  const Graph::Node& output = model.graph.node(maker_of_output(model));
  const std::string function = probabilities_of(job, output);
  if (function.empty()) return;
  const char* own = softmax ? "softmax" : "sigmoid";
  warnings.push_back(
      at(output.made_at,
         fmt::format(
             "the last layer ends with {}, and loss {} applies {} itself: the model learns slowly, and its "
             "answers stay near each other; remove the {} from the layer",
             function, choice_name(kLossTypes, loss), own, function)));
}

// The variables that the loss depends on through functions with gradients.
std::set<const Variable*> reached_from(const Graph& graph, NodeId loss) {
  std::set<const Variable*> variables;
  std::vector<bool> seen(graph.size(), false);
  std::vector<NodeId> open{loss};
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    if (seen[static_cast<std::size_t>(id.value)]) continue;
    seen[static_cast<std::size_t>(id.value)] = true;
    const Graph::Node& node = graph.node(id);
    if (node.kind == Graph::Kind::variable) variables.insert(node.variable);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.op->differentiable(i)) open.push_back(node.inputs[i]);
    }
  }
  return variables;
}

void warn_of_untrained(const JobConfig& job, const Model& model, std::vector<std::string>& warnings) {
  const std::set<const Variable*> reached = reached_from(model.graph, model.loss);
  std::vector<const Variable*> trained, unreached;
  for (const Variable* v : model.graph.variables()) {
    if (!v->trainable() || v->is_local()) continue;
    trained.push_back(v);
    if (!reached.contains(v)) unreached.push_back(v);
  }
  if (trained.empty()) {
    warnings.push_back(
        at(job, "model.layers",
           "no variable is trained (trainable: false everywhere): training will change no value"));
  }
  if (unreached.empty()) return;
  std::string more;
  if (unreached.size() > 1) more = fmt::format(" and {} more", unreached.size() - 1);
  warnings.push_back(
      at(unreached.front()->made_at(),
         fmt::format("the loss does not depend on variable \"{}\"{}: training will not change it; use "
                     "the layer's output, or remove the layer",
                     unreached.front()->name(), more)));
}

// All weights alike: all units of the layer have one gradient, and stay alike for ever. Where a layer
// answers, labels tell its units apart.
void warn_of_symmetry(const Model& model, std::vector<std::string>& warnings) {
  const Graph& graph = model.graph;
  NodeId output = model.output;
  const auto type_of = [&](NodeId id) {
    const Graph::Node& node = graph.node(id);
    return node.kind == Graph::Kind::op ? std::string_view(node.op->type()) : std::string_view();
  };
  while (type_of(output) == "softmax" || type_of(output) == "reshape" || type_of(output) == "flatten")
    output = graph.node(output).inputs.front();
  for (std::size_t i = 0; i < graph.size(); ++i) {
    const NodeId id(static_cast<int>(i));
    const std::string_view type = type_of(id);
    if (id == output ||
        (type != "dense" && type != "conv2d" && type != "lstm" && type != "gru" && type != "gru_reset_after"))
      continue;
    const Graph::Node& weights = graph.node(graph.node(id).inputs.at(1));
    if (weights.kind != Graph::Kind::variable || !weights.variable->trainable()) continue;
    const Shape& shape = weights.variable->shape();
    if (weights.variable->spec().initializer.kind != Initializer::Kind::constant ||
        shape[shape.rank() - 1] < 2)
      continue;
    warnings.push_back(
        at(weights.variable->made_at(),
           fmt::format(
               "all of \"{}\" begins as {:g}: the units of this layer would stay alike, as one; choose an "
               "initializer that draws (glorot_uniform)",
               weights.variable->name(), weights.variable->spec().initializer.a)));
  }
}

// Whether a layer, or all, ask for compression: the first place where they do.
const ConfigNode* asked_compression(const ConfigNode& node) {
  for (const ConfigEntry& entry : node.entries) {
    const ConfigNode& v = entry.value;
    if (entry.key == "compression") {
      const ConfigNode* type = v.is_map() ? v.find("type") : &v;
      const ConfigNode* values = v.is_map() ? v.find("values") : nullptr;
      if ((type != nullptr && type->is_scalar() && type->scalar != "none") ||
          (values != nullptr && values->is_scalar() && values->scalar == "bf16"))
        return &v;
    } else if (const ConfigNode* found = asked_compression(v)) {
      return found;
    }
  }
  for (const ConfigNode& item : node.items) {
    if (const ConfigNode* found = asked_compression(item)) return found;
  }
  return nullptr;
}

// Where a compression has this start_step.
std::optional<Mark> start_step_mark(const ConfigNode& node, std::int64_t start_step) {
  for (const ConfigEntry& entry : node.entries) {
    const bool is_compression = entry.key == "compression" && entry.value.is_map();
    const ConfigNode* value = is_compression ? entry.value.find("start_step") : nullptr;
    std::int64_t n = 0;
    if (value != nullptr && value->is_scalar() && parse_number(value->scalar, n) && n == start_step)
      return value->mark;
    if (const auto found = start_step_mark(entry.value, start_step)) return found;
  }
  for (const ConfigNode& item : node.items) {
    if (const auto found = start_step_mark(item, start_step)) return found;
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string> compression_warnings(const JobConfig& job, const VariableTable& variables) {
  std::vector<std::string> warnings;
  const auto compressions = variables.compressions();
  const ConfigNode* model = job.root.find_path("model");
  const ConfigNode* asked = model != nullptr ? asked_compression(*model) : nullptr;
  if (compressions.empty() && asked != nullptr) {
    warnings.push_back(fmt::format(
        "{}compression: no variable is compressed: biases, embeddings, tables, what is not trained and what is smaller "
        "than min_bytes never are; remove it, or lower min_bytes",
        position_of(asked->mark, job.file)));
  }
  bool keeps_back = false;
  for (const auto& [name, c] : compressions) keeps_back = keeps_back || c.has_residual();
  const auto warn_of_useless = [&](const char* key, std::int64_t value, std::int64_t usual, const char* who) {
    if (value != usual)
      warnings.push_back(at(job, key, fmt::format("has no effect in this run: only {} it; remove it", who)));
  };
  const ClusterConfig& cluster = job.cluster;
  const ClusterConfig usual;
  if (!keeps_back) {
    warn_of_useless("cluster.settle_steps", cluster.settle_steps, usual.settle_steps,
                    "compression by onebit and topk needs");
  }
  if (!keeps_back && cluster.delay == 0) {
    warn_of_useless("cluster.drain_every_steps", cluster.drain_every_steps, usual.drain_every_steps,
                    "cluster.delay, and compression by onebit and topk, need");
  }
  return warnings;
}

std::vector<std::string> start_step_warnings(const JobConfig& job, const VariableTable& variables,
                                             Clock last) {
  std::vector<std::string> warnings;
  std::set<std::int64_t> told;
  for (const auto& [name, c] : variables.compressions()) {
    if (!c.type || last.value <= 0 || c.last_full_step(last.value) < last.value) continue;
    if (!told.insert(c.start_step).second) continue;
    warnings.push_back(fmt::format(
        "{}compression.start_step: {} is not less than the {} steps of this run: no gradient of \"{}\" is "
        "compressed; lower it",
        position_of(start_step_mark(job.root, c.start_step).value_or(job.root.mark), job.file), c.start_step,
        last.value, name));
  }
  return warnings;
}

std::vector<std::string> model_warnings(const JobConfig& job, const Model& model) {
  std::vector<std::string> warnings;
  warn_of_double_probabilities(job, model, warnings);
  warn_of_untrained(job, model, warnings);
  warn_of_symmetry(model, warnings);
  return warnings;
}

std::vector<std::string> label_warnings(const JobConfig& job, const Dataset& train) {
  const std::optional<std::int64_t> only = train.only_class();
  if (!only || job.model.target != TargetType::labels) return {};
  const std::vector<std::string> names = train.class_names();
  const auto c = static_cast<std::size_t>(*only);
  return {
      at(job, "data.train",
         fmt::format(
             "all {} samples are of class {}: there is nothing to tell apart, and the model learns to say "
             "that; is it the right column, and are the rows in order?",
             train.size(), c < names.size() ? names[c] : std::to_string(c)))};
}

std::vector<std::string> batch_warnings(const JobConfig& job, std::int64_t samples) {
  if (job.train.batch <= samples || job.data.train.get<TextSource>() != nullptr) return {};
  return {at(job, "train.batch",
             fmt::format("{} is more than the {} samples of data.train: each step takes all of them",
                         job.train.batch, samples))};
}

std::vector<std::string> worker_warnings(const JobConfig& job, std::int64_t logical_workers) {
  const std::int64_t idle = logical_workers - job.train.batch;
  if (idle <= 0) return {};
  return {at(job, "train.batch",
             fmt::format("{} is less than the {} logical workers: {} of them never {} a sample",
                         job.train.batch, logical_workers, idle, idle == 1 ? "has" : "have"))};
}

std::vector<std::string> output_warnings(const JobConfig& job) {
  const char* const path = "output.histogram_every_steps";
  if (job.output.histogram_every_steps == 0) return {};
  if (!job.output.tensorboard)
    return {at(job, path, "no histograms are written without output.tensorboard: true")};
  if (job.cluster.consistency == Consistency::bsp) return {};
  return {
      at(job, path,
         fmt::format("no histograms are written in {}: they are of one step's values over all servers, which "
                     "only cluster.consistency: bsp has",
                     choice_name(kConsistencies, job.cluster.consistency)))};
}

std::string own_processors() {
  std::string text;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return text;  // unknown, as beyond CPU_SETSIZE
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) text += (text.empty() ? "" : " ") + std::to_string(i);
  }
  return text;
}

std::vector<std::string> crowding_warnings(const std::vector<std::string>& hosts,
                                           const std::vector<std::string>& processors,
                                           std::int64_t blas_threads, const StepRule& rule) {
  struct Host {
    std::int64_t ranks = 0;
    std::set<int> processors;
    bool is_known = true;
  };
  std::map<std::string, Host> by_name;
  for (std::size_t r = 0; r < hosts.size(); ++r) {
    Host& host = by_name[hosts[r]];
    ++host.ranks;
    host.is_known = host.is_known && !processors[r].empty();
    std::istringstream ids(processors[r]);
    for (int id = 0; ids >> id;) host.processors.insert(id);
  }
  std::vector<std::string> crowded;
  std::string first;
  for (const auto& [name, host] : by_name) {
    const auto n = static_cast<std::int64_t>(host.processors.size());
    if (!host.is_known || host.ranks * blas_threads <= n) continue;
    if (first.empty()) {
      first =
          fmt::format("{} ranks{} on host {} share {} processor{}", host.ranks,
                      blas_threads > 1 ? fmt::format(" with {} threads of OpenBLAS each", blas_threads) : "",
                      name, n, n == 1 ? "" : "s");
    }
    crowded.push_back(name);
  }
  if (crowded.empty()) return {};
  if (crowded.size() > 1)
    first += fmt::format(", and so on {} more host{}", crowded.size() - 1, crowded.size() == 2 ? "" : "s");
  return {first +
          (rule.is_bsp() && !rule.has_backups() ? ": the result is the same, but steps take longer"
                                                : ": steps take longer") +
          " than with a processor for each"};
}

}  // namespace varscope
