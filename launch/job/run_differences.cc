#include "launch/job/run_differences.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/base/tensor.h"
#include "common/config/yaml_reader.h"
#include "ps/coordinator_state.h"

namespace varscope {
namespace {

using Leaves = std::map<std::string, std::string>;

bool is_leaf(const ConfigNode& node) {
  if (node.is_map()) return node.entries.empty();
  return !node.is_list() || std::ranges::all_of(node.items, &ConfigNode::is_scalar);
}

std::string text_of(const ConfigNode& leaf) {
  if (leaf.is_scalar()) return leaf.scalar.empty() ? "\"\"" : leaf.scalar;
  if (!leaf.is_list()) return "nothing";
  std::string text;
  for (const ConfigNode& item : leaf.items) text += (text.empty() ? "" : ", ") + item.scalar;
  return "[" + text + "]";
}

// The keys of a mode are one matter: "ssp, staleness 2, dealing auto"; "bsp, delay 1, ...". Runs of before
// modes were there are bsp, and discount nothing.
void settle_mode(Leaves& leaves) {
  const auto take = [&](const char* path, const char* absent) {
    const auto node = leaves.extract(path);
    return node.empty() ? std::string(absent) : node.mapped();
  };
  std::string mode = take("cluster.consistency", "bsp");
  const std::string staleness = take("cluster.staleness", "0"), dealing = take("cluster.dealing", "auto");
  if (mode == "ssp") mode += ", staleness " + staleness;
  if (mode != "bsp") mode += ", dealing " + dealing;
  if (const std::string delay = take("cluster.delay", "0"); delay != "0")
    mode += ", delay " + delay + ", drained every " + take("cluster.drain_every_steps", "100") + " steps";
  if (const std::string backups = take("cluster.backup_workers", "0"); backups != "0")
    mode += ", backup workers " + backups;
  leaves["cluster.consistency"] = mode;
  leaves.emplace("optimizer.staleness_discount", "none");
}

// Where all workers come together (FlushRule).
constexpr std::array kDrainKeys = {"cluster.drain_every_steps", "cluster.settle_steps",
                                   "checkpoint.every_steps", "train.eval_every_epochs"};

bool is_drain_key(std::string_view path) { return std::ranges::find(kDrainKeys, path) != kDrainKeys.end(); }

// Whether compression keeps something back.
bool keeps_back(const Leaves& leaves) {
  return std::ranges::any_of(leaves, [](const auto& leaf) {
    const bool is_codec = leaf.first.ends_with(".compression") || leaf.first.ends_with(".compression.type");
    return is_codec && (leaf.second == "onebit" || leaf.second == "topk");
  });
}

// Whether one of these keys decides what is computed: where something is kept back, and with a delay.
bool decides(std::string_view drain_key, const Leaves& leaves) {
  if (keeps_back(leaves)) return true;
  const auto delay = leaves.find("cluster.delay");
  return drain_key != "cluster.settle_steps" && delay != leaves.end() && delay->second != "0";
}

// The names of a loss and of no activation may be written in two ways each.
void settle(Leaves& leaves) {
  settle_mode(leaves);
  if (const auto loss = leaves.find("model.loss"); loss != leaves.end()) {
    leaves["model.loss.type"] = loss->second;
    leaves.erase("model.loss");
  }
  std::erase_if(leaves, [](const auto& leaf) {
    return leaf.first.ends_with(".activation") && (leaf.second == "linear" || leaf.second == "none");
  });
}

void gather(const ConfigNode& node, const std::string& path, Leaves& leaves) {
  if (is_leaf(node)) leaves[path] = text_of(node);
  if (is_leaf(node)) return;
  for (const ConfigEntry& e : node.entries) gather(e.value, join_keys(path, e.key), leaves);
  for (std::size_t i = 0; i < node.items.size(); ++i)
    gather(node.items[i], join_keys(path, std::to_string(i)), leaves);
}

Leaves leaves_of(const JobConfig& job) {
  Leaves all;
  gather(read_yaml_text(dump(job), job.file), "", all);
  return all;
}

bool mean_the_same(const std::string& a, const std::string& b) {
  double x = 0, y = 0;
  return a == b || (parse_number(a, x) && parse_number(b, y) && x == y);
}

bool is_below(std::string_view path, std::string_view section) {
  return path == section || (path.starts_with(section) && path.substr(section.size()).starts_with('.'));
}

// First values are those of the checkpoint, whatever would have made them, and slicing changes no value.
bool changes_nothing(std::string_view path) {
  while (!path.empty()) {
    const std::string_view key = path.substr(0, path.find('.'));
    if (key == "initializer" || key.ends_with("_initializer") || key == "partitioner") return true;
    path.remove_prefix(std::min(key.size() + 1, path.size()));
  }
  return false;
}

// Keys of the model that only training sees: values mean the same with others.
bool is_of_training(std::string_view path) {
  constexpr std::array kKeys = {
      "rate",     "regularizer",     "constraint",    "compression",     "trainable",
      "momentum", "label_smoothing", "class_weights", "positive_weight", "sum_over_steps",
      "reduction"};
  while (!path.empty()) {
    const std::string_view key = path.substr(0, path.find('.'));
    if (std::ranges::find(kKeys, key) != kKeys.end() || key.ends_with("_regularizer") ||
        key.ends_with("_constraint"))
      return true;
    path.remove_prefix(std::min(key.size() + 1, path.size()));
  }
  return false;
}

// Which rows of a table go, and what is read of those that are not there: what the others mean stays.
bool is_of_rows_life(std::string_view path) {
  constexpr std::array kKeys = {"expire_steps", "max_rows", "when_full", "absent", "max_waiting"};
  return std::ranges::any_of(kKeys, [&](const std::string& key) { return path.ends_with(".table." + key); });
}

bool is_part_of(const std::string& path, ConfigPart part) {
  if (part == ConfigPart::data) return is_below(path, "data.train") || is_below(path, "data.split");
  if (changes_nothing(path)) return false;
  if (part == ConfigPart::model)
    return is_below(path, "model") && (!is_of_rows_life(path) || path.ends_with(".absent"));
  const bool is_meaning = is_below(path, "model") && !is_of_training(path) && !is_of_rows_life(path);
  if (part == ConfigPart::meaning) return is_meaning;
  if (part == ConfigPart::training && (is_meaning || is_of_rows_life(path))) return false;
  // How long, how often, where to; and what is compared by itself.
  constexpr std::array kOthers = {"job",
                                  "data",
                                  "checkpoint",
                                  "output",
                                  "serve",
                                  "warm_start",
                                  "cluster",
                                  "train.epochs",
                                  "train.max_steps",
                                  "train.batch",
                                  "train.log_every_steps",
                                  "train.eval_every_epochs",
                                  "train.progressive_window",
                                  "train.on_nan",
                                  "train.stop",
                                  "train.metrics"};
  constexpr std::array kOfCluster = {"cluster.blas_threads", "cluster.consistency", "cluster.staleness",
                                     "cluster.dealing",      "cluster.delay",       "cluster.backup_workers"};
  return std::ranges::find(kOfCluster, path) != kOfCluster.end() || is_drain_key(path) ||
         std::ranges::none_of(kOthers, [&](const char* other) { return is_below(path, other); });
}

}  // namespace

namespace {

// In ComparedRun::config, which has the keys of the config besides.
constexpr const char* kFullSteps = "the last step of which automatic compression sends gradients in full";

// Nothing where no variable has such a compression.
std::optional<std::int64_t> automatic_full_steps(const VariableTable& variables, Clock last) {
  for (const auto& [name, c] : variables.compressions()) {
    if (c.has_residual() && c.start_step == Compression::kAutomatic) return c.last_full_step(last.value);
  }
  return std::nullopt;
}

}  // namespace

std::string compared_run_text(const ModelFacts& facts, const JobConfig& job, Clock last) {
  ComparedRun run{facts.train, facts.test, computing_config(job), facts.model};
  if (const auto n = automatic_full_steps(facts.table, last)) run.config[kFullSteps] = std::to_string(*n);
  return to_text(run);
}

std::vector<std::string> full_step_differences(const Manifest& resumed, const VariableTable& variables,
                                               Clock last) {
  const std::optional<ComparedRun> before = compared_run(resumed);
  const std::optional<std::int64_t> now = automatic_full_steps(variables, last);
  if (!before || !now || !before->config.contains(kFullSteps)) return {};
  std::int64_t then = 0;
  parse_number(before->config.at(kFullSteps), then);
  if (then == *now || resumed.step >= std::max(then, *now)) return {};
  return {fmt::format(
      "compression.start_step: -1: gradients go up in full up to step {} in the checkpoint's run, up to step {} "
      "now, a tenth of another length; start_step: {} keeps it",
      then, *now, then)};
}

std::optional<ComparedRun> compared_run(const Manifest& manifest) {
  if (manifest.coordinator_state.empty()) return std::nullopt;
  try {
    const CoordinatorState state = from_manifest_text(manifest.coordinator_state);
    if (state.run.empty()) return std::nullopt;
    return from_text<ComparedRun>(state.run, "what the checkpoint keeps of its run");
  } catch (const Error&) {
    return std::nullopt;  // who goes on from it says so
  }
}

std::vector<std::string> data_differences(const std::string& key, const DataIdentity& before,
                                          const DataIdentity& now) {
  std::vector<std::string> lines;
  if (!before.is_known() || !now.is_known()) return lines;
  if (before.sample_shape != now.sample_shape) {
    lines.push_back(fmt::format("{}: samples of shape {} in the checkpoint's run, {} now", key,
                                Shape(before.sample_shape).str(), Shape(now.sample_shape).str()));
  }
  // The same samples with `classes:` said or not are the same data.
  if (before.classes != now.classes && before.content != now.content) {
    lines.push_back(
        fmt::format("{}: {} classes in the checkpoint's run, {} now", key, before.classes, now.classes));
  }
  if (before.vocabulary != now.vocabulary) {
    lines.push_back(fmt::format(
        "{}: another vocabulary than in the checkpoint's run, so that ids mean other words (XXH3 {}, then {})",
        key, now.vocabulary.hex(), before.vocabulary.hex()));
  }
  if (before.content != now.content && before.samples == now.samples) {
    lines.push_back(fmt::format(
        "{}: other samples or labels than in the checkpoint's run, though as many: the files were edited, or are "
        "others (XXH3 {}, then {})",
        key, now.content.hex(), before.content.hex()));
  }
  return lines;
}

std::vector<std::string> file_differences(const std::string& model_before, const std::string& model_now) {
  // By their names without folders: a run may go on elsewhere.
  const auto files_of = [](const std::string& model) {
    std::multimap<std::string, std::string> files;
    const nlohmann::json all = nlohmann::json::parse(model, nullptr, false);
    if (!all.is_object() || !all.contains("files")) return files;
    for (const auto& f : all.at("files")) {
      files.emplace(
          std::filesystem::path(f.value("name", "")).filename().string(),
          fmt::format("{} bytes, XXH3 {}", f.value("n_bytes", std::int64_t{0}), f.value("xxh3", "")));
    }
    return files;
  };
  const auto before = files_of(model_before), now = files_of(model_now);
  std::vector<std::string> lines;
  if (before.empty() || now.empty() || before == now) return lines;
  const auto texts_of = [](const auto& files, const std::string& name) {
    std::string text;
    const auto [begin, end] = files.equal_range(name);
    for (auto it = begin; it != end; ++it) text += (text.empty() ? "" : " and ") + it->second;
    return text.empty() ? std::string("not there") : text;
  };
  std::set<std::string> names;
  for (const auto* files : {&before, &now}) {
    for (const auto& [name, text] : *files) names.insert(name);
  }
  for (const std::string& name : names) {
    const std::string then = texts_of(before, name), today = texts_of(now, name);
    if (then != today)
      lines.push_back(fmt::format("data.train: {}: {} in the checkpoint's run; {} now", name, then, today));
  }
  return lines;
}

std::map<std::string, std::string> hyperparameters(const JobConfig& job) {
  Leaves all = leaves_of(job);
  std::erase_if(all, [](const auto& leaf) {
    constexpr std::array kMore = {"job.seed", "cluster.logical_workers", "train.batch", "train.epochs",
                                  "train.max_steps"};
    if (leaf.first == "checkpoint.every_steps" || leaf.first == "train.eval_every_epochs") return true;
    return !is_part_of(leaf.first, ConfigPart::run) && !is_part_of(leaf.first, ConfigPart::data) &&
           std::ranges::find(kMore, leaf.first) == kMore.end();
  });
  return all;
}

std::map<std::string, std::string> computing_config(const JobConfig& job) {
  Leaves all = leaves_of(job);
  std::erase_if(all, [](const auto& leaf) {
    return !is_part_of(leaf.first, ConfigPart::run) && !is_part_of(leaf.first, ConfigPart::data);
  });
  if (job.data.test_source() == nullptr) all.erase("train.eval_every_epochs");
  return all;
}

std::vector<std::string> config_differences(const std::map<std::string, std::string>& before,
                                            const JobConfig& now, ConfigPart part) {
  std::vector<std::string> lines;
  if (before.empty()) return lines;
  Leaves today = computing_config(now), then = before;
  then.erase(kFullSteps);
  std::set<std::string> deciding;  // of the keys of drains
  for (const char* key : kDrainKeys) {
    if (decides(key, today) && decides(key, then)) deciding.insert(key);
  }
  settle(today);
  settle(then);
  // Checkpoints of older versions do not have all of them.
  for (const char* key : kDrainKeys) {
    if (deciding.contains(key) && then.contains(key) && today.contains(key)) continue;
    then.erase(key);
    today.erase(key);
  }
  Leaves all = then;
  all.insert(today.begin(), today.end());
  const auto value = [](const Leaves& leaves, const std::string& path) {
    const auto it = leaves.find(path);
    return it == leaves.end() ? std::string("nothing") : it->second;
  };
  for (const auto& [path, unused] : all) {
    const std::string a = value(then, path), b = value(today, path);
    if (is_part_of(path, part) && !mean_the_same(a, b))
      lines.push_back(fmt::format("{}: {} in the checkpoint's run, {} now", path, a, b));
  }
  return lines;
}

}  // namespace varscope
