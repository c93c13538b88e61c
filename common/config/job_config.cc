#include "common/config/job_config.h"

#include <algorithm>

#include "common/config/suggest.h"
#include "common/metric_names.h"

namespace varscope {

namespace {

constexpr std::int64_t kTrainDigits = 10000;
constexpr std::int64_t kTestDigits = 2000;

bool is_job_name(std::string_view name) {
  const auto valid = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && name.front() != '.' && name.front() != '-' && std::ranges::all_of(name, valid);
}

// What the position in the file decides.
void settle(DataSourceConfig& source, DataSplit position) {
  if (source.split == DataSplit::automatic) source.split = position;
  if (source.type == DataType::digits && source.samples == 0) {
    source.samples = position == DataSplit::train ? kTrainDigits : kTestDigits;
  }
}

void check_not_empty(const ConfigNode& root, const std::string& file, std::string_view path) {
  const ConfigNode* node = root.find_path(path);
  if (node && node->is_scalar() && node->scalar.empty()) fail_at(*node, file, path, "must not be empty");
}

void check_job(const JobConfig& config) {
  if (!is_job_name(config.job.name)) {
    fail_at(*config.root.find_path("job.name"), config.file, "job.name",
            fmt::format("{} is not a name: letters, digits, _, - and . only, and not beginning with - or .",
                        ConfigNode::plain(config.job.name).describe()));
  }
  for (const char* path : {"data.train.folder", "data.train.images", "data.train.labels", "data.train.file",
                           "data.test.folder", "data.test.images", "data.test.labels", "data.test.file"}) {
    check_not_empty(config.root, config.file, path);
  }
}

void check_schedule(const JobConfig& config) {
  const ScheduleConfig& schedule = config.optimizer.schedule;
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

// A metric that exists, that is a number, and that some evaluation will have.
void check_keep_best(const JobConfig& config) {
  if (!config.checkpoint.keep_best) return;
  const std::string path = "checkpoint.keep_best.metric";
  const std::string& metric = config.checkpoint.keep_best->metric;
  const auto refuse = [&](const std::string& problem) {
    fail_at(*config.root.find_path(path), config.file, path, problem);
  };
  std::vector<std::string> possible = config.evaluated_metrics();
  possible.insert(possible.begin(), "loss");
  if (!order_of_metric(metric) && metric != "confusion_matrix") {
    const std::vector<std::string> names = metric_names();
    const std::string near = nearest(metric, names);
    refuse(fmt::format("unknown metric \"{}\"{}; known are {}", metric,
                       near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near), comma_list(names)));
  }
  if (!order_of_metric(metric)) refuse("confusion_matrix is no number; there is no best one");
  if (std::ranges::find(possible, metric) == possible.end()) {
    refuse(fmt::format("evaluations have no \"{}\", only {}; add it to train.metrics", metric,
                       comma_list(possible)));
  }
  if (!config.data.test) refuse("nothing is evaluated without data.test; add it, or remove keep_best");
  if (config.train.eval_every_epochs == 0)
    refuse("nothing is evaluated while train.eval_every_epochs is 0; change it, or remove keep_best");
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
    void describe(Keys& k) { k.required_choice("loss", type, kLossTypes, "what training makes small"); }
  } name{loss.type};
  ConfigNode map = ConfigNode::map();
  map.add("loss", node, node.mark);
  bind_node(map, config.file, "model", [&](Keys& k) { name.describe(k); });
  return loss;
}

}  // namespace

void JobSection::describe(Keys& b) {
  b.required_key("name", name, "name of the job; letters, digits, _ - and .");
  b.key("seed", seed, "seed of every random draw: initial values, shuffling, dropout", {.min = 0});
  b.key("run_dir", run_dir, "folder for metrics and checkpoints; empty means runs/<name>");
}

