#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/tensor.h"
#include "common/config/binder.h"
#include "common/config/config_node.h"
#include "common/config/reduction.h"
#include "common/config/serve_config.h"
#include "common/config/source_keys.h"
#include "common/config/step_rule.h"

namespace varscope {

// The typed form of a job's YAML. Defaults are the member initialisers; the keys, their rules and their
// meaning are in the `describe` functions (job_config_keys.cc), which also make `varscope config --explain`
// and the dump. Plain value types.

struct JobSection {
  std::string name;
  std::int64_t seed = 1;
  std::string run_dir;  // empty: see JobConfig::run_dir()
  void describe(Keys& keys);
  bool operator==(const JobSection&) const = default;
};

inline constexpr Choice<Consistency> kConsistencies[] = {
    {Consistency::bsp, "bsp"}, {Consistency::ssp, "ssp"}, {Consistency::asp, "asp"}};
// As the config says it; `automatic` is resolved by the model: see StepRule.
enum class DealingChoice : std::uint8_t { automatic, in_place, to_whoever_asks };
inline constexpr Choice<DealingChoice> kDealings[] = {{DealingChoice::automatic, "auto"},
                                                      {DealingChoice::in_place, "static"},
                                                      {DealingChoice::to_whoever_asks, "dynamic"}};

struct ClusterConfig {
  std::int64_t servers = 1;
  std::int64_t logical_workers = 0;  // 0: as many as workers
  Consistency consistency = Consistency::bsp;
  std::int64_t staleness = 0;  // ssp
  DealingChoice dealing = DealingChoice::automatic;
  std::int64_t delay = 0;  // bsp
  std::int64_t drain_every_steps = 100;
  std::int64_t settle_steps = 10;
  std::int64_t backup_workers = 0;  // bsp
  bool record = false;              // ssp, asp; bsp with backup_workers
  double stall_timeout_s = 60;
  double step_timeout_s = 1800;
  bool early_requests = true;
  std::int64_t blas_threads = 1;
  void describe(Keys& keys);
  bool operator==(const ClusterConfig&) const = default;
};

struct DataConfig {
  DataSourceConfig train;
  std::optional<DataSourceConfig> test;
  std::optional<SplitConfig> split;  // or a part of `train` is the test set
  std::string cache = "auto";        // where tables that are read from text are kept: auto, none, or a folder
  // What is evaluated; null: nothing is.
  const DataSourceConfig* test_source() const { return test ? &*test : split ? &train : nullptr; }
  // Where the config says it.
  const char* test_path() const { return split ? "data.split" : "data.test"; }
  void describe(Keys& keys);
  bool operator==(const DataConfig&) const = default;
};

enum class LossType : std::uint8_t {
  softmax_cross_entropy,
  sigmoid_cross_entropy,
  mean_squared_error,
  absolute_error,
  huber,
  poisson
};
inline constexpr Choice<LossType> kLossTypes[] = {{LossType::softmax_cross_entropy, "softmax_cross_entropy"},
                                                  {LossType::sigmoid_cross_entropy, "sigmoid_cross_entropy"},
                                                  {LossType::mean_squared_error, "mean_squared_error"},
                                                  {LossType::absolute_error, "absolute_error"},
                                                  {LossType::huber, "huber"},
                                                  {LossType::poisson, "poisson"}};
inline constexpr Choice<Reduction> kReductions[] = {{Reduction::mean, "mean"}, {Reduction::sum, "sum"}};

// The loss as YAML writes it: a name, or a map with a type and that type's keys.
struct LossConfig {
  LossType type = LossType::softmax_cross_entropy;
  double label_smoothing = 0;             // softmax_cross_entropy, sigmoid_cross_entropy
  std::vector<double> class_weights;      // softmax_cross_entropy: one for each class, or none
  double positive_weight = 1;             // sigmoid_cross_entropy
  double delta = 1;                       // huber
  Reduction reduction = Reduction::mean;  // all but softmax_cross_entropy: over the elements of a sample
  bool sum_over_steps = false;            // gradients of the sum, not of the mean, over a sample's labels
  void describe(Keys& keys);
  bool operator==(const LossConfig&) const = default;
};

// What the last layer is compared with: the samples' labels, or the input itself (an autoencoder).
enum class TargetType : std::uint8_t { labels, input };
inline constexpr Choice<TargetType> kTargetTypes[] = {{TargetType::labels, "labels"},
                                                      {TargetType::input, "input"}};
inline constexpr Choice<DType> kModelDTypes[] = {{DType::float32, "float32"}, {DType::float64, "float64"}};

struct ModelConfig {
  // A non-empty list of maps: layers, with a scalar `type`, and blocks of layers. worker/layers binds the
  // rest, path "model.layers.<i>".
  ConfigNode layers;
  ConfigNode loss_node;
  LossConfig loss;  // what loss_node says, once parse_job is done
  TargetType target = TargetType::labels;
  DType dtype = DType::float32;
  // Defaults of all layers, null when absent; worker/layers binds them, path "model.initializer" and so on.
  ConfigNode initializer, regularizer, constraint, partitioner, compression;
  void describe(Keys& keys);
  bool operator==(const ModelConfig&) const = default;
};

enum class OptimizerType : std::uint8_t {
  sgd,
  momentum,
  nesterov,
  adagrad,
  rmsprop,
  adam,
  adamw,
  ftrl,
  rowwise_adagrad
};
inline constexpr Choice<OptimizerType> kOptimizerTypes[] = {
    {OptimizerType::sgd, "sgd"},
    {OptimizerType::momentum, "momentum"},
    {OptimizerType::nesterov, "nesterov"},
    {OptimizerType::adagrad, "adagrad"},
    {OptimizerType::rmsprop, "rmsprop"},
    {OptimizerType::adam, "adam"},
    {OptimizerType::adamw, "adamw"},
    {OptimizerType::ftrl, "ftrl"},
    {OptimizerType::rowwise_adagrad, "rowwise_adagrad"}};

enum class ScheduleType : std::uint8_t { constant, step, piecewise, exponential, polynomial, cosine };
inline constexpr Choice<ScheduleType> kScheduleTypes[] = {
    {ScheduleType::constant, "constant"},     {ScheduleType::step, "step"},
    {ScheduleType::piecewise, "piecewise"},   {ScheduleType::exponential, "exponential"},
    {ScheduleType::polynomial, "polynomial"}, {ScheduleType::cosine, "cosine"}};

// The formulas are in ps/update/schedule.h.
struct ScheduleConfig {
  ScheduleType type = ScheduleType::constant;
  std::int64_t every_steps = 0;               // step
  double factor = 0.1;                        // step
  std::vector<std::int64_t> boundaries = {};  // piecewise
  std::vector<double> factors = {};           // piecewise
  std::int64_t decay_steps = 0;               // exponential, polynomial, cosine
  double rate = 0.96;                         // exponential
  bool staircase = false;                     // exponential
  double end_learning_rate = 1e-4;            // polynomial
  double power = 1;                           // polynomial
  double alpha = 0;                           // cosine
  std::int64_t warmup_steps = 0;
  bool is_constant() const { return type == ScheduleType::constant && warmup_steps == 0; }
  void describe(Keys& keys);
  bool operator==(const ScheduleConfig&) const = default;
};

enum class ClipType : std::uint8_t { none, value, norm, global_norm };
inline constexpr Choice<ClipType> kClipTypes[] = {{ClipType::none, "none"},
                                                  {ClipType::value, "value"},
                                                  {ClipType::norm, "norm"},
                                                  {ClipType::global_norm, "global_norm"}};

// What is done to the mean gradient of the global batch before weight decay and the update rule.
struct ClipConfig {
  ClipType type = ClipType::none;
  double limit = 5;  // value, norm, global_norm
  // True if an element's gradient depends on the norm of others.
  bool needs_norms() const { return type == ClipType::norm || type == ClipType::global_norm; }
  void describe(Keys& keys);
  bool operator==(const ClipConfig&) const = default;
};

// Why ftrl takes no schedule.
inline constexpr const char* kFtrlNeedsAConstantRate =
    "ftrl keeps learning_rate constant: what it keeps of earlier steps is divided by the rate of its step, and "
    "all values follow from the sum; its steps become smaller by themselves. Leave the schedule out, or use adagrad";

// What adam corrects the means of a table's row by, which begin at 0.
enum class Correction : std::uint8_t { row, clock };
inline constexpr Choice<Correction> kCorrections[] = {{Correction::row, "row"}, {Correction::clock, "clock"}};

// How an update is weakened that others have come before since its values were read (Zhang et al. 2015).
enum class StalenessDiscount : std::uint8_t { none, inverse };
inline constexpr Choice<StalenessDiscount> kStalenessDiscounts[] = {{StalenessDiscount::none, "none"},
                                                                    {StalenessDiscount::inverse, "inverse"}};

struct OptimizerConfig {
  OptimizerType type = OptimizerType::sgd;
  double learning_rate = 0.01;
  double momentum = 0.9;                    // momentum, nesterov
  double beta1 = 0.9;                       // adam, adamw
  double beta2 = 0.999;                     // adam, adamw
  Correction correction = Correction::row;  // adam, adamw, of tables
  double epsilon = 1e-8;                    // adagrad, rowwise_adagrad, rmsprop, adam, adamw
  double rho = 0.9;                         // rmsprop
  double weight_decay = 0;                  // decoupled in adamw
  double initial_accumulator = 0.1;         // adagrad, rowwise_adagrad, ftrl
  double beta = 0;                          // ftrl
  double l1 = 0;                            // ftrl
  double l2 = 0;                            // ftrl
  ScheduleConfig schedule;
  ClipConfig clip;
  StalenessDiscount staleness_discount = StalenessDiscount::none;
  void describe(Keys& keys);
  bool operator==(const OptimizerConfig&) const = default;
};

// What becomes of a run whose loss, values or slots are not finite.
enum class OnNan : std::uint8_t { stop, warn };
inline constexpr Choice<OnNan> kOnNan[] = {{OnNan::stop, "stop"}, {OnNan::warn, "warn"}};

// Ends training when an evaluation's metric has not become better for a while.
struct StopConfig {
  std::string metric = "loss";
  std::int64_t patience = 5;  // evaluations
  double min_delta = 0;
  void describe(Keys& keys);
  bool operator==(const StopConfig&) const = default;
};

struct TrainConfig {
  std::int64_t epochs = 1;
  std::int64_t batch = 128;    // samples in the global batch
  std::int64_t max_steps = 0;  // 0: no limit
  bool shuffle = true;
  std::int64_t log_every_steps = 100;
  std::int64_t eval_every_epochs = 1;  // 0: never
  std::int64_t eval_batch = 1000;
  std::vector<std::string> metrics;  // of evaluations; empty: what suits the loss
  OnNan on_nan = OnNan::stop;
  std::optional<StopConfig> stop;
  std::int64_t progressive_window = 10000;  // records, with data.train.follow
  void describe(Keys& keys);
  bool operator==(const TrainConfig&) const = default;
};

enum class SnapshotMode : std::uint8_t { cow, copy };
inline constexpr Choice<SnapshotMode> kSnapshotModes[] = {{SnapshotMode::cow, "cow"},
                                                          {SnapshotMode::copy, "copy"}};

enum class WhenBusy : std::uint8_t { skip, queue };
inline constexpr Choice<WhenBusy> kWhenBusy[] = {{WhenBusy::skip, "skip"}, {WhenBusy::queue, "queue"}};

enum class BestMode : std::uint8_t { automatic, max, min };
inline constexpr Choice<BestMode> kBestModes[] = {
    {BestMode::automatic, "auto"}, {BestMode::max, "max"}, {BestMode::min, "min"}};

// Which checkpoints stay because of a metric of the evaluations.
struct KeepBestConfig {
  std::string metric;
  std::int64_t count = 1;
  BestMode mode = BestMode::automatic;
  void describe(Keys& keys);
  bool operator==(const KeepBestConfig&) const = default;
};

// A new run's values from a checkpoint. `map` is a map of texts, or null; see
// checkpoint/restore/assignment_map.h.
struct WarmStartConfig {
  std::string from;
  ConfigNode map;
  void describe(Keys& keys);
  bool operator==(const WarmStartConfig&) const = default;
};

struct CheckpointConfig {
  std::string dir;                 // empty: see JobConfig::checkpoint_dir()
  std::int64_t every_steps = 0;    // 0: off
  double every_seconds = 0;        // 0: off
  std::int64_t every_records = 0;  // 0: off; with data.train.follow
  double idle_save_s = 30;         // 0: off; the same
  std::int64_t keep = 5;
  std::int64_t keep_every_steps = 0;        // 0: off
  double keep_every_hours = 0;              // 0: off
  std::optional<KeepBestConfig> keep_best;  // after parse_job also that of train.stop
  std::vector<std::string> variables;       // full names, or scopes with a '/' at the end; empty: all
  ConfigNode rename;                        // new name: variable; null: none
  bool partial_restore = false;
  bool at_end = true;
  double timeout_s = 60;
  std::int64_t max_failures = 3;
  SnapshotMode snapshot = SnapshotMode::cow;
  std::int64_t pool_mib = 0;  // 0: as much as the values and slots
  WhenBusy when_busy = WhenBusy::skip;
  bool incremental = false;
  double mean_time_between_failures_s = 0;  // 0: unknown
  void describe(Keys& keys);
  bool operator==(const CheckpointConfig&) const = default;
};

enum class Progress : std::uint8_t { automatic, on, off };
inline constexpr Choice<Progress> kProgressModes[] = {
    {Progress::automatic, "auto"}, {Progress::on, "on"}, {Progress::off, "off"}};

struct OutputConfig {
  bool metrics = true;
  bool tensorboard = false;
  std::int64_t histogram_every_steps = 0;  // with tensorboard; 0: never
  Progress progress = Progress::automatic;
  void describe(Keys& keys);
  bool operator==(const OutputConfig&) const = default;
};

struct JobConfig;
// Throws Error(config), one message for the first problem. `file` is what messages call the source. Opens no
// data files.
JobConfig parse_job(const ConfigNode& root, const std::string& file);

struct JobConfig {
  JobSection job;
  ClusterConfig cluster;
  DataConfig data;
  ModelConfig model;
  OptimizerConfig optimizer;
  TrainConfig train;
  CheckpointConfig checkpoint;
  std::optional<WarmStartConfig> warm_start;
  OutputConfig output;
  std::optional<ServeConfig> serve;  // of `varscope serve` alone

