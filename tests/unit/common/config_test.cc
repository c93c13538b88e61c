#include <gtest/gtest.h>

#include <ostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/serialize.h"
#include "common/base/text.h"
#include "common/config/binder.h"
#include "common/config/config_node.h"
#include "common/config/config_override.h"
#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"

namespace varscope {
namespace {

// Lines 1 to 12; cases append to it or replace one line.
const std::vector<std::string> kJobLines = {
    "job:",                            // 1
    "  name: fashion",                 // 2
    "data:",                           // 3
    "  train:",                        // 4
    "    type: digits",                // 5
    "model:",                          // 6
    "  loss: softmax_cross_entropy",   // 7
    "  layers:",                       // 8
    "    - {type: dense, units: 32}",  // 9
    "    - {type: dense, units: 10}",  // 10
    "train:",                          // 11
    "  epochs: 3",                     // 12
};

std::string job_text(std::size_t replaced_line = 0, const std::string& with = "") {
  std::string text;
  for (std::size_t i = 0; i < kJobLines.size(); ++i)
    text += (i + 1 == replaced_line ? with : kJobLines[i]) + "\n";
  return text;
}

JobConfig parse(const std::string& text) { return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml"); }

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::config) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "no error";
}

JobConfig with_override(const std::string& assignment) {
  ConfigNode root = read_yaml_text(job_text(), "job.yaml");
  apply_override(root, assignment);
  return parse_job(root, "job.yaml");
}

// --- messages
// ---------------------------------------------------------------------------------------------------------

struct LineCase {
  std::size_t line;  // of kJobLines, replaced; 13 appends
  std::string text;
  std::string message;
};

void PrintTo(const LineCase& c, std::ostream* out) { *out << testing::PrintToString(c.text); }

class JobErrors : public testing::TestWithParam<LineCase> {};

TEST_P(JobErrors, SayWhereWhatAndWhatIsAllowed) {
  const LineCase& c = GetParam();
  const std::string text = c.line > kJobLines.size() ? job_text() + c.text : job_text(c.line, c.text);
  EXPECT_EQ(message_of([&] { parse(text); }), c.message);
}

const std::string kTrainKeys =
    "batch, epochs, eval_batch, eval_every_epochs, log_every_steps, max_steps, metrics, on_nan, progressive_window, shuffle, stop";
const std::string kSections =
    "checkpoint, cluster, data, job, model, optimizer, output, serve, train, warm_start";

INSTANTIATE_TEST_SUITE_P(
    UnknownKeys, JobErrors,
    testing::Values(
        LineCase{
            12, "  epohcs: 3",
            "job.yaml:12:3: train.epohcs: unknown key; did you mean \"epochs\"? Allowed here: " + kTrainKeys},
        LineCase{12, "  learning_rate: 3",
                 "job.yaml:12:3: train.learning_rate: unknown key; did you mean \"optimizer.learning_rate\"? "
                 "Allowed here: " +
                     kTrainKeys},
        LineCase{12, "  drain_every_steps: 3",
                 "job.yaml:12:3: train.drain_every_steps: unknown key; did you mean "
                 "\"cluster.drain_every_steps\"? Allowed here: " +
                     kTrainKeys},
        LineCase{12, "  stop: {metrics: accuracy}",
                 "job.yaml:12:10: train.stop.metrics: unknown key; did you mean \"metric\"? Allowed here: "
                 "metric, min_delta, patience"},
        LineCase{12, "  zzz: 3", "job.yaml:12:3: train.zzz: unknown key. Allowed here: " + kTrainKeys},
        LineCase{12, "  \"\": 3", "job.yaml:12:3: train.\"\": unknown key. Allowed here: " + kTrainKeys},
        LineCase{11, "trian:",
                 "job.yaml:11:1: trian: unknown key; did you mean \"train\"? Allowed here: " + kSections},
        // The misspelling is named, not the required key that is missing because of it.
        LineCase{2, "  nmae: x",
                 "job.yaml:2:3: job.nmae: unknown key; did you mean \"name\"? Allowed here: name, run_dir, "
                 "seed"}));

INSTANTIATE_TEST_SUITE_P(
    WrongTypes, JobErrors,
    testing::Values(
        LineCase{12, "  epochs: 3x", "job.yaml:12:11: train.epochs: expected an integer, got \"3x\""},
        LineCase{12, "  epochs: 1.5", "job.yaml:12:11: train.epochs: expected an integer, got \"1.5\""},
        LineCase{12, "  epochs: 1e3",
                 "job.yaml:12:11: train.epochs: expected an integer, got \"1e3\"; did you mean 1000?"},
        LineCase{12, "  epochs: '3'",
                 "job.yaml:12:11: train.epochs: expected an integer, got \"3\" in quotes; did you mean 3?"},
        LineCase{
            12, "  epochs: 9223372036854775808",
            "job.yaml:12:11: train.epochs: 9223372036854775808 is out of range; allowed: 1 to 1000000000000 "
            "(epochs)"},
        LineCase{12, "  epochs:",
                 "job.yaml:12:3: train.epochs: expected an integer, got nothing (the value is empty)"},
        LineCase{12, "  epochs: ~",
                 "job.yaml:12:11: train.epochs: expected an integer, got nothing (the value is empty)"},
        LineCase{12, "  epochs: [3]",
                 "job.yaml:12:11: train.epochs: expected an integer, got a list; did you mean 3?"},
        LineCase{12, "  epochs: {a: 3}", "job.yaml:12:11: train.epochs: expected an integer, got a section"},
        LineCase{12, "  shuffle: yes",
                 "job.yaml:12:12: train.shuffle: expected true or false, got \"yes\"; did you mean true?"},
        LineCase{
            12, "  shuffle: 'true'",
            "job.yaml:12:12: train.shuffle: expected true or false, got \"true\" in quotes; did you mean "
            "true?"},
        LineCase{13, "cluster: {stall_timeout_s: .nan}\n",
                 "job.yaml:13:28: cluster.stall_timeout_s: expected a number or off, got \".nan\""},
        LineCase{
            13, "cluster: {stall_timeout_s: inf}\n",
            "job.yaml:13:28: cluster.stall_timeout_s: expected a number or off, got \"inf\"; did you mean "
            "off?"},
        LineCase{13, "cluster: {stall_timeout_s: 1e999}\n",
                 "job.yaml:13:28: cluster.stall_timeout_s: expected a number or off, got \"1e999\""},
        LineCase{13, "cluster: 4\n", "job.yaml:13:10: cluster: expected a section (key: value), got \"4\""},
        LineCase{2, "  name: [a]", "job.yaml:2:9: job.name: expected a text, got a list"},
        LineCase{
            12, "  epochs: " + std::string(70, 'x'),
            "job.yaml:12:11: train.epochs: expected an integer, got \"" + std::string(60, 'x') + "...\""}));

INSTANTIATE_TEST_SUITE_P(
    WrongValues, JobErrors,
    testing::Values(
        LineCase{12, "  epochs: 0",
                 "job.yaml:12:11: train.epochs: 0 is out of range; allowed: 1 to 1000000000000 (epochs)"},
        LineCase{5, "    {type: digits, noise: 1.5}",
                 "job.yaml:5:27: data.train.noise: 1.5 is out of range; allowed: 0 to 1"},
        LineCase{5, "    {type: digits, size: 65}",
                 "job.yaml:5:26: data.train.size: 65 is out of range; allowed: 8 to 64 (pixels)"},
        LineCase{13, "optimizer: {learning_rate: 0}\n",
                 "job.yaml:13:28: optimizer.learning_rate: 0 is out of range; allowed: more than 0"},
        LineCase{13, "optimizer: {type: adam, beta1: 1}\n",
                 "job.yaml:13:32: optimizer.beta1: 1 is out of range; allowed: 0 or more, less than 1"},
        LineCase{13, "optimizer: {schedule: {type: cosine}}\n",
                 "job.yaml:13:13: optimizer.schedule.decay_steps: missing; type cosine needs this key (an "
                 "integer: how long the rate falls; exponential multiplies it by `rate` in so many steps, "
                 "again and again)"},
        LineCase{
            13, "optimizer: {schedule: {type: step, every_steps: 0}}\n",
            "job.yaml:13:49: optimizer.schedule.every_steps: 0 is out of range; allowed: 1 to 1000000000000 "
            "(steps)"},
        LineCase{13, "optimizer: {schedule: {decay_steps: 5}}\n",
                 "job.yaml:13:24: optimizer.schedule.decay_steps: not used by type constant (only by "
                 "exponential, polynomial, cosine); remove it or change optimizer.schedule.type"},
        LineCase{13, "optimizer: {learning_rate: 1e-5, schedule: {type: polynomial, decay_steps: 9}}\n",
                 "job.yaml:13:44: optimizer.schedule.end_learning_rate: 0.0001, the default, is above "
                 "learning_rate 1e-05: the rate would rise; set it to 1e-05 or less"},
        LineCase{
            13,
            "optimizer: {learning_rate: 0.5, schedule: {type: polynomial, decay_steps: 9, end_learning_rate: "
            "0.6}}\n",
            "job.yaml:13:97: optimizer.schedule.end_learning_rate: 0.6 is above learning_rate 0.5: the rate "
            "would rise; set it to 0.5 or less"},
        LineCase{13, "optimizer: {schedule: {type: piecewise, boundaries: [5, 5], factors: [1, 1]}}\n",
                 "job.yaml:13:53: optimizer.schedule.boundaries: each boundary must be greater than the one "
                 "before it"},
        LineCase{13, "optimizer: {schedule: {type: piecewise, boundaries: [5, 6], factors: [1]}}\n",
                 "job.yaml:13:70: optimizer.schedule.factors: has 1 numbers for the 2 boundaries; give one "
                 "for each"},
        LineCase{13, "optimizer: {clip: {type: norm, limit: 0}}\n",
                 "job.yaml:13:39: optimizer.clip.limit: 0 is out of range; allowed: more than 0"},
        LineCase{13, "optimizer: {clip: {limit: 1}}\n",
                 "job.yaml:13:20: optimizer.clip.limit: not used by type none (only by value, norm, "
                 "global_norm); remove it or change optimizer.clip.type"},
        LineCase{13, "optimizer: {type: adma}\n",
                 "job.yaml:13:19: optimizer.type: expected one of sgd, momentum, nesterov, adagrad, rmsprop, "
                 "adam, adamw, ftrl, rowwise_adagrad, "
                 "got \"adma\"; did you mean \"adam\"?"},
        LineCase{13, "optimizer: {type: ftrl, l1: -1}\n",
                 "job.yaml:13:29: optimizer.l1: -1 is out of range; allowed: 0 or more"},
        LineCase{
            13, "optimizer: {type: ftrl, epsilon: 1}\n",
            "job.yaml:13:25: optimizer.epsilon: not used by type ftrl (only by adagrad, rowwise_adagrad, "
            "rmsprop, adam, adamw); remove it or change optimizer.type"},
        LineCase{
            13, "optimizer: {type: rowwise_adagrad, l2: 1}\n",
            "job.yaml:13:36: optimizer.l2: not used by type rowwise_adagrad (only by ftrl); remove it or "
            "change optimizer.type; did you mean \"weight_decay\"?"},
        LineCase{13, "optimizer: {type: ftrl, initial_accumulator: 0}\n",
                 "job.yaml:13:46: optimizer.initial_accumulator: 0 is out of range; allowed: more than 0"},
        LineCase{
            13, "optimizer: {type: ftrl, schedule: {warmup_steps: 5}}\n",
            "job.yaml:13:35: optimizer.schedule: ftrl keeps learning_rate constant: what it keeps of earlier "
            "steps is divided by the rate of its step, and all values follow from the sum; its steps become "
            "smaller by themselves. Leave the schedule out, or use adagrad"},
        LineCase{
            13, "optimizer: {type: ftrl, schedule: {type: cosine, decay_steps: 9}}\n",
            "job.yaml:13:35: optimizer.schedule: ftrl keeps learning_rate constant: what it keeps of earlier "
            "steps is divided by the rate of its step, and all values follow from the sum; its steps become "
            "smaller by themselves. Leave the schedule out, or use adagrad"},
        LineCase{13, "output: {progress: [on]}\n",
                 "job.yaml:13:20: output.progress: expected one of auto, on, off, got a list"},
        LineCase{2, "  name: ../x",
                 "job.yaml:2:9: job.name: \"../x\" is not a name: letters, digits, _, - and . only, and not "
                 "beginning with "
                 "- or ."},
        LineCase{5, "    {type: fashion_mnist, folder: ''}",
                 "job.yaml:5:35: data.train.folder: must not be empty"}));

// Line 13 is the first after the job; the digits are evaluated where a case says so.
INSTANTIATE_TEST_SUITE_P(
    KeepBestAndNames, JobErrors,
    testing::Values(
        LineCase{
            13, "checkpoint: {keep_best: {metric: acuracy}}\n",
            "job.yaml:13:34: checkpoint.keep_best.metric: unknown metric \"acuracy\"; did you mean "
            "\"accuracy\"?; known are loss, accuracy, top_5, auc, log_loss, rmse, mae, r2, perplexity, precision, "
            "recall, confusion_matrix"},
        LineCase{13, "checkpoint: {keep_best: {metric: auc}}\n",
                 "job.yaml:13:34: checkpoint.keep_best.metric: evaluations have no \"auc\", only loss, "
                 "accuracy; add it to train.metrics"},
        LineCase{
            13, "checkpoint: {keep_best: {metric: confusion_matrix}}\n",
            "job.yaml:13:34: checkpoint.keep_best.metric: confusion_matrix is no number; there is no best "
            "one"},
        LineCase{
            13, "checkpoint: {keep_best: {metric: loss}}\n",
            "job.yaml:13:34: checkpoint.keep_best.metric: nothing is evaluated without data.test; add it, "
            "or remove keep_best"},
        LineCase{5, "    type: digits\n  test: {type: digits}\ncheckpoint: {keep_best: {metric: loss}}",
                 "no error"},
        LineCase{
            12, "  eval_every_epochs: 0\ncheckpoint: {keep_best: {metric: loss}}",
            "job.yaml:13:34: checkpoint.keep_best.metric: nothing is evaluated without data.test; add it, "
            "or remove keep_best"},
        LineCase{
            13, "checkpoint: {keep_best: {count: 2}}\n",
            "job.yaml:13:14: checkpoint.keep_best.metric: missing; section checkpoint.keep_best needs this "
            "key (a text: loss, or one of train.metrics: of the newest evaluation up to its step)"},
        LineCase{
            13, "  stop: {metric: acuracy}\n",
            "job.yaml:13:18: train.stop.metric: unknown metric \"acuracy\"; did you mean \"accuracy\"?; known "
            "are loss, accuracy, top_5, auc, log_loss, rmse, mae, r2, perplexity, precision, recall, "
            "confusion_matrix"},
        LineCase{
            13, "  stop: {patience: 3}\n",
            "job.yaml:13:9: train.stop.metric: nothing is evaluated without data.test; add it, or remove stop"},
        LineCase{
            13, "  stop: {patience: 0}\n",
            "job.yaml:13:20: train.stop.patience: 0 is out of range; allowed: 1 to 1073741824 (evaluations)"},
        LineCase{5, "    type: digits\n  test: {type: digits}\ncheckpoint: {keep_best: {metric: accuracy}}",
                 "no error"},
        LineCase{13, "checkpoint: {keep_best: {metric: loss, mode: mx}}\n",
                 "job.yaml:13:46: checkpoint.keep_best.mode: expected one of auto, max, min, got \"mx\"; did "
                 "you mean "
                 "\"max\"?"},
        LineCase{
            13, "checkpoint: {keep_every_hours: -1}\n",
            "job.yaml:13:32: checkpoint.keep_every_hours: -1 is out of range; allowed: 0 or more (hours), or "
            "off"},
        LineCase{13, "checkpoint: {rename: [a]}\n",
                 "job.yaml:13:22: checkpoint.rename: expected a map of names (name: name), got a list"},
        LineCase{13, "checkpoint: {rename: {a/: b}}\n",
                 "job.yaml:13:23: checkpoint.rename: the name of a variable cannot end with '/'; only a "
                 "scope's does"},
        LineCase{13, "checkpoint: {rename: {__metadata__: b}}\n",
                 "job.yaml:13:23: checkpoint.rename: \"__metadata__\" is no name for a variable: safetensors "
                 "files use it"},
        LineCase{13, "checkpoint: {rename: {\"a\\tb\": b}}\n",
                 "job.yaml:13:23: checkpoint.rename: a name cannot have control characters"},
        LineCase{13, "checkpoint: {rename: {a: [b]}}\n",
                 "job.yaml:13:26: checkpoint.rename.a: expected a name, got a list"},
        LineCase{13, "warm_start: {map: {a/: b/}}\n",
                 "job.yaml:13:1: warm_start.from: missing; section warm_start needs this key (a text: a "
                 "checkpoint, or a directory of them: its newest whole one)"},
        LineCase{13, "warm_start: {from: ''}\n", "job.yaml:13:20: warm_start.from: must not be empty"},
        LineCase{13, "warm_start: {from: c, map: {'': b}}\n",
                 "job.yaml:13:29: warm_start.map: a name must not be empty"},
        LineCase{13, "warm_start: {from: c, map: {a/: }}\n",
                 "job.yaml:13:33: warm_start.map.a/: expected a name, got nothing"}));

INSTANTIATE_TEST_SUITE_P(
    MissingAndMisplaced, JobErrors,
    testing::Values(
        LineCase{2, "  seed: 3",
                 "job.yaml:1:1: job.name: missing; section job needs this key (a text: name of the job; "
                 "letters, digits, "
                 "_ - and .)"},
        LineCase{
            7, "",
            "job.yaml:6:1: model.loss: missing; section model needs this key (a loss: the loss that training "
            "minimizes: softmax_cross_entropy, sigmoid_cross_entropy, mean_squared_error, absolute_error, "
            "huber or poisson, or a map with that type, reduction, label_smoothing, class_weights, "
            "positive_weight, delta. The cross entropies take logits: softmax or sigmoid is in the loss, not in "
            "the last layer)"},
        LineCase{5, "    {type: idx, images: a}",
                 "job.yaml:4:3: data.train.labels: missing; type idx needs this key (a text: IDX file with "
                 "the labels)"},
        LineCase{
            5, "    {type: idx, images: a, labels: b, noise: 0.5}",
            "job.yaml:5:39: data.train.noise: not used by type idx (only by digits, synthetic); remove it or change "
            "data.train.type"},
        LineCase{13, "optimizer:\n  momentum: 0.9\n",
                 "job.yaml:14:3: optimizer.momentum: not used by type sgd (only by momentum, nesterov); "
                 "remove it or "
                 "change optimizer.type"}));

INSTANTIATE_TEST_SUITE_P(
    Layers, JobErrors,
    testing::Values(
        LineCase{8, "  layers: []\n  initializer:",
                 "job.yaml:8:11: model.layers: a model needs at least one layer"},
        LineCase{8, "  layers: 3\n  initializer:",
                 "job.yaml:8:11: model.layers: expected a list of layers (- type: dense), got \"3\""},
        LineCase{9, "    - dense",
                 "job.yaml:9:7: model.layers.0: expected a layer (type: dense, units: 10), got \"dense\""},
        LineCase{9, "    - {units: 3}", "job.yaml:9:7: model.layers.0.type: missing; every layer has a type"},
        LineCase{9, "    - {type: [a]}", "job.yaml:9:14: model.layers.0.type: expected a text, got a list"}));

INSTANTIATE_TEST_SUITE_P(
    Syntax, JobErrors,
    testing::Values(
        LineCase{12, "  epochs: 3\n  epochs: 4",
                 "job.yaml:13:3: the key \"epochs\" is there twice; first at line 12"},
        LineCase{12, "  ? [a]\n  : 4", "job.yaml:12:5: a key must be a plain text"},
        LineCase{12, "  epochs: !mine 3", "job.yaml:12:11: the tag \"!mine\" means nothing here; remove it"},
        LineCase{12, "  epochs: *nobody",
                 "job.yaml:12:11: not valid YAML: the referenced anchor is not defined"},
        LineCase{12, "  <<: 3", "job.yaml:12:3: << takes a section or a list of sections"},
        LineCase{12, "  epochs: &a [*a]", "job.yaml:12:15: an alias stands inside the value it names"},
        LineCase{12, "  epochs: \xff", "job.yaml:12:11: not UTF-8 text (byte 0xFF)"},
        LineCase{12, std::string("  epochs: \0", 11),
                 "job.yaml:12:11: not a text file (control character 0x00)"},
        LineCase{13, "---\na: 1\n",
                 "job.yaml:13:1: content after the end of the first document; one is allowed"}));

// --- modes of consistency

INSTANTIATE_TEST_SUITE_P(
    Consistency, JobErrors,
    testing::Values(
        LineCase{
            13, "cluster: {consistency: ssp}",
            "job.yaml:13:24: cluster.staleness: missing; ssp needs it: how many steps the values may be behind "
            "those of bsp, for example staleness: 2"},
        LineCase{
            13, "cluster: {consistency: ssp, staleness: 0}",
            "job.yaml:13:40: cluster.staleness: 0 is too little for ssp: that is bsp; set it to 1 or more, or "
            "cluster.consistency to bsp"},
        LineCase{13, "cluster: {consistency: ssp, staleness: -1}",
                 "job.yaml:13:40: cluster.staleness: -1 is out of range; allowed: 0 to 1048576 (steps)"},
        LineCase{
            13, "cluster: {staleness: 2}",
            "job.yaml:13:22: cluster.staleness: does not go with cluster.consistency: bsp, where no value is "
            "behind; remove it, or set that to ssp"},
        LineCase{
            13, "cluster: {delay: 1, staleness: 2}",
            "job.yaml:13:32: cluster.staleness: does not go with cluster.delay, which says how many steps values "
            "are behind; remove it"},
        LineCase{
            13, "cluster: {consistency: async}",
            "job.yaml:13:24: cluster.consistency: expected one of bsp, ssp, asp, got \"async\"; did you mean "
            "\"asp\"?"},
        LineCase{
            13, "cluster: {consistency: asp, staleness: 2}",
            "job.yaml:13:40: cluster.staleness: does not go with cluster.consistency: asp, which has no bound; "
            "remove it, or set that to ssp"},
        LineCase{
            13, "cluster: {consistency: bsp, dealing: static}",
            "job.yaml:13:38: cluster.dealing: static does not go with cluster.consistency: bsp, where each worker "
            "always has its own part of a step; remove it, or set that to ssp or asp"},
        LineCase{
            13, "cluster: {dealing: dynamic}",
            "job.yaml:13:20: cluster.dealing: dynamic does not go with cluster.consistency: bsp, where each "
            "worker always has its own part of a step; remove it, or set that to ssp or asp"},
        LineCase{
            13, "cluster: {consistency: asp, backup_workers: 1}",
            "job.yaml:13:45: cluster.backup_workers: does not go with cluster.consistency: asp, where no worker "
            "waits for a whole step; remove it, or set that to bsp"},
        LineCase{
            13, "cluster: {consistency: ssp, staleness: 1, backup_workers: 1}",
            "job.yaml:13:59: cluster.backup_workers: does not go with cluster.consistency: ssp, where no worker "
            "waits for a whole step; remove it, or set that to bsp"},
        LineCase{
            13, "cluster: {delay: 1, backup_workers: 1}",
            "job.yaml:13:37: cluster.backup_workers: does not go with cluster.delay: a late worker's step is "
            "dropped, with a delay it is waited for; remove one of them"},
        LineCase{
            13, "cluster: {delay: 1, record: true}",
            "job.yaml:13:29: cluster.record: does not go with cluster.consistency: bsp without backup workers, where "
            "the same start gives the same bits: start it again to see it again; remove the key"},
        LineCase{
            13, "cluster: {backup_workers: -1}",
            "job.yaml:13:27: cluster.backup_workers: -1 is out of range; allowed: 0 to 1048576 (workers)"},
        LineCase{
            13, "cluster: {consistency: bsp, record: true}",
            "job.yaml:13:37: cluster.record: does not go with cluster.consistency: bsp without backup workers, where "
            "the same start gives the same bits: start it again to see it again; remove the key"},
        LineCase{
            13, "cluster: {consistency: asp, dealing: dynamc}",
            "job.yaml:13:38: cluster.dealing: expected one of auto, static, dynamic, got \"dynamc\"; did "
            "you mean \"dynamic\"?"},
        LineCase{13, "cluster: {delay: 3}",
                 "job.yaml:13:18: cluster.delay: 3 is out of range; allowed: 0 to 2 (steps)"},
        LineCase{
            13, "cluster: {consistency: ssp, staleness: 2, delay: 1}",
            "job.yaml:13:50: cluster.delay: does not go with cluster.consistency: ssp, where cluster.staleness says "
            "how far values may be behind; remove the key, or set that to bsp"},
        LineCase{
            13, "cluster: {delay: 2, consistency: asp}",
            "job.yaml:13:18: cluster.delay: does not go with cluster.consistency: asp, where values are as new as "
            "they come; remove the key, or set that to bsp"},
        LineCase{
            13, "optimizer: {staleness_discount: inverse}",
            "job.yaml:13:33: optimizer.staleness_discount: inverse does not go with cluster.consistency: bsp, "
            "where no push is late; remove it, or set that to ssp or asp"},
        LineCase{
            13, "cluster: {consistency: spp}",
            "job.yaml:13:24: cluster.consistency: expected one of bsp, ssp, asp, got \"spp\"; did you mean "
            "\"ssp\"?"}));

TEST(ParseJob, NamesTheFileWhenItIsEmptyOrNotASection) {
  EXPECT_EQ(message_of([] { parse(""); }), "job.yaml: the file is empty; a job needs job, data and model");
  EXPECT_EQ(message_of([] { parse("# only this\n"); }),
            "job.yaml: the file is empty; a job needs job, data and model");
  EXPECT_EQ(message_of([] { parse("- a\n"); }), "job.yaml:1:1: expected a section (key: value), got a list");
  EXPECT_EQ(message_of([] { parse("job: {name: a}\n"); }),
            "job.yaml:1:1: data: missing; the file needs this key (a section: the samples)");
}

TEST(ReadYaml, NamesAMissingFileAFolderAndATabInTheIndentation) {
  EXPECT_EQ(message_of([] { read_yaml_file("/nowhere/job.yaml"); }),
            "/nowhere/job.yaml: cannot be opened: No such file or directory");
  EXPECT_EQ(message_of([] { read_yaml_file("/"); }), "/: cannot be read: Is a directory");
  EXPECT_EQ(message_of([] { read_yaml_text(std::string((1 << 20) + 1, ' '), "f"); }),
            "f: larger than 1 MiB; this is not a job description");
  const std::string tab = message_of([] { read_yaml_text("a:\n\tb: 1\n", "t.yaml"); });
  EXPECT_NE(tab.find("t.yaml:2:"), std::string::npos) << tab;
  EXPECT_NE(tab.find("a tab stands in the indentation; YAML wants spaces"), std::string::npos) << tab;
}

// --- reading
// ----------------------------------------------------------------------------------------------------------

TEST(ReadYaml, KeepsOrderMarksAndQuotes) {
  const ConfigNode root = read_yaml_text("b: '3'\na:\n  - x\n  - null\n", "f");
  ASSERT_EQ(root.entries.size(), 2u);
  EXPECT_EQ(root.entries[0].key, "b");
  EXPECT_TRUE(root.find("b")->quoted);
  EXPECT_EQ(root.find("b")->mark.column, 4);
  const ConfigNode* second = root.find_path("a.1");
  ASSERT_NE(second, nullptr);
  EXPECT_TRUE(second->is_null());
  EXPECT_EQ(second->mark.line, 4);
  EXPECT_EQ(root.find_path("a.2"), nullptr);
  EXPECT_EQ(root.find_path("b.c"), nullptr);
}

TEST(ReadYaml, ExpandsAliasesAndMergeKeys) {
  const ConfigNode root = read_yaml_text(
      "base: &b {x: 1, y: 2}\nother: &o {y: 5, z: 6}\none: {<<: *b, y: 3}\ntwo: {<<: [*b, *o], w: *b}\n",
      "f");
  EXPECT_EQ(*root.find("one"), read_yaml_text("{x: 1, y: 3}", "f"));
  EXPECT_EQ(*root.find("two"), read_yaml_text("{x: 1, y: 2, z: 6, w: {x: 1, y: 2}}", "f"));
}

TEST(ReadYaml, BoundsDepthAndAliasBombs) {
  const auto nested = [](int n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_NO_THROW(read_yaml_text(nested(ConfigNode::kMaxDepth), "f"));
  EXPECT_EQ(message_of([&] { read_yaml_text(nested(ConfigNode::kMaxDepth + 1), "f"); }),
            "f:1:65: nested deeper than 64 levels");
  for (const char* unit :
       {"[", "{", "- ", "? ", "a: ", "{a: ", "[[", "&a ", "!x ", "'", "\"", "|\n", "*a ", "<<: "}) {
    std::string text;
    while (text.size() < 20000) text += unit;
    EXPECT_NE(message_of([&] { read_yaml_text(text, "f"); }), "") << unit;
  }

  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += fmt::format("a{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}]\n", i,
                        i - 1);
  }
  const std::string too_many = message_of([&] { read_yaml_text(bomb, "f"); });
  EXPECT_NE(too_many.find("more than 100000 values or 16 MiB once aliases are expanded"), std::string::npos)
      << too_many;

  std::string fat = fmt::format("a: &a {}\nb: [*a", std::string(1 << 19, 'x'));
  for (int i = 0; i < 40; ++i) fat += ", *a";
  EXPECT_NE(message_of([&] { read_yaml_text(fat + "]\n", "f"); }).find("16 MiB"), std::string::npos);

  std::string deep = "a0: &a0 [x]\n";
  for (int i = 1; i < 80; ++i) deep += fmt::format("a{0}: &a{0} [*a{1}]\n", i, i - 1);
  EXPECT_NE(message_of([&] { read_yaml_text(deep, "f"); }).find("nested deeper than 64"), std::string::npos);
}

TEST(ReadYaml, NeverCrashesOnDamagedFiles) {
  std::string text =
      job_text() + "extra: &e {a: [1, 'b', \"c\\n\"], d: |\n    x\n  }\nmore: {<<: *e, \"q\": !!str 3}\n";
  for (std::size_t n = 0; n <= text.size(); ++n) {
    message_of([&] { parse(text.substr(0, n)); });
  }
  std::mt19937 random(1);
  const std::string alphabet = "{}[]:,-?&*!|>'\"%@`#<~ \n\t.0a\\\xc3\xa9";
  for (int round = 0; round < 5000; ++round) {
    std::string damaged = text;
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      const std::size_t at = random() % damaged.size();
      switch (random() % 4) {
        case 0:
          damaged[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          damaged[at] = alphabet[random() % alphabet.size()];
          break;
        case 2:
          damaged.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        default:
          damaged.erase(at, 1 + random() % 3);
          break;
      }
      if (damaged.empty()) damaged.assign(1, ' ');
    }
    message_of([&] { parse(damaged); });
  }
}

// --- overrides
// --------------------------------------------------------------------------------------------------------

TEST(Override, ReplacesAddsAndStepsIntoLists) {
  EXPECT_EQ(with_override("train.epochs=7").train.epochs, 7);
  EXPECT_EQ(with_override("checkpoint.every_steps=50").checkpoint.every_steps, 50);
  EXPECT_EQ(with_override("job.run_dir=").job.run_dir, "");
  EXPECT_EQ(with_override("job.run_dir=a=b").job.run_dir, "a=b");
  EXPECT_EQ(with_override("optimizer={type: adam, beta1: 0.5}").optimizer.beta1, 0.5);
  EXPECT_EQ(with_override("model.layers.0.units=64").model.layers.find_path("0.units")->scalar, "64");
  EXPECT_EQ(with_override("data.test.type=digits").data.test->get<DigitsSource>()->samples, 2000);
}

TEST(Override, IsNamedInLaterMessagesInsteadOfThePlaceInTheFile) {
  EXPECT_EQ(message_of([] { with_override("train.epochs=x"); }),
            "--set train.epochs=x: train.epochs: expected an integer, got \"x\"");
  EXPECT_EQ(message_of([] { with_override("train.epohcs=3"); }),
            "--set train.epohcs=3: train.epohcs: unknown key; did you mean \"epochs\"? Allowed here: " +
                kTrainKeys);
  EXPECT_EQ(message_of([] { with_override("train.epochs=''"); }),
            "--set train.epochs='': train.epochs: expected an integer, got \"\"");
  const std::string cut = message_of([] { with_override("train.epochs=" + std::string(500, 'y')); });
  EXPECT_LT(cut.size(), 300u);
}

TEST(Override, ShowsTheRightFormWhenItIsMalformed) {
  const std::string form = "; expected --set KEY=VALUE, for example --set train.epochs=3";
  const auto check = [&](const std::string& assignment, const std::string& why) {
    EXPECT_EQ(message_of([&] { with_override(assignment); }),
              fmt::format("--set {}: {}{}", assignment, why, form));
  };
  check("train.epochs", "there is no =");
  check("=3", "\"\" is not a key");
  check("train..epochs=3", "\"train..epochs\" is not a key");
  check(".=3", "\".\" is not a key");
  check("train epochs=3", "\"train epochs\" is not a key");
  check("train.epochs=[1", "the value:1:1: not valid YAML: end of sequence flow not found");
  check("model.layers.2.units=3",
        "model.layers is a list of 2, \"2\" is not one of its positions (they begin at 0)");
  check("model.layers.x=3",
        "model.layers is a list of 2, \"x\" is not one of its positions (they begin at 0)");
  check("train.epochs.x=3", "train.epochs is \"3\" and has no keys");
}

TEST(Override, MakesASectionOfABareName) {
  const auto ratio = [](const std::string& first) {
    ConfigNode root = read_yaml_text("model: {compression: topk, loss: mean_squared_error}", "job.yaml");
    apply_override(root, first);
    return root.find_path("model")->to_yaml();
  };
  EXPECT_EQ(
      ratio("model.compression.ratio=0.1"),
      read_yaml_text("{compression: {type: topk, ratio: 0.1}, loss: mean_squared_error}", "").to_yaml());
  EXPECT_EQ(ratio("model.compression.type=bf16"),
            read_yaml_text("{compression: {type: bf16}, loss: mean_squared_error}", "").to_yaml());
  EXPECT_EQ(ratio("model.loss.type=huber"),
            read_yaml_text("{compression: topk, loss: {type: huber}}", "").to_yaml());
  ConfigNode number = read_yaml_text("model: {layers: [{type: dense, initializer: 0.1}]}", "job.yaml");
  EXPECT_EQ(
      message_of([&] { apply_override(number, "model.layers.0.initializer.value=2"); }),
      "--set model.layers.0.initializer.value=2: model.layers.0.initializer is \"0.1\" and has no keys; "
      "expected --set KEY=VALUE, for example --set train.epochs=3");
}

// --- suggestions
// ------------------------------------------------------------------------------------------------------

TEST(Suggest, CountsSwapsAsOneEdit) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("epohcs", "epochs"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(Suggest, IgnoresCaseAndDashesAndGivesUpWhenNothingIsNear) {
  const std::vector<std::string> words = {"epochs", "batch", "max_steps", "on"};
  EXPECT_EQ(nearest("Batch", words), "batch");
  EXPECT_EQ(nearest("max-steps", words), "max_steps");
  EXPECT_EQ(nearest("epoch", words), "epochs");
  EXPECT_EQ(nearest("no", words), "");
  EXPECT_EQ(nearest("momentum", words), "");
  EXPECT_EQ(nearest("", words), "");
  EXPECT_EQ(nearest(std::string(100000, 'x'), words), "");
}

// --- explain and dump
// -------------------------------------------------------------------------------------------------

TEST(Explain, ListsEveryKeyWithTypeDefaultAndUnit) {
  const std::string text = fmt::format("\n{}", explain_job_config(ExplainDetail::every_key));
  JobConfig config;
  config.data.test.emplace();
  for (const std::string& key : list_keys([&](Keys& keys) { config.describe(keys); })) {
    const bool is_of_type =
        key.starts_with("data.t") && std::ranges::count(key, '.') == 2 && !key.ends_with(".type");
    const std::string line =
        is_of_type ? fmt::format("].{}: ", key.substr(key.rfind('.') + 1)) : "\n" + key + ": ";
    EXPECT_NE(text.find(line), std::string::npos) << key;
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const bool is_heading =
        line.find(": section") != std::string::npos || line.find("]: ") != std::string::npos;
    if (line.empty() || line.starts_with(' ') || is_heading) continue;
    EXPECT_TRUE(line.find(", default ") != std::string::npos || line.find(", required") != std::string::npos)
        << line;
  }
  const auto has = [&](const std::string& part) { EXPECT_NE(text.find(part), std::string::npos) << part; };
  has("train.batch: an integer, default 128; allowed: 1 to 1073741824 (samples)\n"
      "    samples in the global batch");
  has("job.name: a text, required\n");
  has("    the loss that training minimizes: softmax_cross_entropy, ");
  has("    vocabulary size: <unk> and the most frequent words of the training part; ");
  has("job.run_dir: a text, default \"\"\n");
  has("optimizer.epsilon: a number, default 1e-08; allowed: more than 0; only for type adagrad, "
      "rowwise_adagrad, rmsprop, adam, adamw\n");
  has("optimizer.l1: a number, default 0; allowed: 0 or more; only for type ftrl\n");
  has("optimizer.schedule.decay_steps: an integer, required; allowed: 1 to 1000000000000 (steps); only for "
      "type exponential, polynomial, cosine\n");
  has("optimizer.clip.limit: a number, default 5; allowed: more than 0; only for type value, norm, "
      "global_norm\n");
  has("output.progress: one of auto, on, off, default auto\n");
  has("model.layers: a list of layers, required\n");
  has("data.test: section (optional)\n");
  has("serve.max_queue: an integer, default 1024; allowed: 1 to 1048576 (requests)\n");
  has("serve.swap: one of keep, replace, default keep\n");
  has("serve.require: a map with metric, and max or min, default none\n");
  has("serve.require.max: a number, default inf\n");
}

TEST(Dump, ReadsBackToAnEqualConfig) {
  const std::vector<std::vector<std::string>> variants = {
      {},
      {"data.test.type=digits", "data.train.noise=0.1"},
      {"data.train={type: fashion_mnist, samples: 100}", "data.test={type: fashion_mnist, split: train}"},
      {"data.train={type: idx, images: 'a: b', labels: '#x'}"},
      {"optimizer={type: adamw, learning_rate: 1.0e-3, weight_decay: 0.1}", "train.shuffle=false"},
      {"optimizer={type: ftrl, beta: 1, l1: 0.5, l2: 0.25, initial_accumulator: 0.01}"},
      {"optimizer={type: rowwise_adagrad, epsilon: 1.0e-6, initial_accumulator: 0.01}"},
      {"optimizer={type: nesterov, learning_rate: 0.1, momentum: 0.30000000000000004}"},
      {"optimizer.schedule={type: piecewise, boundaries: [10, 20], factors: [0.1, 0.01], warmup_steps: 3}",
       "optimizer.clip={type: global_norm, limit: 1.5}"},
      {"optimizer.schedule={type: step, every_steps: 7}", "optimizer.clip.type=value"},
      {"optimizer.schedule={type: exponential, decay_steps: 5, rate: 0.5, staircase: true}"},
      {"optimizer.schedule={type: polynomial, decay_steps: 5, end_learning_rate: 0, power: 2}"},
      {"optimizer.schedule={type: cosine, decay_steps: 100, alpha: 0.1}", "optimizer.clip.type=norm"},
      {"model.initializer={type: normal, stddev: 0.02}", "model.dtype=float64"},
      {"model.layers.0.note=\"3\"",
       "model.layers.1.nested=[[1, 2], [{a: 1, b: [x]}, ~], {}, [], '', \"l1\\nl2\\t\\\"\"]"},
      {"checkpoint={keep_every_steps: 100, keep_every_hours: 0.5, variables: [a/, b], partial_restore: true}",
       "checkpoint.rename={new/name: b}", "warm_start={from: c, map: {a/: b/, '/': 'x/'}}"},
      {"data.test.type=digits", "checkpoint.keep_best={metric: accuracy, count: 2, mode: min}",
       "warm_start={from: c}"},
      {"serve={listen: ':80', version: '100,200', require: {metric: loss, max: 0.6}, memory_mib: off, swap: replace}"},
      {"serve.require={metric: auc, min: 0.7, max: 1}", "serve.name=n", "serve.poll_ms=10"},
      {"cluster={consistency: ssp, staleness: 3, dealing: static}", "optimizer.staleness_discount=inverse"},
      {"cluster={consistency: asp, dealing: dynamic}"},
      {"cluster={delay: 2, drain_every_steps: 40}"},
      {"cluster={backup_workers: 2, record: true}"},
      {"job.name=12", "job.run_dir=null_", "checkpoint.dir='null'", "job.seed=9223372036854775807"},
  };
  for (const auto& overrides : variants) {
    ConfigNode root = read_yaml_text(job_text(), "job.yaml");
    for (const std::string& o : overrides) apply_override(root, o);
    const JobConfig config = parse_job(root, "job.yaml");
    const std::string text = dump(config);
    const JobConfig again = parse_job(read_yaml_text(text, "dump"), "dump");
    EXPECT_TRUE(again == config) << text;
    EXPECT_EQ(dump(again), text);
    // The tree itself survives its YAML too.
    EXPECT_EQ(read_yaml_text(root.to_yaml(), "tree"), root);
  }
}

TEST(JobConfig, HasTheDocumentedDefaults) {
  const JobConfig config = parse(job_text());
  EXPECT_EQ(config.run_dir(), "runs/fashion");
  EXPECT_EQ(config.checkpoint_dir(), "runs/fashion/checkpoints");
  EXPECT_EQ(config.data.train.get<DigitsSource>()->samples, 10000);
  EXPECT_EQ(with_override("data.train={type: fashion_mnist}").data.train.get<FashionMnistSource>()->split,
            DataSplit::train);
  EXPECT_FALSE(config.data.test);
  EXPECT_EQ(config.optimizer, OptimizerConfig{});
  EXPECT_EQ(config.cluster, ClusterConfig{});
  EXPECT_EQ(with_override("job.run_dir=/x").checkpoint_dir(), "/x/checkpoints");
  EXPECT_FALSE(with_override("data.test=~").data.test);
}

TEST(JobConfig, SaysHowItIsServed) {
  EXPECT_FALSE(parse(job_text()).serve);
  EXPECT_EQ(dump(parse(job_text())).find("\nserve:"), std::string::npos);
  const JobConfig config = with_override("serve={max_batch: 8, require: {metric: accuracy, min: 0.9}}");
  ASSERT_TRUE(config.serve);
  EXPECT_EQ(config.serve->max_batch, 8);
  EXPECT_EQ(config.serve->drain_ms, 5000);
  ASSERT_TRUE(config.serve->require);
  EXPECT_EQ(*config.serve->require, (RequiredMetric{"accuracy", 0.9, {}}));
  const auto refused = [](const std::string& o) { return message_of([&] { with_override(o); }); };
  EXPECT_EQ(refused("serve.max_batch=0"),
            "--set serve.max_batch=0: serve.max_batch: 0 is out of range; allowed: 1 to 1048576 (rows)");
  EXPECT_EQ(refused("serve.max_bach=1").substr(0, 79),
            "--set serve.max_bach=1: serve.max_bach: unknown key; did you mean \"max_batch\"? ");
  EXPECT_EQ(refused("serve.swap=drop"),
            "--set serve.swap=drop: serve.swap: expected one of keep, replace, got \"drop\"");
  EXPECT_EQ(
      refused("serve.require=loss"),
      "--set serve.require=loss: serve.require: expected a map ({metric: loss, max: 0.6}), got \"loss\"");
  EXPECT_EQ(
      refused("serve.require.metric=loss"),
      "--set serve.require.metric=loss: serve.require: has no bound: add max or min, as in {metric: loss, "
      "max: 0.6}");
  EXPECT_EQ(
      refused("serve.require.max=1"),
      "--set serve.require.max=1: serve.require.metric: missing; section serve.require needs "
      "this key (a text: a figure of the checkpoint's METRICS: loss, accuracy, ...; those of its evaluation)");
}

TEST(JobConfig, TravelsInBinary) {
  const JobConfig config = with_override("train.epochs=9");
  const auto copy = from_binary<JobConfig>(to_binary(config), "the job");
  EXPECT_TRUE(copy == config);
  EXPECT_EQ(copy.file, "job.yaml");
  EXPECT_EQ(config_hash(copy.root), config_hash(config.root));
  EXPECT_EQ(copy.root.find_path("train.epochs")->mark.origin, "--set train.epochs=9");
  EXPECT_EQ(copy.model.layers.items[1].mark.line, 10);
}

TEST(ConfigNode, SurvivesArchivesAndRefusesDamagedOnes) {
  const ConfigNode root = read_yaml_text(job_text(), "job.yaml");
  EXPECT_EQ(from_text<ConfigNode>(to_text(root), "a tree"), root);
  const std::string bytes = to_binary(root);
  EXPECT_EQ(from_binary<ConfigNode>(bytes, "a tree"), root);
  for (std::size_t n = 0; n < bytes.size(); n += 7) {
    EXPECT_THROW(from_binary<ConfigNode>(std::string_view(bytes).substr(0, n), "a tree"), Error);
  }
  ConfigNode deep;
  for (int i = 0; i <= ConfigNode::kMaxDepth; ++i) {
    std::vector<ConfigNode> items;
    items.push_back(std::move(deep));
    deep = ConfigNode::list(std::move(items));
  }
  EXPECT_THROW(to_binary(deep), Error);
}

TEST(ConfigHash, DependsOnTheMeaningOnly) {
  const auto hash = [](const std::string& text) { return config_hash(read_yaml_text(text, "f")); };
  EXPECT_EQ(hash("a: 1\nb: [x, 'y']\n"), hash("# note\n{b: ['x', y],   a: 1}"));
  EXPECT_NE(hash("a: 1"), hash("a: 2"));
  EXPECT_NE(hash("a: 1"), hash("a: '1'"));
  EXPECT_NE(hash("a: [b, c]"), hash("a: [c, b]"));
  EXPECT_NE(hash("a: [b, c]"), hash("a: ['b,\"c']"));
  EXPECT_NE(hash("a:"), hash("a: ''"));
  ConfigNode root = read_yaml_text("train: {epochs: 1}", "f");
  apply_override(root, "train.epochs=3");
  EXPECT_EQ(config_hash(root), hash("train: {epochs: 3}"));
}

// --- the binder, as a layer uses it
// -----------------------------------------------------------------------------------

enum class Activation { none, relu };
constexpr Choice<Activation> kActivations[] = {{Activation::none, "none"}, {Activation::relu, "relu"}};

struct DenseKeys {
  std::int64_t units = 0;
  Activation activation = Activation::none;
  std::vector<std::int64_t> kernel = {3, 3};
  std::vector<double> scales;
  std::vector<std::string> tags;
  std::string padding = "same";
  void describe(Keys& keys) {
    keys.required_key("units", units, "outputs of the layer", {.unit = "neurons", .min = 1});
    keys.choice("activation", activation, kActivations, "applied to the output");
    keys.key("kernel", kernel, "extents", {.unit = "pixels", .min = 1, .max = 9});
    keys.key("scales", scales, "factors");
    keys.key("tags", tags, "labels");
    keys.choice("padding", padding, {"same", "valid"}, "edges");
  }
};

DenseKeys bind_dense(const std::string& text) {
  return bind_keys<DenseKeys>(read_yaml_text(text, "f"), "f", "model.layers.0", {"type", "name"});
}

TEST(Binder, ReadsLists) {
  const DenseKeys keys = bind_dense(
      "{type: dense, name: d, units: 4, activation: relu, kernel: [1, +5], scales: [.5, 2], tags: [a, 3], "
      "padding: valid}");
  EXPECT_EQ(keys.units, 4);
  EXPECT_EQ(keys.activation, Activation::relu);
  EXPECT_EQ(keys.kernel, (std::vector<std::int64_t>{1, 5}));
  EXPECT_EQ(keys.scales, (std::vector<double>{0.5, 2}));
  EXPECT_EQ(keys.tags, (std::vector<std::string>{"a", "3"}));
  EXPECT_EQ(keys.padding, "valid");
}

TEST(Binder, SpeaksOfLayersAsOfSections) {
  const auto check = [](const std::string& text, const std::string& message) {
    EXPECT_EQ(message_of([&] { bind_dense(text); }), message);
  };
  check("{type: dense, unist: 3}",
        "f:1:15: model.layers.0.unist: unknown key; did you mean \"units\"? Allowed here: activation, "
        "kernel, name, "
        "padding, scales, tags, type, units");
  check("{type: dense}",
        "f:1:1: model.layers.0.units: missing; section model.layers.0 needs this key (an integer: outputs of "
        "the layer)");
  check("{units: 3, kernel: [3, 10]}",
        "f:1:24: model.layers.0.kernel.1: 10 is out of range; allowed: 1 to 9 (pixels)");
  check("{units: 3, kernel: 3}",
        "f:1:20: model.layers.0.kernel: expected a list of integers, got \"3\"; did you mean [3]?");
  check("{units: 3, scales: [x]}", "f:1:21: model.layers.0.scales.0: expected a number, got \"x\"");
  check("{units: 3, padding: full}",
        "f:1:21: model.layers.0.padding: expected one of same, valid, got \"full\"");
  const ConfigNode node = read_yaml_text("\n  units: 3\n", "f");
  EXPECT_EQ(message_of([&] { fail_at(*node.find("units"), "f", "model.layers.0.units", "must be even"); }),
            "f:2:10: model.layers.0.units: must be even");
}

TEST(Binder, ExplainsLayers) {
  const std::string text = explain_keys<DenseKeys>("model.layers[type=dense]");
  EXPECT_TRUE(
      text.starts_with("model.layers[type=dense].units: an integer, required; allowed: 1 or more (neurons)\n"
                       "    outputs of the layer\n"))
      << text;
  EXPECT_NE(text.find(".kernel: a list of integers, default [3, 3]; allowed: 1 to 9 (pixels)"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find(".scales: a list of numbers, default []\n"), std::string::npos) << text;
}

TEST(JobConfig, TheBestByTheMetricThatStopsIsKept) {
  const std::string data = "    type: digits\n  test: {type: digits}";
  const std::string stop = "  stop: {metric: accuracy}\n";
  const JobConfig job = parse(job_text(5, data) + stop);
  ASSERT_TRUE(job.checkpoint.keep_best);
  EXPECT_EQ(*job.checkpoint.keep_best, KeepBestConfig{.metric = "accuracy"});
  EXPECT_EQ(job.train.stop->patience, 5);
  EXPECT_EQ(parse(dump(job)), job);
  const JobConfig more =
      parse(job_text(5, data) + stop + "checkpoint: {keep_best: {metric: accuracy, count: 3}}\n");
  EXPECT_EQ(more.checkpoint.keep_best->count, 3);
  EXPECT_NE(
      message_of([&] { parse(job_text(5, data) + stop + "checkpoint: {keep_best: {metric: loss}}\n"); })
          .find("checkpoint.keep_best.metric: is \"loss\", but train.stop ends training by \"accuracy\", and "
                "keeps the best checkpoint by it; name the same metric, or leave keep_best out"),
      std::string::npos);
}

// --- a directory that is followed

JobConfig follow(const std::string& of_train, const std::string& more = "") {
  return parse("job: {name: a}\ndata:\n  train: {type: csv, schema: {label: {column: y}}, " + of_train +
               "}\nmodel: {loss: softmax_cross_entropy, layers: [{type: dense, units: 2}]}\n" + more);
}

TEST(FollowKeys, SayWhatIsFollowedAndHow) {
  const JobConfig job = follow("follow: in, late: fail, consumed: delete, event_time: at");
  ASSERT_NE(job.follow(), nullptr);
  EXPECT_EQ(job.follow()->path(), "in");
  EXPECT_TRUE(job.follow()->late_fails());
  EXPECT_TRUE(job.follow()->deletes());
  const JobConfig plain = follow("follow: in");
  EXPECT_FALSE(plain.follow()->late_fails());
  EXPECT_FALSE(plain.follow()->deletes());
  EXPECT_EQ(follow("files: a.csv").follow(), nullptr);
  // A dump has all defaults, those of epochs too.
  EXPECT_EQ(parse(dump(job)), job);
}

TEST(FollowKeys, OneOfFilesAndFollowIsThere) {
  EXPECT_EQ(
      message_of([] { follow("bad_records: skip"); }),
      "job.yaml:3:10: data.train.files: missing; a source of type csv needs files, or follow: a directory that "
      "they come into");
  EXPECT_EQ(message_of([] { follow("files: a.csv, follow: in"); }),
            "job.yaml:3:59: data.train.files: there is follow, too: remove one of them");
  EXPECT_EQ(message_of([] { follow("follow: [a, b]"); }),
            "job.yaml:3:60: data.train.follow: expected a directory, got a list");
  EXPECT_EQ(message_of([] { follow("follow: in, late: never"); }),
            "job.yaml:3:70: data.train.late: expected warn or fail, got \"never\"");
  EXPECT_EQ(message_of([] { follow("follow: in, consumed: eat"); }),
            "job.yaml:3:74: data.train.consumed: expected keep or delete, got \"eat\"");
  EXPECT_EQ(message_of([] { follow("follow: in, event_time: [a]"); }),
            "job.yaml:3:76: data.train.event_time: expected the name of a column");
}

TEST(FollowKeys, KeysOfWholeDataSetsAreRefused) {
  const auto refused = [](const std::string& more, const std::string& key, const std::string& why) {
    const std::string text = message_of([&] { follow("follow: in", more); });
    EXPECT_NE(text.find(key + ": " + why), std::string::npos) << text;
    EXPECT_NE(text.find("job.yaml:5:"), std::string::npos) << text;
  };
  const std::string no = "does not go with data.train.follow: ";
  refused("train: {epochs: 3}", "train.epochs", no + "each record is learnt once");
  refused("train: {eval_every_epochs: 2}", "train.eval_every_epochs", no + "there are no epochs");
  refused("train: {stop: {metric: loss}}", "train.stop", no);
  refused("checkpoint: {keep_best: {metric: loss}}", "checkpoint.keep_best", no);
  EXPECT_EQ(message_of([] { follow("follow: in, to: 0.5"); }),
            "job.yaml:3:68: data.train.to: does not go with follow: all records of all files are learnt");
}

TEST(FollowKeys, AreRefusedWhereNothingIsFollowed) {
  const auto refused = [](const std::string& of_train, const std::string& more, const std::string& key) {
    const std::string text = message_of([&] { follow(of_train, more); });
    EXPECT_NE(text.find(key + ": is only used with data.train.follow; add that, or remove this"),
              std::string::npos)
        << text;
  };
  refused("files: a.csv, late: warn", "", "data.train.late");
  refused("files: a.csv, consumed: keep", "", "data.train.consumed");
  refused("files: a.csv, event_time: t", "", "data.train.event_time");
  refused("files: a.csv", "train: {progressive_window: 5}", "train.progressive_window");
  refused("files: a.csv", "checkpoint: {every_records: 5}", "checkpoint.every_records");
}

TEST(FollowKeys, AreOfBsp) {
  for (const std::string mode : {"ssp, staleness: 2", "asp"}) {
    const std::string text =
        message_of([&] { follow("follow: in", "cluster: {consistency: " + mode + "}"); });
    EXPECT_EQ(text,
              "job.yaml:5:24: cluster.consistency: " + mode.substr(0, 3) +
                  " does not go with data.train.follow: a followed directory is trained in bsp; remove this "
                  "key, or name files in data.train");
  }
  EXPECT_NE(follow("follow: in", "cluster: {consistency: bsp}").follow(), nullptr);
  EXPECT_NE(
      message_of([&] { follow("follow: in", "cluster: {backup_workers: 1}"); })
          .find("cluster.backup_workers: does not go with data.train.follow, where each record is learnt "
                "from: a late worker's part of a step is dropped; remove it, or name files in data.train"),
      std::string::npos);
}

TEST(FollowKeys, GoWithNoDelay) {
  EXPECT_EQ(
      message_of([&] { follow("follow: in", "cluster: {delay: 1}"); }),
      "job.yaml:5:18: cluster.delay: does not go with data.train.follow, where data may end or pause after "
      "any step; remove the key, or name files in data.train");
}

// A dump has all keys: those of other modes, too, with their defaults.
TEST(ConsistencyKeys, MayBeWrittenWithTheirDefaultsInAnyMode) {
  const auto cluster_of = [](const std::string& keys) {
    return parse(job_text() + "cluster: {" + keys + "}\noptimizer: {staleness_discount: none}\n").cluster;
  };
  EXPECT_EQ(cluster_of("consistency: bsp, staleness: 0, dealing: auto, delay: 0"), ClusterConfig{});
  EXPECT_EQ(cluster_of("consistency: asp, staleness: 0, dealing: auto, delay: 0").consistency,
            Consistency::asp);
  const ClusterConfig ssp = cluster_of("consistency: ssp, staleness: 1, dealing: dynamic");
  EXPECT_EQ(ssp.consistency, Consistency::ssp);
  EXPECT_EQ(ssp.staleness, 1);
  EXPECT_EQ(ssp.dealing, DealingChoice::to_whoever_asks);
  EXPECT_EQ(cluster_of("consistency: asp, backup_workers: 0").consistency, Consistency::asp);
  EXPECT_EQ(cluster_of("backup_workers: 2, record: true").backup_workers, 2);
}

TEST(FollowKeys, TestDataAreFiles) {
  EXPECT_NE(message_of([] {
              parse(
                  "job: {name: a}\ndata:\n  train: {type: csv, schema: {label: {column: y}}, follow: in}\n"
                  "  test: {type: csv, follow: in}\n"
                  "model: {loss: softmax_cross_entropy, layers: [{type: dense, units: 2}]}\n");
            }).find("data.test.follow: data.test has files; only data.train follows"),
            std::string::npos);
}

}  // namespace
}  // namespace varscope