void ClusterConfig::describe(Keys& b) {
  b.key("servers", servers, "parameter server ranks; the other ranks are workers",
        {.unit = "ranks", .min = 1});
  b.key("logical_workers", logical_workers,
        "equal parts of the global batch whose gradients are summed in a fixed order; 0 means the number of "
        "workers. "
        "Set it to get the same bits on any number of workers",
        {.min = 0});
  b.choice("consistency", consistency, kConsistencies,
           "when a worker may read values; bsp waits for all of them");
  b.key("stall_timeout_s", stall_timeout_s, "a rank that does not answer for this long ends the job",
        {.unit = "seconds", .min = 1});
  b.key("step_timeout_s", step_timeout_s,
        "a step that takes longer than this ends the job, though all ranks answer",
        {.unit = "seconds", .min = 1});
  b.key("blas_threads", blas_threads, "threads of OpenBLAS in each rank", {.unit = "threads", .min = 1});
}

void DataSourceConfig::describe(Keys& b) {
  b.required_selector(
      "type", type, kDataTypes,
      "where samples come from: idx files, the Fashion-MNIST folder, generated digits, or the words of a "
      "text");
  b.key("folder", folder, "folder with the four files of Fashion-MNIST", {.only_for = "fashion_mnist"});
  b.choice("split", split, kDataSplits,
           "which part to read; auto is train for data.train and test for data.test",
           {.only_for = "fashion_mnist, text"});
  b.required_key("images", images, "IDX file with the images", {.only_for = "idx"});
  b.required_key("labels", labels, "IDX file with the labels", {.only_for = "idx"});
  b.key("samples", samples,
        "use the first n samples. 0 means all of the files; for digits 10000 in data.train and 2000 in "
        "data.test",
        {.unit = "samples", .min = 0, .only_for = "idx, fashion_mnist, digits"});
  b.key("pairs", pairs,
        "make pairs: each sample with another one; label 1 when both are of one class, else 0",
        {.only_for = "idx, fashion_mnist, digits"});
  b.key("pair_seed", pair_seed, "seed of the choice of pairs",
        {.min = 0, .only_for = "idx, fashion_mnist, digits"});
  b.key("noise", noise, "how much noise the generated images have",
        {.min = 0, .max = 1, .only_for = "digits"});
  b.key("size", size, "side of the generated images",
        {.unit = "pixels", .min = 8, .max = 64, .only_for = "digits"});
  b.key("seed", seed, "seed of the generator", {.min = 0, .only_for = "digits"});
  b.required_key("file", file, "text file, plain or gzip; words are split at white space",
                 {.only_for = "text"});
  b.key("vocabulary", vocabulary,
        "words that are told apart, by frequency in the training part; others are <unk>",
        {.unit = "words", .min = 2, .max = 1 << 24, .only_for = "text"});
  b.key("steps", steps, "words of a sample: back-propagation ends there",
        {.unit = "words", .min = 1, .max = 1 << 16, .only_for = "text"});
  b.key("test_fraction", test_fraction, "part of the words, at the end of the file, that is not trained on",
        {.min = 0, .below = 1, .only_for = "text"});
  b.key("words", words, "use the first n words of the part; 0 means all",
        {.unit = "words", .min = 0, .only_for = "text"});
}

void DataConfig::describe(Keys& b) {
  b.required_section("train", train, "samples to learn from");
  b.optional_section("test", test, "samples to evaluate on; without it nothing is evaluated");
}

void ModelConfig::describe(Keys& b) {
  b.required_key("layers", layers, "the layers, first to last; each has a type and that type's keys",
                 {.type_name = "a list of layers"});
  b.required_key(
      "loss", loss_node,
      "what training makes small: softmax_cross_entropy, sigmoid_cross_entropy, mean_squared_error or "
      "absolute_error, or a map with that type, label_smoothing, class_weights, positive_weight",
      {.type_name = "a loss"});
  b.choice("target", target, kTargetTypes,
           "what the last layer is compared with; input makes an autoencoder of the network");
  b.choice("dtype", dtype, kModelDTypes, "element type of variables and activations");
  b.key("initializer", initializer, "default initializer of the weights; without it glorot_uniform",
        {.type_name = "an initializer"});
  b.key("regularizer", regularizer, "default regularizer of all variables: l1, l2, l1_l2 or none, as a map",
        {.type_name = "a regularizer"});
  b.key("constraint", constraint, "default constraint of all variables: max_norm, non_neg, unit_norm or none",
        {.type_name = "a constraint"});
  b.key("partitioner", partitioner,
        "default partitioner of all variables: fixed_size, variable_axis_size, min_max or none, as a map",
        {.type_name = "a partitioner"});
}