  std::string file;  // for messages
  ConfigNode root;   // with overrides, expanded paths and marks: for messages and config_hash

  // data.train is a directory that is followed: how, or null.
  const FollowKeys* follow() const { return follow_of(data.train); }

  std::string run_dir() const;         // job.run_dir, or runs/<name>
  std::string checkpoint_dir() const;  // checkpoint.dir, or <run_dir>/checkpoints

  // The metrics that evaluations have besides the loss: train.metrics, or what suits the loss.
  std::vector<std::string> evaluated_metrics() const;

  void describe(Keys& keys);

  // Equal settings; the file name and the way they were written do not count.
  friend bool operator==(const JobConfig& a, const JobConfig& b);

  // Travels as the tree it was parsed from: the receiver parses it again and cannot come to another result.
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& file& root;
    if constexpr (Archive::is_loading::value) *this = parse_job(ConfigNode(root), std::string(file));
  }
};

// All keys with type, default, unit, allowed values and meaning; for `varscope config --explain`. Those of
// data.test are those of data.train.
std::string explain_job_config(ExplainDetail detail = ExplainDetail::once);

// The effective settings as YAML, defaults included; load_config reads it back to an equal JobConfig.
std::string dump(const JobConfig& config);
// One of them: a scalar's text and LF, or YAML of a list or section. Of job.run_dir and checkpoint.dir, where
// they are. Throws Error(config) for a key that the config does not have, with the one that was probably
// meant.
std::string value_text(const JobConfig& config, const std::string& key);

}  // namespace varscope
