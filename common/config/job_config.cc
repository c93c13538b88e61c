#include "common/config/job_config.h"

#include <algorithm>
#include <utility>

#include "common/base/text.h"
#include "common/config/consistency_keys.h"
#include "common/config/metric_names.h"
#include "common/config/paths.h"
#include "common/variables/scope_names.h"

namespace varscope {

namespace {

bool is_job_name(std::string_view name) {
  const auto valid = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && name.front() != '.' && name.front() != '-' && std::ranges::all_of(name, valid);
}

void check_job(const JobConfig& config) {
  if (!is_job_name(config.job.name)) {
    fail_at(*config.root.find_path("job.name"), config.file, "job.name",
            fmt::format("{} is not a name: letters, digits, _, - and . only, and not beginning with - or .",
                        ConfigNode::plain(config.job.name).describe()));
  }
}

// The default of the end is above many a rate of Adam.
void check_end_learning_rate(const JobConfig& config) {
  const OptimizerConfig& optimizer = config.optimizer;
  const double end = optimizer.schedule.end_learning_rate;
  if (end <= optimizer.learning_rate) return;
  const std::string path = "optimizer.schedule.end_learning_rate";
  const ConfigNode* written = config.root.find_path(path);
  const ConfigNode& at = written != nullptr ? *written : *config.root.find_path("optimizer.schedule");
  fail_at(at, config.file, path,
          fmt::format("{:g}{} is above learning_rate {:g}: the rate would rise; set it to {:g} or less", end,
                      written != nullptr ? "" : ", the default,", optimizer.learning_rate,
                      optimizer.learning_rate));
}

void check_schedule(const JobConfig& config) {
  const ScheduleConfig& schedule = config.optimizer.schedule;
  if (config.optimizer.type == OptimizerType::ftrl && !schedule.is_constant())
    fail_at(*config.root.find_path("optimizer.schedule"), config.file, "optimizer.schedule",
            kFtrlNeedsAConstantRate);
  if (schedule.type == ScheduleType::polynomial) check_end_learning_rate(config);
  if (schedule.type != ScheduleType::piecewise) return;
  const std::string path = "optimizer.schedule.";
  const auto refuse = [&](const char* key, const std::string& problem) {
    fail_at(*config.root.find_path(path + key), config.file, path + key, problem);
  };
  if (!std::ranges::is_sorted(schedule.boundaries, std::ranges::less_equal())) {
    refuse("boundaries", "each boundary must be greater than the one before it");
  }
  if (schedule.factors.size() != schedule.boundaries.size()) {
    refuse("factors", fmt::format("has {} numbers for the {} boundaries; give one for each",
                                  schedule.factors.size(), schedule.boundaries.size()));
  }
}

void check_model(const JobConfig& config) {
  const ConfigNode& layers = config.model.layers;
  const std::string path = "model.layers";
  if (!layers.is_list()) {
    fail_at(layers, config.file, path,
            fmt::format("expected a list of layers (- type: dense), got {}", layers.describe()));
  }
  if (layers.items.empty()) fail_at(layers, config.file, path, "a model needs at least one layer");
  for (std::size_t i = 0; i < layers.items.size(); ++i) {
    const ConfigNode& layer = layers.items[i];
    const std::string layer_path = join_keys(path, std::to_string(i));
    if (!layer.is_map()) {
      fail_at(layer, config.file, layer_path,
              fmt::format("expected a layer (type: dense, units: 10), got {}", layer.describe()));
    }
    if (layer.find("layers") || layer.find("reuse")) continue;  // a block
    const ConfigNode* type = layer.find("type");
    if (!type) fail_at(layer, config.file, join_keys(layer_path, "type"), "missing; every layer has a type");
    if (!type->is_scalar()) {
      fail_at(*type, config.file, join_keys(layer_path, "type"),
              fmt::format("expected a text, got {}", type->describe()));
    }
  }
}

// A metric that exists, that is a number, and that some evaluation will have. `section` is what asks for it.
void check_best_metric(const JobConfig& config, const std::string& section, const std::string& metric) {
  const std::string path = section + ".metric", key = section.substr(section.find('.') + 1);
  const auto refuse = [&](const std::string& problem) {
    const ConfigNode* node = config.root.find_path(path);
    fail_at(node != nullptr ? *node : *config.root.find_path(section), config.file, path, problem);
  };
  std::vector<std::string> possible = config.evaluated_metrics();
  possible.insert(possible.begin(), "loss");
  if (const std::string problem = best_metric_problem(metric); !problem.empty()) refuse(problem);
  if (std::ranges::find(possible, metric) == possible.end()) {
    refuse(fmt::format("evaluations have no \"{}\", only {}; add it to train.metrics", metric,
                       comma_list(possible)));
  }
  if (config.data.test_source() == nullptr)
    refuse(fmt::format("nothing is evaluated without data.test; add it, or remove {}", key));
  if (config.train.eval_every_epochs == 0)
    refuse(
        fmt::format("nothing is evaluated while train.eval_every_epochs is 0; change it, or remove {}", key));
}

void check_keep_best(const JobConfig& config) {
  if (config.checkpoint.keep_best)
    check_best_metric(config, "checkpoint.keep_best", config.checkpoint.keep_best->metric);
}

// The best checkpoint by the metric that training is ended by stays.
void resolve_stop(JobConfig& config) {
  if (!config.train.stop) return;
  const std::string& metric = config.train.stop->metric;
  check_best_metric(config, "train.stop", metric);
  std::optional<KeepBestConfig>& best = config.checkpoint.keep_best;
  if (best && best->metric != metric) {
    fail_at(
        *config.root.find_path("checkpoint.keep_best.metric"), config.file, "checkpoint.keep_best.metric",
        fmt::format("is \"{}\", but train.stop ends training by \"{}\", and keeps the best checkpoint by it; "
                    "name the same metric, or leave keep_best out",
                    best->metric, metric));
  }
  if (!best) best = KeepBestConfig{.metric = metric};
}

// One of a few words, or nothing.
void check_word(const JobConfig& config, const std::string& path, const ConfigNode& node, std::string_view a,
                std::string_view b) {
  if (node.is_null() || (node.is_scalar() && (node.scalar == a || node.scalar == b))) return;
  fail_at(node, config.file, path, fmt::format("expected {} or {}, got {}", a, b, node.describe()));
}

[[noreturn]] void fail_at_path(const JobConfig& config, const std::string& path, const std::string& text) {
  const ConfigNode* node = config.root.find_path(path);
  fail_at(node != nullptr ? *node : config.root, config.file, path, text);
}

// Keys that speak of a whole data set, which a stream of records never is. Defaults may be written: a dump of
// the config has them.
void refuse_keys_of_epochs(const JobConfig& config) {
  const TrainConfig defaults;
  const auto refuse = [&](bool is_said, const char* path, const char* why) {
    if (is_said) fail_at_path(config, path, fmt::format("does not go with data.train.follow: {}", why));
  };
  refuse(config.train.epochs != defaults.epochs, "train.epochs",
         "each record is learnt once: there are no epochs; train.max_steps ends a run early");
  refuse(config.train.eval_every_epochs != defaults.eval_every_epochs, "train.eval_every_epochs",
         "there are no epochs; data.test is evaluated when the run ends");
  refuse(config.train.stop.has_value(), "train.stop",
         "data.test is evaluated when the run ends; watch the progressive loss (docs/online.md)");
  refuse(config.data.split.has_value(), "data.split",
         "all records are learnt; name other files in data.test");
  refuse(config.checkpoint.keep_best.has_value(), "checkpoint.keep_best",
         "data.test is evaluated when the run ends, so there is no best checkpoint");
}

const ConfigNode* files_node(const DataSourceConfig& source) {
  if (const auto* csv = source.get<CsvSource>()) return &csv->files;
  if (const auto* libsvm = source.get<LibsvmSource>()) return &libsvm->files;
  if (const auto* records = source.get<TfrecordSource>()) return &records->files;
  return nullptr;
}

void check_files(const JobConfig& config, const DataSourceConfig& source, const std::string& path) {
  const ConfigNode* files = files_node(source);
  if (files == nullptr || !files->is_null() || follow_of(source) != nullptr) return;
  fail_at(*config.root.find_path(path), config.file, path + ".files",
          fmt::format("missing; a source of type {} needs files{}", source.type(),
                      path == "data.train" ? ", or follow: a directory that they come into" : ""));
}

void refuse_keys_of_streams(const JobConfig& config) {
  const auto refuse = [&](bool is_said, const std::string& path) {
    if (is_said) fail_at_path(config, path, "is only used with data.train.follow; add that, or remove this");
  };
  for (const char* path : {"data.train.late", "data.train.consumed", "data.train.event_time"}) {
    const ConfigNode* node = config.root.find_path(path);
    refuse(node != nullptr && !node->is_null(), path);
  }
  refuse(config.train.progressive_window != TrainConfig().progressive_window, "train.progressive_window");
  refuse(config.checkpoint.every_records != 0, "checkpoint.every_records");
}

void check_all_is_read(const JobConfig& config) {
  const auto refuse = [&](bool is_said, const char* path) {
    if (is_said) fail_at_path(config, path, "does not go with follow: all records of all files are learnt");
  };
  if (const auto* csv = config.data.train.get<CsvSource>()) {
    refuse(csv->from != 0, "data.train.from");
    refuse(csv->to != 1, "data.train.to");
  }
  if (const auto* records = config.data.train.get<TfrecordSource>()) {
    refuse(records->from != 0, "data.train.from");
    refuse(records->to != 1, "data.train.to");
  }
  if (const auto* libsvm = config.data.train.get<LibsvmSource>())
    refuse(!libsvm->weights.is_null(), "data.train.weights");
}

// Whether the keys of a stream are there together, and no others.
void check_follow(const JobConfig& config) {
  check_files(config, config.data.train, "data.train");
  if (config.data.test) {
    check_files(config, *config.data.test, "data.test");
    if (const FollowKeys* test = follow_of(*config.data.test))
      fail_at(test->directory, config.file, "data.test.follow",
              "data.test has files; only data.train follows");
  }
  const FollowKeys* follow = config.follow();
  if (follow == nullptr) return refuse_keys_of_streams(config);
  if (!follow->directory.is_scalar() || follow->directory.scalar.empty())
    fail_at(follow->directory, config.file, "data.train.follow",
            fmt::format("expected a directory, got {}", follow->directory.describe()));
  if (const ConfigNode* files = config.root.find_path("data.train.files");
      files != nullptr && !files->is_null())
    fail_at(*files, config.file, "data.train.files", "there is follow, too: remove one of them");
  check_word(config, "data.train.late", follow->late, "warn", "fail");
  check_word(config, "data.train.consumed", follow->consumed, "keep", "delete");
  if (!follow->event_time.is_null() && (!follow->event_time.is_scalar() || follow->event_time.scalar.empty()))
    fail_at(follow->event_time, config.file, "data.train.event_time", "expected the name of a column");
  check_all_is_read(config);
  refuse_keys_of_epochs(config);
}

// A map from names to names.
void check_names(const ConfigNode& map, const std::string& file, const std::string& path) {
  if (map.is_null()) return;
  if (!map.is_map()) {
    fail_at(map, file, path, fmt::format("expected a map of names (name: name), got {}", map.describe()));
  }
  for (const ConfigEntry& entry : map.entries) {
    const std::string where = join_keys(path, entry.key);
    if (entry.key.empty()) fail_at(entry.key_mark, file, path, "a name must not be empty");
    if (!entry.value.is_scalar() || entry.value.scalar.empty())
      fail_at(entry.value, file, where, fmt::format("expected a name, got {}", entry.value.describe()));
  }
}

// A name or a map.
LossConfig read_loss(const JobConfig& config) {
  const ConfigNode& node = config.model.loss_node;
  if (node.is_map()) return bind_keys<LossConfig>(node, config.file, "model.loss");
  LossConfig loss;
  struct Name {
    LossType& type;
    void describe(Keys& keys) {
      keys.required_choice("loss", type, kLossTypes, "the loss that training minimizes");
    }
  } name{loss.type};
  ConfigNode map = ConfigNode::map();
  map.add("loss", node, node.mark);
  bind_node(map, config.file, "model", [&](Keys& keys) { name.describe(keys); });
  return loss;
}

// The dotted paths of all entries.
void list_keys(const ConfigNode& node, const std::string& path, std::vector<std::string>& keys) {
  for (const ConfigEntry& entry : node.entries) {
    keys.push_back(join_keys(path, entry.key));
    list_keys(entry.value, join_keys(path, entry.key), keys);
  }
}

}  // namespace

void JobConfig::describe(Keys& keys) {
  keys.required_section("job", job, "what this run is called and where it writes");
  keys.section("cluster", cluster, "how the ranks work together");
  keys.required_section("data", data, "the samples");
  keys.required_section("model", model, "the network");
  keys.section("optimizer", optimizer, "how servers update variables");
  keys.section("train", train, "how long and how to train");
  keys.section("checkpoint", checkpoint, "when to save, and where");
  keys.optional_section(
      "warm_start", warm_start,
      "a new run starts with values of a checkpoint instead of initial ones; ignored by --resume");
  keys.section("output", output, "what the user sees");
  keys.optional_section("serve", serve,
                        "how `varscope serve` answers; training does not look at it, and options win");
}

std::string JobConfig::run_dir() const { return job.run_dir.empty() ? "runs/" + job.name : job.run_dir; }

std::string JobConfig::checkpoint_dir() const {
  return checkpoint.dir.empty() ? run_dir() + "/checkpoints" : checkpoint.dir;
}

std::vector<std::string> JobConfig::evaluated_metrics() const {
  if (!train.metrics.empty()) return train.metrics;
  if (model.target == TargetType::input) return {"rmse"};
  if (data.train.predicts_numbers()) return {"rmse"};
  const auto* text = data.train.get<TextSource>();
  if (text != nullptr && text->steps > 1) return {"accuracy", "perplexity"};
  return {"accuracy"};
}

bool operator==(const JobConfig& a, const JobConfig& b) {
  return a.job == b.job && a.cluster == b.cluster && a.data == b.data && a.model == b.model &&
         a.optimizer == b.optimizer && a.train == b.train && a.checkpoint == b.checkpoint &&
         a.warm_start == b.warm_start && a.output == b.output && a.serve == b.serve;
}

JobConfig parse_job(const ConfigNode& root, const std::string& file) {
  if (root.is_null()) fail(ErrorKind::config, "{}: the file is empty; a job needs job, data and model", file);
  auto config = bind_keys<JobConfig>(root, file, "");
  config.file = file;
  config.root = root;
  check_job(config);
  check_model(config);
  config.model.loss = read_loss(config);
  check_schedule(config);
  check_follow(config);
  check_consistency_keys(config);
  check_keep_best(config);
  resolve_stop(config);
  check_names(config.checkpoint.rename, config.file, "checkpoint.rename");
  for (const ConfigEntry& entry : config.checkpoint.rename.entries) {
    if (const std::string problem = saved_name_problem(entry.key); !problem.empty())
      fail_at(entry.key_mark, config.file, "checkpoint.rename", problem);
  }
  if (config.warm_start) check_names(config.warm_start->map, config.file, "warm_start.map");
  if (config.data.test && config.data.split) {
    fail_at(*config.root.find_path("data.split"), config.file, "data.split",
            "there is data.test, too: both say what is evaluated; remove one of them");
  }
  if (config.serve) config.serve->require = read_required_metric(config.serve->require_node, config.file);
  config.data.train.resolve(DataSplit::train);
  if (config.data.test) config.data.test->resolve(DataSplit::test);
  return config;
}

std::string explain_job_config(ExplainDetail detail) {
  std::string all =
      explain_keys<JobConfig>("") + explain_keys<LossConfig>("model.loss") + explain_required_metric();
  if (detail == ExplainDetail::every_key) return all;
  std::string text;
  for (const ExplainedKey& key : explained_keys(all)) {
    if (key.path.starts_with("data.test.") || key.path.starts_with("data.test[")) continue;
    text += key.text;
    if (key.path == "data.test") text += "    its keys are those of data.train\n";
  }
  return text;
}

std::string dump(const JobConfig& config) {
  ConfigNode all = dump_keys(config);
  escape_paths(all);
  return all.to_yaml();
}

std::string value_text(const JobConfig& config, const std::string& key) {
  if (key == "job.run_dir") return config.run_dir() + "\n";
  if (key == "checkpoint.dir") return config.checkpoint_dir() + "\n";
  const ConfigNode all = dump_keys(config);
  const ConfigNode* node = all.find_path(key);
  if (node == nullptr) {
    std::vector<std::string> keys;
    list_keys(all, "", keys);
    fail(ErrorKind::config, "{}: key \"{}\" is not set, or does not exist{}", config.file, key,
         did_you_mean(key, keys));
  }
  return node->is_scalar() ? node->scalar + "\n" : node->to_yaml();
}

}  // namespace varscope