void LossConfig::describe(Keys& b) {
  b.required_selector("type", type, kLossTypes, "what training makes small");
  b.key("label_smoothing", label_smoothing, "how much of the target is spread evenly over the classes",
        {.min = 0, .below = 1, .only_for = "softmax_cross_entropy, sigmoid_cross_entropy"});
  b.key("class_weights", class_weights, "factor of the loss of each class; none means 1 for all",
        {.min = 0, .only_for = "softmax_cross_entropy"});
  b.key("sum_over_steps", sum_over_steps,
        "gradients are of the sum over a sample's labels and the mean over samples; false: of the mean over "
        "both. "
        "Losses are shown per label in any case");
  b.key("positive_weight", positive_weight, "factor of the loss of samples with label 1",
        {.above = 0, .only_for = "sigmoid_cross_entropy"});
}

void OptimizerConfig::describe(Keys& b) {
  b.selector("type", type, kOptimizerTypes, "the update rule");
  b.key("learning_rate", learning_rate, "size of a step", {.above = 0});
  b.key("momentum", momentum, "decay of the velocity per step",
        {.min = 0, .below = 1, .only_for = "momentum, nesterov"});
  b.key("beta1", beta1, "decay of the mean of gradients per step",
        {.min = 0, .below = 1, .only_for = "adam, adamw"});
  b.key("beta2", beta2, "decay of the mean of squared gradients per step",
        {.min = 0, .below = 1, .only_for = "adam, adamw"});
  b.key("epsilon", epsilon, "added to the root of the mean square",
        {.above = 0, .only_for = "adagrad, rmsprop, adam, adamw"});
  b.key("rho", rho, "decay of the mean of squared gradients per step",
        {.min = 0, .below = 1, .only_for = "rmsprop"});
  b.key("weight_decay", weight_decay,
        "pulls values to 0: adamw takes this times the learning rate off each step, the others add it times "
        "the value to "
        "the gradient",
        {.min = 0});
  b.key("initial_accumulator", initial_accumulator, "initial sum of squared gradients",
        {.above = 0, .only_for = "adagrad"});
  b.section("schedule", schedule, "how learning_rate changes from step to step");
  b.section("clip", clip, "limits on the mean gradient of a step, before weight decay and the update rule");
}

void ScheduleConfig::describe(Keys& b) {
  b.selector("type", type, kScheduleTypes, "how the rate changes; steps count from the end of the warm-up");
  b.required_key("every_steps", every_steps, "steps between two changes of the rate",
                 {.unit = "steps", .min = 1, .only_for = "step"});
  b.key("factor", factor, "what each change multiplies the rate by", {.above = 0, .only_for = "step"});
  b.required_key("boundaries", boundaries, "how many steps are done when the rate changes, in rising order",
                 {.unit = "steps", .min = 1, .only_for = "piecewise"});
  b.required_key("factors", factors, "learning_rate times factors[i] is the rate after boundaries[i] steps",
                 {.min = 0, .only_for = "piecewise"});
  b.required_key(
      "decay_steps", decay_steps,
      "how long the rate falls; exponential multiplies it by `rate` in so many steps, again and again",
      {.unit = "steps", .min = 1, .only_for = "exponential, polynomial, cosine"});
  b.key("rate", rate, "what decay_steps steps multiply the rate by", {.above = 0, .only_for = "exponential"});
  b.key("staircase", staircase, "change the rate only every decay_steps steps", {.only_for = "exponential"});
  b.key("end_learning_rate", end_learning_rate, "the rate from decay_steps steps on",
        {.min = 0, .only_for = "polynomial"});
  b.key("power", power, "exponent of the part of decay_steps that is left",
        {.above = 0, .only_for = "polynomial"});
  b.key("alpha", alpha, "the part of learning_rate that is left from decay_steps steps on",
        {.min = 0, .max = 1, .only_for = "cosine"});
  b.key("warmup_steps", warmup_steps, "first steps, in which the rate rises evenly from 0 to learning_rate",
        {.unit = "steps", .min = 0});
}

