// The keys of a job's YAML: names, defaults, rules, meaning.
#include "common/config/job_config.h"

namespace varscope {

namespace {

// Bounds of integers: beyond any use, and so small that products of two of them and sizes fit in 64 bits.
constexpr double kMostRanks = 1 << 20;  // also logical workers
constexpr double kMostCount = 1 << 30;  // what is in memory or on disk at once: rows of a batch, checkpoints
constexpr double kMostOfRun = 1e12;     // steps, epochs, samples, words

}  // namespace

void JobSection::describe(Keys& keys) {
  keys.required_key("name", name, "name of the job; letters, digits, _ - and .");
  keys.key("seed", seed, "seed of every random draw: initial values, shuffling, dropout", {.min = 0});
  keys.key("run_dir", run_dir, "folder for metrics and checkpoints; empty means runs/<name>",
           {.is_path = true});
}

void ClusterConfig::describe(Keys& keys) {
  keys.key("servers", servers, "parameter server ranks; the other ranks are workers",
           {.unit = "ranks", .min = 1, .max = kMostRanks});
  keys.key(
      "logical_workers", logical_workers,
      "equal parts of the global batch whose gradients are summed in a fixed order; 0 means the number of "
      "workers. Set it to get the same bits on any number of workers (bsp)",
      {.min = 0, .max = kMostRanks});
  keys.choice(
      "consistency", consistency, kConsistencies,
      "when a worker may read values; bsp: when all have pushed the step before; ssp: when none is more "
      "than `staleness` steps behind; asp: at any time");
  keys.key("staleness", staleness, "ssp: how many steps the values may be behind those of bsp",
           {.unit = "steps", .min = 0, .max = 1 << 20});
  keys.choice(
      "dealing", dealing, kDealings,
      "ssp, asp: who computes which part of a step; static: each worker its own; dynamic: whoever asks "
      "next; auto: dynamic, unless a state must stay on its worker");
  keys.key(
      "delay", delay,
      "bsp: by how many steps the values that a step is computed with are older, so that pushes, and workers "
      "that are slow in turn, hold up the others less; other bits, but the same each time",
      {.unit = "steps", .min = 0, .max = 2});
  keys.key(
      "drain_every_steps", drain_every_steps,
      "with compression onebit or topk: after multiples of it nothing is kept back of gradients (settle_steps), "
      "and in ssp and asp all workers come together; with delay: no step begins before all "
      "workers have the values of such a step. With these checkpoints are cut at such steps only, and at those of "
      "checkpoint.every_steps and of evaluations",
      {.unit = "steps", .min = 1, .max = kMostOfRun});
  keys.key(
      "settle_steps", settle_steps,
      "with compression onebit or topk: the gradients of so many steps before checkpoints may be cut "
      "(drain_every_steps, checkpoint.every_steps, evaluations) go up in full, each with a part of what earlier ones have "
      "lost, as all of it at once would throw the values about; at most half of the steps in between",
      {.unit = "steps", .min = 1, .max = kMostOfRun});
  keys.key(
      "backup_workers", backup_workers,
      "bsp: in each step so many workers are not waited for, the slowest; what they have computed of it is "
      "dropped, and bits depend on timing. Fewer than workers; 0 means that all are waited for",
      {.unit = "workers", .min = 0, .max = kMostRanks});
  keys.key(
      "record", record,
      "ssp, asp, backup_workers: in run_dir/record, who was dealt what and in which order servers did what; `varscope "
      "train --replay` does the same again (docs/debugging.md)");
  keys.key("stall_timeout_s", stall_timeout_s,
           "a rank that does not answer for this long ends the job; 0 or off means never",
           {.unit = "seconds", .min = 1, .may_be_off = true});
  keys.key("step_timeout_s", step_timeout_s,
           "a step that takes longer than this ends the job, though all ranks answer; 0 or off means never",
           {.unit = "seconds", .min = 1, .may_be_off = true});
  keys.key(
      "early_requests", early_requests,
      "bsp: rows of sparse tables are asked for before the step that changes them is over; the bits are the same");
  keys.key("blas_threads", blas_threads, "threads of OpenBLAS in each rank",
           {.unit = "threads", .min = 1, .max = 1 << 12});
}

void SplitConfig::describe(Keys& keys) {
  keys.key("test", test, "about this share of the samples of data.train is evaluated, and not trained on",
           {.above = 0, .below = 1});
  keys.key("seed", seed, "which ones: a function of this and of their numbers in the data", {.min = 0});
}

void DataConfig::describe(Keys& keys) {
  keys.required_section("train", train, "samples to learn from");
  keys.optional_section("test", test,
                        "samples to evaluate on; without it and without split nothing is evaluated");
  keys.optional_section("split", split,
                        "instead of data.test: a part of the samples of data.train is the test set");
  keys.key(
      "cache", cache,
      "folder where tables (csv, libsvm) are kept in binary form once their text is read, so that later starts "
      "and other workers share them; auto: ~/.cache/varscope, for 64 MiB of text and more; none: nowhere",
      {.is_path = true, .not_empty = true});
}

void ModelConfig::describe(Keys& keys) {
  keys.required_key("layers", layers, "the layers, first to last; each has a type and that type's keys",
                    {.type_name = "a list of layers"});
  keys.required_key(
      "loss", loss_node,
      "the loss that training minimizes: softmax_cross_entropy, sigmoid_cross_entropy, mean_squared_error, "
      "absolute_error, huber or poisson, or a map with that type, reduction, label_smoothing, class_weights, "
      "positive_weight, delta. The cross entropies take logits: softmax or sigmoid is in the loss, not in the last "
      "layer",
      {.type_name = "a loss"});
  keys.choice("target", target, kTargetTypes,
              "what the last layer is compared with; input makes an autoencoder of the network");
  keys.choice("dtype", dtype, kModelDTypes, "element type of variables and activations");
  keys.key("initializer", initializer, "default initializer of the weights; without it glorot_uniform",
           {.type_name = "an initializer"});
  keys.key("regularizer", regularizer,
           "default regularizer of all variables: l1, l2, l1_l2 or none, as a map",
           {.type_name = "a regularizer"});
  keys.key("constraint", constraint,
           "default constraint of all variables: max_norm, non_neg, unit_norm or none",
           {.type_name = "a constraint"});
  keys.key("partitioner", partitioner,
           "default partitioner of all variables: fixed_size, variable_axis_size, min_max or none, as a map",
           {.type_name = "a partitioner"});
  keys.key(
      "compression", compression,
      "how gradients of large weights travel to servers, and values back: bf16, fp16, onebit, topk or none, or "
      "a map with that type. It is for slow networks; in one machine it costs time",
      {.type_name = "a compression"});
}

void LossConfig::describe(Keys& keys) {
  keys.required_selector("type", type, kLossTypes, "the loss that training minimizes");
  keys.key("label_smoothing", label_smoothing, "how much of the target is spread evenly over the classes",
           {.min = 0, .below = 1, .only_for = "softmax_cross_entropy, sigmoid_cross_entropy"});
  keys.key("class_weights", class_weights,
           "factor of the loss of each class; none means 1 for all. The mean over samples divides by their "
           "number, not by the sum of their weights",
           {.min = 0, .only_for = "softmax_cross_entropy"});
  keys.key(
      "sum_over_steps", sum_over_steps,
      "gradients are of the sum over a sample's labels and the mean over samples; false: of the mean over "
      "both. Losses are shown per label in any case");
  keys.choice(
      "reduction", reduction, kReductions,
      "what becomes of the elements that a sample (with labels, each label) is compared in: their mean, so "
      "that the loss does not grow with their number, or their sum",
      {.only_for = "sigmoid_cross_entropy, mean_squared_error, absolute_error, huber, poisson"});
  keys.key("delta", delta, "error from which the loss grows linearly, no longer with its square",
           {.above = 0, .only_for = "huber"});
  keys.key("positive_weight", positive_weight,
           "factor of the whole loss, label smoothing included, of samples with label 1",
           {.above = 0, .only_for = "sigmoid_cross_entropy"});
}

void OptimizerConfig::describe(Keys& keys) {
  keys.selector("type", type, kOptimizerTypes, "the update rule");
  keys.key("learning_rate", learning_rate, "size of a step", {.above = 0});
  keys.key("momentum", momentum, "decay of the velocity per step",
           {.min = 0, .below = 1, .only_for = "momentum, nesterov"});
  keys.key("beta1", beta1, "decay of the mean of gradients per step",
           {.min = 0, .below = 1, .only_for = "adam, adamw"});
  keys.key("beta2", beta2, "decay of the mean of squared gradients per step",
           {.min = 0, .below = 1, .only_for = "adam, adamw"});
  keys.choice(
      "correction", correction, kCorrections,
      "of a table's rows: t of the means' correction counts the row's own updates (row), or all steps (clock)",
      {.only_for = "adam, adamw"});
  keys.key("epsilon", epsilon, "added to the root of the mean square",
           {.above = 0, .only_for = "adagrad, rowwise_adagrad, rmsprop, adam, adamw"});
  keys.key("rho", rho, "decay of the mean of squared gradients per step",
           {.min = 0, .below = 1, .only_for = "rmsprop"});
  keys.key(
      "weight_decay", weight_decay,
      "pulls values to 0: adamw takes this times the learning rate off each step, the others add it times "
      "the value to the gradient",
      {.min = 0});
  keys.key("initial_accumulator", initial_accumulator, "initial sum of squared gradients",
           {.above = 0, .only_for = "adagrad, rowwise_adagrad, ftrl"});
  keys.key("beta", beta, "added to the root of the sum of squared gradients", {.min = 0, .only_for = "ftrl"});
  keys.key("l1", l1, "values whose gradients do not outweigh this are exactly 0",
           {.min = 0, .only_for = "ftrl"});
  keys.key(
      "l2", l2,
      "pulls values to 0. TensorFlow's FTRL kernels, and so Keras's Ftrl, count theirs twice: for the same "
      "results set twice their l2 here",
      {.min = 0, .only_for = "ftrl"});
  keys.section("schedule", schedule, "how learning_rate changes from step to step");
  keys.section("clip", clip,
               "limits on the mean gradient of a step, before weight decay and the update rule");
  keys.choice("staleness_discount", staleness_discount, kStalenessDiscounts,
              "ssp, asp: inverse divides the rate of a push by the steps' worth of pushes that came between "
              "its read and it");
}

void ScheduleConfig::describe(Keys& keys) {
  keys.selector("type", type, kScheduleTypes,
                "how the rate changes; steps count from the end of the warm-up");
  keys.required_key("every_steps", every_steps, "steps between two changes of the rate",
                    {.unit = "steps", .min = 1, .max = kMostOfRun, .only_for = "step"});
  keys.key("factor", factor, "what each change multiplies the rate by", {.above = 0, .only_for = "step"});
  keys.required_key("boundaries", boundaries,
                    "how many steps are done when the rate changes, in rising order",
                    {.unit = "steps", .min = 1, .max = kMostOfRun, .only_for = "piecewise"});
  keys.required_key("factors", factors,
                    "learning_rate times factors[i] is the rate after boundaries[i] steps",
                    {.min = 0, .only_for = "piecewise"});
  keys.required_key(
      "decay_steps", decay_steps,
      "how long the rate falls; exponential multiplies it by `rate` in so many steps, again and again",
      {.unit = "steps", .min = 1, .max = kMostOfRun, .only_for = "exponential, polynomial, cosine"});
  keys.key("rate", rate, "what decay_steps steps multiply the rate by",
           {.above = 0, .only_for = "exponential"});
  keys.key("staircase", staircase, "change the rate only every decay_steps steps",
           {.only_for = "exponential"});
  keys.key("end_learning_rate", end_learning_rate,
           "the rate from decay_steps steps on; at most learning_rate", {.min = 0, .only_for = "polynomial"});
  keys.key("power", power, "exponent of the part of decay_steps that is left",
           {.above = 0, .only_for = "polynomial"});
  keys.key("alpha", alpha, "the part of learning_rate that is left from decay_steps steps on",
           {.min = 0, .max = 1, .only_for = "cosine"});
  keys.key("warmup_steps", warmup_steps,
           "first steps, in which the rate rises evenly from 0 to learning_rate",
           {.unit = "steps", .min = 0, .max = kMostOfRun});
}

void ClipConfig::describe(Keys& keys) {
  keys.selector("type", type, kClipTypes,
                "what is limited: each value, the norm of each variable's gradient, or the norm over all "
                "variables");
  keys.key("limit", limit, "largest absolute value, or largest Euclidean norm",
           {.above = 0, .only_for = "value, norm, global_norm"});
}

void TrainConfig::describe(Keys& keys) {
  keys.key("epochs", epochs, "passes over the training data",
           {.unit = "epochs", .min = 1, .max = kMostOfRun});
  keys.key("batch", batch, "samples in the global batch, over all workers",
           {.unit = "samples", .min = 1, .max = kMostCount});
  keys.key("max_steps", max_steps, "stop after this many steps; 0 or off means no limit",
           {.unit = "steps", .min = 0, .max = kMostOfRun, .may_be_off = true});
  keys.key("shuffle", shuffle, "new order of the samples in each epoch");
  keys.key("log_every_steps", log_every_steps, "steps between two lines of metrics; 0 or off means never",
           {.unit = "steps", .min = 0, .max = kMostOfRun, .may_be_off = true});
  keys.key("eval_every_epochs", eval_every_epochs,
           "epochs between two evaluations on data.test; 0 or off means never",
           {.unit = "epochs", .min = 0, .max = kMostOfRun, .may_be_off = true});
  keys.key("eval_batch", eval_batch,
           "samples evaluated at once by a worker; for a text the sequences that are read side by side",
           {.unit = "samples", .min = 1, .max = kMostCount});
  keys.key(
      "metrics", metrics,
      "metrics of an evaluation besides the loss: accuracy, top_<k>, auc, log_loss, rmse, mae, r2, perplexity, "
      "precision, recall, confusion_matrix. Without any: what suits the loss");
  keys.choice(
      "on_nan", on_nan, kOnNan,
      "what to do at the first loss or value that is NaN or infinite: stop ends the run and names the last "
      "finite checkpoint, warn says so once and goes on");
  keys.optional_section(
      "stop", stop,
      "end training when evaluations do not become better any more. With it a checkpoint is "
      "made at each evaluation, and the best one is kept");
  keys.key(
      "progressive_window", progressive_window,
      "with data.train.follow: over how many of the newest records the loss before learning them is shown, "
      "in whole steps",
      {.unit = "records", .min = 1, .max = 1'000'000});
}

void StopConfig::describe(Keys& keys) {
  keys.key("metric", metric, "loss (on data.test), or one of train.metrics");
  keys.key("patience", patience, "evaluations in a row without a better value, after which training ends",
           {.unit = "evaluations", .min = 1, .max = kMostCount});
  keys.key("min_delta", min_delta,
           "how much better a value must be than the last better one to count as better", {.min = 0});
}

void CheckpointConfig::describe(Keys& keys) {
  keys.key("dir", dir, "folder of the checkpoints; empty means checkpoints in the run directory",
           {.is_path = true});
  keys.key("every_steps", every_steps, "steps between two checkpoints; 0 or off means never",
           {.unit = "steps", .min = 0, .max = kMostOfRun, .may_be_off = true});
  keys.key("every_seconds", every_seconds, "time between two checkpoints; 0 or off means never",
           {.unit = "seconds", .min = 0, .may_be_off = true});
  keys.key(
      "every_records", every_records,
      "with data.train.follow: records between two checkpoints, at the end of a step; 0 or off means never",
      {.unit = "records", .min = 0, .max = kMostOfRun, .may_be_off = true});
  keys.key(
      "idle_save_s", idle_save_s,
      "with data.train.follow: when nothing has come for so long, what was learnt since the last checkpoint "
      "is saved; 0 or off means never",
      {.unit = "seconds", .min = 0, .may_be_off = true});
  keys.key("keep", keep, "newest checkpoints that are kept",
           {.unit = "checkpoints", .min = 1, .max = kMostCount});
  keys.key("keep_every_steps", keep_every_steps,
           "checkpoints of steps that are multiples of this are kept for ever; 0 or off means none",
           {.unit = "steps", .min = 0, .max = kMostOfRun, .may_be_off = true});
  keys.key(
      "keep_every_hours", keep_every_hours,
      "the oldest checkpoint, and each that is this much later than the last so kept, are kept for ever; 0 "
      "or off means none",
      {.unit = "hours", .min = 0, .may_be_off = true});
  keys.optional_section("keep_best", keep_best,
                        "the best checkpoints by a metric of the evaluations are kept");
  keys.key("variables", variables,
           "what checkpoints hold: full names, or scopes (\"hidden1/\"). Without any: all variables. A run "
           "resumes from a part only with partial_restore");
  keys.key(
      "rename", rename,
      "other names in the checkpoint, as a map: the name there and the variable in the model. The same map "
      "restores",
      {.type_name = "a map of names"});
  keys.key(
      "partial_restore", partial_restore,
      "when resuming, variables that the checkpoint does not have get initial values instead of being an "
      "error");
  keys.key("at_end", at_end, "write a checkpoint when training ends");
  keys.key("timeout_s", timeout_s, "a checkpoint that takes longer is given up; 0 or off means never",
           {.unit = "seconds", .above = 0, .may_be_off = true});
  keys.key("max_failures", max_failures, "checkpoints in a row that may fail before the job ends",
           {.unit = "checkpoints", .min = 1, .max = kMostCount});
  keys.choice("snapshot", snapshot, kSnapshotModes,
              "how a server keeps its state while the disk writes it: cow saves what updates overwrite, copy "
              "stops training and copies all");
  keys.key("pool_mib", pool_mib,
           "memory of each server for what cow saves; when it is full updates wait for the disk. 0 means as "
           "much as the server's values and slots: updates never wait",
           {.unit = "MiB", .min = 0, .max = 1 << 24});
  keys.key("mean_time_between_failures_s", mean_time_between_failures_s,
           "how long this job runs between two failures on average; the header and the summary then say how "
           "often to make checkpoints. 0 or off means unknown: a day is assumed",
           {.unit = "seconds", .min = 0, .may_be_off = true});
  keys.choice(
      "when_busy", when_busy, kWhenBusy,
      "what becomes of a checkpoint that is due while an earlier one is being written: skip leaves it "
      "out, queue makes it at the first step after that");
  keys.key(
      "incremental", incremental,
      "of sparse tables write only the rows that have changed since the checkpoint before, and link its files "
      "of the others. Each checkpoint is whole all the same; the last one of a run has all rows in new files");
}

void KeepBestConfig::describe(Keys& keys) {
  keys.required_key("metric", metric,
                    "loss, or one of train.metrics: of the newest evaluation up to its step");
  keys.key("count", count, "how many of the best are kept",
           {.unit = "checkpoints", .min = 1, .max = kMostCount});
  keys.choice(
      "mode", mode, kBestModes,
      "which values are better; auto knows: larger for accuracy, top_<k>, auc, precision, recall, r2, smaller "
      "for the others");
}

void WarmStartConfig::describe(Keys& keys) {
  keys.required_key("from", from, "a checkpoint, or a directory of them: its newest whole one",
                    {.is_path = true, .not_empty = true});
  keys.key("map", map,
           "which values go where, as a map from checkpoint to model: 'a/': 'b/' for a scope, a/x: b/y for a "
           "variable, '/' for the root. Without it all variables by their own names",
           {.type_name = "a map of names"});
}

void OutputConfig::describe(Keys& keys) {
  keys.key("metrics", metrics, "write metrics as JSON lines into the run directory");
  keys.key("tensorboard", tensorboard,
           "write events for TensorBoard into the folder tensorboard of the run directory");
  keys.key("histogram_every_steps", histogram_every_steps,
           "steps between two histograms of values and gradients for TensorBoard; 0 or off means never",
           {.unit = "steps", .min = 0, .max = kMostOfRun, .may_be_off = true});
  keys.choice("progress", progress, kProgressModes,
              "progress on the terminal; auto is on where there is a terminal");
}

}  // namespace varscope