void ClipConfig::describe(Keys& b) {
  b.selector("type", type, kClipTypes,
             "what is limited: each value, the norm of each variable's gradient, or the norm over all "
             "variables");
  b.key("limit", limit, "largest absolute value, or largest Euclidean norm",
        {.above = 0, .only_for = "value, norm, global_norm"});
}

void TrainConfig::describe(Keys& b) {
  b.key("epochs", epochs, "passes over the training data", {.unit = "epochs", .min = 1});
  b.key("batch", batch, "samples in the global batch, over all workers", {.unit = "samples", .min = 1});
  b.key("max_steps", max_steps, "stop after this many steps; 0 means no limit", {.unit = "steps", .min = 0});
  b.key("shuffle", shuffle, "new order of the samples in each epoch");
  b.key("log_every_steps", log_every_steps, "steps between two lines of metrics; 0 means never",
        {.unit = "steps", .min = 0});
  b.key("eval_every_epochs", eval_every_epochs, "epochs between two evaluations on data.test; 0 means never",
        {.unit = "epochs", .min = 0});
  b.key("eval_batch", eval_batch,
        "samples evaluated at once by a worker; for a text the sequences that are read side by side",
        {.unit = "samples", .min = 1});
  b.key("metrics", metrics,
        "figures of an evaluation besides the loss: accuracy, top_<k>, auc, log_loss, rmse, perplexity, "
        "precision, "
        "recall, confusion_matrix. Without any: what suits the loss");
}

void CheckpointConfig::describe(Keys& b) {
  b.key("dir", dir, "folder of the checkpoints; empty means checkpoints in the run directory");
  b.key("every_steps", every_steps, "steps between two checkpoints; 0 means off",
        {.unit = "steps", .min = 0});
  b.key("every_seconds", every_seconds, "time between two checkpoints; 0 means off",
        {.unit = "seconds", .min = 0});
  b.key("keep", keep, "newest checkpoints that are kept", {.unit = "checkpoints", .min = 1});
  b.key("keep_every_steps", keep_every_steps,
        "checkpoints of steps that are multiples of this are kept for ever; 0 means off",
        {.unit = "steps", .min = 0});
  b.key("keep_every_hours", keep_every_hours,
        "the oldest checkpoint, and each that is this much later than the last so kept, are kept for ever; 0 "
        "means off",
        {.unit = "hours", .min = 0});
  b.optional_section("keep_best", keep_best, "the best checkpoints by a figure of the evaluations are kept");
  b.key("variables", variables,
        "what checkpoints hold: full names, or scopes (\"hidden1/\"). Without any: all variables. A run "
        "resumes from a part only with partial_restore");
  b.key("rename", rename,
        "other names in the checkpoint, as a map: the name there and the variable in the model. The same map "
        "restores",
        {.type_name = "a map of names"});
  b.key("partial_restore", partial_restore,
        "when resuming, variables that the checkpoint does not have get initial values instead of being an "
        "error");
  b.key("at_end", at_end, "write a checkpoint when training ends");
  b.key("timeout_s", timeout_s, "a checkpoint that takes longer is given up",
        {.unit = "seconds", .above = 0});
  b.key("max_failures", max_failures, "checkpoints in a row that may fail before the job ends",
        {.unit = "checkpoints", .min = 1});
  b.choice("snapshot", snapshot, kSnapshotModes,
           "how a server keeps its state while the disk writes it: cow saves what updates overwrite, copy "
           "stops training and copies all");
  b.key("pool_mib", pool_mib,
        "memory of each server for what cow saves; when it is full updates wait for the disk. 0 means as "
        "much as the server's values and slots: updates never wait",
        {.unit = "MiB", .min = 0, .max = 1 << 24});
  b.key("mean_time_between_failures_s", mean_time_between_failures_s,
        "how long this job runs between two failures on average; the header and the summary then say how "
        "often to make "
        "checkpoints. 0 means unknown: a day is assumed",
        {.unit = "seconds", .min = 0});
  b.choice("when_busy", when_busy, kWhenBusy,
           "what becomes of a checkpoint that is due while an earlier one is being written: skip leaves it "
           "out, queue makes it at the first step after that");
}

void KeepBestConfig::describe(Keys& b) {
  b.required_key("metric", metric, "loss, or one of train.metrics: of the newest evaluation up to its step");
  b.key("count", count, "how many of the best are kept", {.unit = "checkpoints", .min = 1});
  b.choice(
      "mode", mode, kBestModes,
      "which values are better; auto knows: larger for accuracy, top_<k>, auc, precision, recall, smaller "
      "for the others");
}

void WarmStartConfig::describe(Keys& b) {
  b.required_key("from", from, "a checkpoint, or a directory of them: its newest whole one");
  b.key("map", map,
        "which values go where, as a map from checkpoint to model: 'a/': 'b/' for a scope, a/x: b/y for a "
        "variable, '/' for the root. Without it all variables by their own names",
        {.type_name = "a map of names"});
}

void OutputConfig::describe(Keys& b) {
  b.key("metrics", metrics, "write metrics as JSON lines into the run directory");
  b.choice("progress", progress, kProgressModes,
           "progress on the terminal; auto is on where there is a terminal");
}

void JobConfig::describe(Keys& b) {
  b.required_section("job", job, "what this run is called and where it writes");
  b.section("cluster", cluster, "how the ranks work together");
  b.required_section("data", data, "the samples");
  b.required_section("model", model, "the network");
  b.section("optimizer", optimizer, "how servers update variables");
  b.section("train", train, "how long and how to train");
  b.section("checkpoint", checkpoint, "when to save, and where");
  b.optional_section(
      "warm_start", warm_start,
      "a new run starts with values of a checkpoint instead of initial ones; ignored by --resume");
  b.section("output", output, "what the user sees");
}

std::string JobConfig::run_dir() const { return job.run_dir.empty() ? "runs/" + job.name : job.run_dir; }

std::string JobConfig::checkpoint_dir() const {
  return checkpoint.dir.empty() ? run_dir() + "/checkpoints" : checkpoint.dir;
}

std::vector<std::string> JobConfig::evaluated_metrics() const {
  if (!train.metrics.empty()) return train.metrics;
  if (model.target == TargetType::input) return {"rmse"};
  if (data.train.type == DataType::text && data.train.steps > 1) return {"accuracy", "perplexity"};
  return {"accuracy"};
}

bool operator==(const JobConfig& a, const JobConfig& b) {
  return a.job == b.job && a.cluster == b.cluster && a.data == b.data && a.model == b.model &&
         a.optimizer == b.optimizer && a.train == b.train && a.checkpoint == b.checkpoint &&
         a.warm_start == b.warm_start && a.output == b.output;
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
  check_keep_best(config);
  check_names(config.checkpoint.rename, config.file, "checkpoint.rename");
  if (config.warm_start) check_names(config.warm_start->map, config.file, "warm_start.map");
  settle(config.data.train, DataSplit::train);
  if (config.data.test) settle(*config.data.test, DataSplit::test);
  return config;
}

std::string explain_job_config() {
  return explain_keys<JobConfig>("") + explain_keys<LossConfig>("model.loss");
}

std::string dump(const JobConfig& config) { return dump_keys(config).to_yaml(); }

}  // namespace varscope
