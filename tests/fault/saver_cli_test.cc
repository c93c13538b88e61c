// The Saver's table through the real program: retention over restarts, checkpoints of a part and under other
// names, warm start, one report of everything that differs, rollback; and the words of each mistake.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <regex>
#include <set>

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/restore/reader.h"
#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr const char* kModel =
    "model:\n"
    "  layers:\n"
    "    - {type: dense, scope: hidden, units: 12, activation: relu}\n"
    "    - {type: dense, scope: output, units: 10}\n"
    "  loss: softmax_cross_entropy\n"
    "optimizer: {type: momentum, learning_rate: 0.1}\n";

// 8 steps an epoch. `more` begins at line 13.
std::string write_job(const ScratchDir& dir, const std::string& more, const std::string& name = "job",
                      const std::string& model = kModel) {
  const std::string path = dir / (name + ".yaml");
  write_text(path, "job: {name: " + name + ", run_dir: " + (dir / name) +
                       "}\n"
                       "cluster: {logical_workers: 2}\n"
                       "data:\n"
                       "  train: {type: digits, samples: 320}\n"
                       "  test: {type: digits, samples: 100}\n" +
                       model + "train: {epochs: 100, batch: 40, eval_batch: 50}\n" + more);
  return path;
}

Args to_step(const std::string& job, int step, const Args& more = {}) {
  return Args{"train", job} + set({"train.max_steps=" + std::to_string(step)}) + more;
}
std::string dir_of(const ScratchDir& dir, const std::string& name = "job") {
  return dir / name + "/checkpoints";
}

std::string step_path(const ScratchDir& dir, int step, const std::string& name = "job") {
  return dir_of(dir, name) + "/" + step_name(step);
}

std::vector<int> steps_in(const std::string& dir) {
  std::vector<int> steps;
  for (const std::string& name : names_in(dir)) {
    if (name.starts_with("step-")) steps.push_back(std::stoi(name.substr(5)));
  }
  return steps;
}

std::string output_of(const Args& args) {
  const Ended ended = run(varscope(args));
  EXPECT_EQ(ended.code, 0) << ended.all();
  return ended.out;
}

void expect_refused(const Command& command, int code, const std::vector<std::string>& words) {
  const Ended ended = run(command);
  EXPECT_EQ(ended.code, code) << ended.all();
  EXPECT_EQ(ended.errors().size(), 1U) << ended.all();
  for (const std::string& word : words)
    EXPECT_NE(ended.err.find(word), std::string::npos) << word << ended.all();
}

// --- which checkpoints stay

// What must be left of `all`, by definition.
std::vector<int> kept_of(const std::map<int, double>& accuracy, int every) {
  std::set<int> kept;
  int best = accuracy.begin()->first;
  for (const auto& [step, value] : accuracy) {
    if (step % every == 0) kept.insert(step);
    if (value > accuracy.at(best)) best = step;
  }
  kept.insert({best, accuracy.rbegin()->first});
  return {kept.begin(), kept.end()};
}

TEST(Retention, KeepsTheNewestThoseEveryNStepsAndTheBestOverRestarts) {
  const ScratchDir dir;
  const std::string job = write_job(
      dir, "checkpoint: {keep: 1, keep_every_steps: 20, keep_best: {metric: accuracy, count: 1}}\n");
  static const std::regex evaluation("evaluation after step (\\d+) .* accuracy ([0-9.]+)");
  std::map<int, double> accuracy;
  for (int step = 5; step <= 45; step += 5) {
    SCOPED_TRACE(step);
    const Ended ended = run(varscope(to_step(job, step, step > 5 ? Args{"--resume"} : Args{})));
    ASSERT_EQ(ended.code, 0) << ended.all();
    for (const std::string& line : lines_of(ended.out)) {
      std::smatch m;
      if (std::regex_match(line, m, evaluation) && std::stoi(m[1]) == step) accuracy[step] = std::stod(m[2]);
    }
    ASSERT_TRUE(accuracy.contains(step)) << ended.all();
    EXPECT_EQ(steps_in(dir_of(dir)), kept_of(accuracy, 20));
    EXPECT_NE(
        output_of({"checkpoint", "prune", dir_of(dir), "--config", job, "--dry-run"}).find("\n0 checkpoints"),
        std::string::npos);
  }
  output_of({"checkpoint", "verify", dir_of(dir)});
  // By options instead of the config.
  EXPECT_NE(output_of({"checkpoint", "prune", dir_of(dir), "--keep", "1", "--keep-every-steps", "20",
                       "--keep-best", "accuracy", "--dry-run"})
                .find("\n0 checkpoints"),
            std::string::npos);
  EXPECT_NE(output_of({"checkpoint", "prune", dir_of(dir), "--keep", "1", "--dry-run"})
                .find("step-000000020 would"),
            std::string::npos);
}

TEST(Retention, AKilledJobGoesOnAsIfItHadNotBeen) {
  const ScratchDir dir;
  const std::string rules =
      "checkpoint: {every_steps: 8, when_busy: queue, keep: 2, keep_every_steps: 400, keep_best: {metric: "
      "loss}}\n";
  const Args args = set({"train.log_every_steps=10", "train.eval_every_epochs=3"});
  constexpr int kSteps = 800;
  const std::string whole = write_job(dir, rules, "whole"), killed = write_job(dir, rules, "killed");
  const std::string hash = train(varscope(to_step(whole, kSteps, args))).hash;
  for (int moment = 1; moment <= 3; ++moment) {
    Job job(varscope(to_step(killed, kSteps, args + (moment > 1 ? Args{"--resume"} : Args{}))));
    // On a busy machine the first checkpoint may be long on its way to the disk.
    const auto may_die = [&] {
      return job.last_step() >= moment * 170 && !steps_in(dir_of(dir, "killed")).empty();
    };
    EXPECT_TRUE(job.wait_until(may_die, 30 * kSlowness)) << job.err();
    job.send_signal(SIGKILL);
    job.wait(10);
    ASSERT_FALSE(steps_in(dir_of(dir, "killed")).empty());
  }
  const Ended ended = run(varscope(to_step(killed, kSteps, args + Args{"--resume"})));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(summary_of(ended.out).hash, hash);
  const std::vector<int> left = steps_in(dir_of(dir, "killed"));
  EXPECT_NE(std::find(left.begin(), left.end(), kSteps), left.end());
  EXPECT_LE(left.size(), 2U + 3U + 1U);
  EXPECT_NE(output_of({"checkpoint", "prune", dir_of(dir, "killed"), "--config", killed, "--dry-run"})
                .find("\n0 checkpoints"),
            std::string::npos);
  output_of({"checkpoint", "verify", dir_of(dir, "killed")});
}

TEST(Retention, WhatPruneCannotDoIsSaid) {
  const ScratchDir dir;
  EXPECT_NE(
      run(varscope({"checkpoint", "prune", dir.path()})).err.find("say what to keep: --keep N, or --config"),
      std::string::npos);
  const auto refused = [&](const Args& more, const char* words) {
    expect_refused(varscope(Args{"checkpoint", "prune", dir.path(), "--keep", "1"} + more), 2, {words});
  };
  refused({"--keep-best", "acuracy"},
          "prune: --keep-best: unknown metric \"acuracy\"; did you mean \"accuracy\"?");
  refused({"--keep-best", "loss", "--keep-best-mode", "up"}, "--keep-best-mode is one of auto, max, min");
}

TEST(Retention, AMisspeltMetricIsRefusedBeforeTheRun) {
  const ScratchDir dir;
  const std::string job = write_job(dir, "checkpoint: {keep_best: {metric: acuracy}}\n");
  expect_refused(mpirun(2, to_step(job, 1)), 2,
                 {"job.yaml:13:34: checkpoint.keep_best.metric: unknown metric \"acuracy\"; did you mean "
                  "\"accuracy\"?"});
}

// --- what checkpoints hold, and under which names

TEST(Names, ARenamedCheckpointResumesBitForBit) {
  const ScratchDir dir;
  const std::string plain = write_job(dir, "", "plain");
  const std::string job = write_job(
      dir, "checkpoint:\n  rename: {encoder/kernel: hidden/weights, hidden/weights: hidden/bias}\n");
  const std::string hash = train(varscope(to_step(plain, 12))).hash;
  train(mpirun(4, to_step(job, 5, set({"cluster.servers=2"}))));
  const std::string listed = output_of({"checkpoint", "inspect", dir_of(dir)});
  for (const char* line :
       {"encoder/kernel  float32  [256, 12]", "hidden/weights  float32  [12]", "output/bias"})
    EXPECT_NE(listed.find(line), std::string::npos) << line << listed;
  const Summary resumed = train(varscope(to_step(job, 12, {"--resume"})));
  EXPECT_EQ(resumed.first_step, 5);
  EXPECT_EQ(resumed.hash, hash);
  EXPECT_NE(output_of({"eval", job}).find("(step 12)"), std::string::npos);
  // Without the map the names do not fit.
  expect_refused(varscope(to_step(job, 13, Args{"--resume"} + set({"checkpoint.rename=~"}))), 4,
                 {"\"encoder/kernel\" float32 [256, 12] is in the checkpoint but not in the model",
                  "\"hidden/weights\" has shape [12] in the checkpoint and [256, 12] in the model",
                  "\"hidden/bias\" float32 [12] is missing in the checkpoint"});
}

TEST(Names, APartIsSavedAndRestoredOnlyOnRequest) {
  const ScratchDir dir;
  const std::string job = write_job(dir, "checkpoint: {variables: [hidden/]}\n");
  const Ended first = run(mpirun(3, to_step(job, 5, set({"cluster.servers=2"}))));
  EXPECT_EQ(first.code, 0) << first.all();
  EXPECT_NE(
      first.out.find("checkpoints hold 2 of 4 variables, not output/weights, output/bias; --resume needs "
                     "checkpoint.partial_restore"),
      std::string::npos)
      << first.out;
  expect_refused(
      varscope(to_step(job, 8, {"--resume"})), 4,
      {"cannot resume (2 differences)", "\"output/weights\" float32 [12, 10] is missing in the checkpoint",
       "\"output/bias\" float32 [10] is missing in the checkpoint",
       "give missing variables initial values with checkpoint.partial_restore: true"});
  const Args partial = Args{"--resume"} + set({"checkpoint.partial_restore=true"});
  const Ended resumed = run(varscope(to_step(job, 8, partial)));
  EXPECT_EQ(resumed.code, 0) << resumed.all();
  EXPECT_EQ(summary_of(resumed.out).first_step, 5);
  ASSERT_EQ(resumed.messages().size(), 2U) << resumed.all();
  EXPECT_NE(resumed.messages()[0].find("\"output/weights\" float32 [12, 10] is missing in the checkpoint: it "
                                       "starts with initial values"),
            std::string::npos);
  // Extra variables are reported, too: the whole is saved, then the model shrinks.
  train(varscope(to_step(job, 8, Args{"--fresh"} + set({"checkpoint.variables=[]"}))));
  std::string smaller = kModel;
  smaller.replace(smaller.find("scope: output"), 13, "scope: answer");
  write_job(dir, "", "job", smaller);
  const Ended other = run(varscope(to_step(job, 9, partial)));
  EXPECT_EQ(other.code, 0) << other.all();
  for (const char* words :
       {"\"answer/weights\" float32 [12, 10] is missing in the checkpoint",
        "\"output/bias\" float32 [10] is in the checkpoint but not in the model: it is left out"})
    EXPECT_NE(other.err.find(words), std::string::npos) << words << other.all();
  // Nothing at all in common is no partial restore.
  smaller.replace(smaller.find("scope: hidden"), 13, "scope: veiled");
  smaller.replace(smaller.find("scope: answer"), 13, "scope: riddle");
  write_job(dir, "", "job", smaller);
  expect_refused(varscope(to_step(job, 10, partial)), 4,
                 {"has none of the model's variables: there is nothing to go on from", "checkpoint.rename"});
}

TEST(Names, MistakesAreNamedWithTheirPlace) {
  const ScratchDir dir;
  const auto refused = [&](const std::string& section, const std::vector<std::string>& words) {
    const std::string job = write_job(dir, section);
    expect_refused(varscope(to_step(job, 1)), 2, words);
    expect_refused(varscope({"plan", job}), 2, words);
  };
  refused("checkpoint: {variables: [hidden/, outptu/]}\n",
          {"job.yaml:13:35: checkpoint.variables.1: the model has nothing below \"outptu/\"; did you mean "
           "\"output/\"?"});
  refused("checkpoint: {variables: [hidden]}\n",
          {"job.yaml:13:26: checkpoint.variables.0: the model has no variable \"hidden\"; did you mean "
           "\"hidden/\"?"});
  refused(
      "checkpoint:\n  rename: {new: hidden/wieghts}\n",
      {"job.yaml:14:17: checkpoint.rename.new: the model has no variable \"hidden/wieghts\"; did you mean "
       "\"hidden/weights\"?"});
  refused(
      "checkpoint:\n  rename: {hidden/bias: hidden/weights}\n",
      {"checkpoint.rename: variables \"hidden/weights\" and \"hidden/bias\" would both be \"hidden/bias\" in "
       "the checkpoint"});
  refused("checkpoint:\n  rename: {a: hidden/bias, b: hidden/bias}\n",
          {"job.yaml:14:28: checkpoint.rename.b: variable \"hidden/bias\" has the name \"a\" already"});
  refused("checkpoint: {variables: [output/], rename: {a: hidden/bias}}\n",
          {"checkpoint.rename.a: \"hidden/bias\" is not among checkpoint.variables"});
}

// --- warm start

constexpr const char* kOtherModel =
    "model:\n"
    "  layers:\n"
    "    - {type: dense, scope: body, units: 12, activation: relu, trainable: false}\n"
    "    - {type: dense, scope: head, units: 10}\n"
    "  loss: softmax_cross_entropy\n"
    "optimizer: {type: adam, learning_rate: 0.01}\n";

class WarmStart : public ::testing::Test {
 protected:
  void SetUp() override { train(mpirun(3, to_step(write_job(dir, ""), 6, set({"cluster.servers=2"})))); }
  std::string other(const std::string& section, const std::string& model = kOtherModel) {
    return write_job(dir, section, "other", model);
  }
  std::string from() const { return "warm_start:\n  from: " + dir_of(dir) + "\n"; }
  // The whole variable's bytes.
  static std::vector<std::byte> bytes(const std::string& path, const VariableSpec& v) {
    PosixFs fs;
    CheckpointReader reader = CheckpointReader::open(fs, path);
    const Tensor out(v.dtype, v.shape);
    reader.read(v.full_name(), "", v.box(), out.view());
    return {out.view().bytes(), out.view().bytes() + out.n_bytes()};
  }
  static VariableSpec spec(const std::string& name, Shape shape) {
    VariableSpec v;
    v.name = name;
    v.shape = std::move(shape);
    return v;
  }
  ScratchDir dir;
};

TEST_F(WarmStart, TakesTheValuesOfAScopeOnAnyNumberOfServersAndInAnyParts) {
  // The body is frozen: what was taken is still there at the end, whatever the head has learned.
  const std::string job = other(from() + "  map: {hidden/: body/}\n");
  std::set<std::string> hashes;
  for (const Command& c : {varscope(to_step(job, 5)),
                           mpirun(5, to_step(job, 5, Args{"--fresh"} + set({"cluster.servers=3"})))}) {
    const Ended ended = run(c);
    ASSERT_EQ(ended.code, 0) << ended.all();
    EXPECT_NE(ended.out.find("warm start   2 of 4 variables from " + step_path(dir, 6) +
                             " (step 6); initial values: head/weights, head/bias"),
              std::string::npos)
        << ended.out;
    hashes.insert(summary_of(ended.out).hash);
  }
  EXPECT_EQ(hashes.size(), 1U);
  EXPECT_EQ(bytes(step_path(dir, 5, "other"), spec("body/weights", {256, 12})),
            bytes(step_path(dir, 6), spec("hidden/weights", {256, 12})));
  std::string parts = kOtherModel;
  parts.replace(parts.find("units: 12"), 9, "units: 12, partitioner: {type: fixed_size, parts: 3}");
  train(mpirun(4, to_step(other(from() + "  map: {hidden/: body/}\n", parts), 5,
                          Args{"--fresh"} + set({"cluster.servers=2"}))));
  EXPECT_EQ(bytes(step_path(dir, 5, "other"), spec("body/weights", {256, 12})),
            bytes(step_path(dir, 6), spec("hidden/weights", {256, 12})));
}

TEST_F(WarmStart, WithoutAMapByTheirOwnNamesAndOnlyValues) {
  // Step, schedule and slots start anew: the first step of sgd from these values is that of a new run.
  const std::string job = other(from(), kModel);
  const Ended ended = run(varscope(to_step(job, 3)));
  ASSERT_EQ(ended.code, 0) << ended.all();
  EXPECT_NE(ended.out.find("warm start   4 of 4 variables from"), std::string::npos) << ended.out;
  EXPECT_EQ(ended.out.find("initial values: "), std::string::npos) << ended.out;
  EXPECT_EQ(summary_of(ended.out).step, 3);
  EXPECT_NE(summary_of(ended.out).hash,
            train(varscope(to_step(job, 3, Args{"--fresh"} + set({"warm_start=~"})))).hash);
}

TEST_F(WarmStart, AResumedRunDoesNotNeedIt) {
  const std::string job = other(from() + "  map: {hidden/: body/}\n");
  const std::string hash = train(varscope(to_step(job, 9))).hash;
  train(varscope(to_step(job, 4, {"--fresh"})));
  std::filesystem::remove_all(dir_of(dir));
  const Ended ended = run(varscope(to_step(job, 9, {"--resume"})));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_NE(ended.out.find("warm start   ignored: the run goes on from its own checkpoint"),
            std::string::npos);
  EXPECT_EQ(summary_of(ended.out).hash, hash);
}

TEST_F(WarmStart, FallsBackToTheNewestGoodOne) {
  train(varscope(to_step(dir / "job.yaml", 8, {"--resume"})));
  flip_byte(step_path(dir, 8) + "/shard-00000-of-00001.safetensors", 5000);
  const Ended ended = run(varscope(to_step(other(from() + "  map: {hidden/: body/}\n"), 2)));
  EXPECT_EQ(ended.code, 0) << ended.all();
  ASSERT_EQ(ended.messages().size(), 1U) << ended.all();
  EXPECT_NE(ended.messages()[0].find("falling back to step-000000006"), std::string::npos);
  EXPECT_NE(ended.out.find("(step 6)"), std::string::npos);
  // By its path there is nothing to fall back to.
  expect_refused(varscope(to_step(other("warm_start: {from: " + step_path(dir, 8) + "}\n"), 2, {"--fresh"})),
                 4, {"other.yaml:13:20: warm_start.from: cannot start from", "CRC block 0"});
}

TEST_F(WarmStart, UnusedEntriesAreNamedWithTheirPlaces) {
  const std::string job =
      other(from() + "  map:\n    hidden/: body/\n    outptu/: head/\n    'hidden': body_1\n");
  for (const Command& c : {varscope(to_step(job, 1)), mpirun(3, to_step(job, 1))}) {
    expect_refused(c, 2,
                   {"other.yaml:17:5: warm_start.map.outptu/: not used: the checkpoint has nothing below "
                    "\"outptu/\"; did you mean \"output/\"?",
                    "\n  " + (dir / "other.yaml") +
                        ":18:5: warm_start.map.hidden: not used: the model has no "
                        "variable \"body_1\"; did you mean \"body/\"?"});
  }
  EXPECT_TRUE(names_in(dir_of(dir, "other")).empty()) << "nothing was begun";
}

TEST_F(WarmStart, OtherShapesAndDtypesAreAllListed) {
  std::string model = kOtherModel;
  model.replace(model.find("units: 12"), 9, "units: 14");
  expect_refused(
      varscope(to_step(other(from() + "  map: {hidden/: body/, output/: head/}\n", model), 1)), 4,
      {"does not fit the model (3 differences)",
       "\"hidden/weights\" for \"body/weights\" has shape [256, 12] in the checkpoint and [256, 14] in the model",
       "\"hidden/bias\" for \"body/bias\" has shape [12]",
       "\"output/weights\" for \"head/weights\" has shape [12, 10]", "nothing was assigned"});
  expect_refused(
      varscope(to_step(other(from() + "  map: {hidden/bias: body/bias}\n"), 1, set({"model.dtype=float64"}))),
      4, {"is float32 in the checkpoint and float64 in the model"});
}

TEST_F(WarmStart, MistakesAreNamedWithTheirPlace) {
  const auto refused = [&](const std::string& section, int code, const std::vector<std::string>& words,
                           const Args& more = {}) {
    expect_refused(varscope(to_step(other(section), 1, more)), code, words);
  };
  refused("warm_start: {from: nowhere}\n", 4,
          {"other.yaml:13:20: warm_start.from: cannot start from nowhere:", "nowhere is not a checkpoint"});
  refused(from(), 2, {"other.yaml:14:9: warm_start.from: checkpoint", "has none of the model's variables"});
  refused(from() + "  map: {}\n", 2,
          {"other.yaml:", "warm_start.map: empty: no variable would get its value"});
  refused(from() + "  map: {hidden/: body}\n", 2,
          {"other.yaml:15:9: warm_start.map.hidden/: a scope (\"hidden/\") cannot go to a variable"});
  refused(
      from() + "  map: {hidden/bias: body/bias, output/bias: body/bias}\n", 2,
      {"warm_start.map: \"hidden/bias\" and \"output/bias\" are both assigned to variable \"body/bias\""});
  const std::string own = write_job(dir, "warm_start: {from: " + dir_of(dir) + "}\n");
  expect_refused(varscope(to_step(own, 1, {"--fresh"})), 2,
                 {"is one of the run's own checkpoints, which --fresh sets aside"});
}

// --- one report

TEST(Restore, EverythingThatDiffersIsToldAtOnce) {
  const ScratchDir dir;
  const std::string job = write_job(dir, "");
  train(varscope(to_step(job, 3)));
  const Args changed =
      Args{"--resume"} + set({"model.layers.0.units=14", "train.batch=20", "job.seed=2",
                              "data.train.samples=300", "optimizer.type=sgd", "model.layers.1.scope=answer"});
  for (const Command& c : {varscope(to_step(job, 6, changed)), mpirun(3, to_step(job, 6, changed))}) {
    expect_refused(
        c, 4,
        {"(12 differences)", "the optimizer is \"momentum\" in the checkpoint and \"sgd\" in the job",
         "\"hidden/weights\" has shape [256, 12] in the checkpoint and [256, 14] in the model",
         "\"answer/weights\" float32 [14, 10] is missing in the checkpoint",
         "\"output/bias\" float32 [10] is in the checkpoint but not in the model",
         "train.batch: 40 in the checkpoint, 20 in the config",
         "job.seed: 1 in the checkpoint, 2 in the config",
         "samples in data.train: 320 in the checkpoint, 300 in the config", "nothing was restored"});
  }
}

// --- rollback

TEST(Rollback, TheRunThatGoesOnRecordsWhereItCameFrom) {
  const ScratchDir dir;
  const std::string job = write_job(dir, "");
  const std::string hash = train(varscope(to_step(job, 12))).hash;
  train(varscope(to_step(job, 4, {"--fresh"})));
  for (int step : {8, 12}) train(varscope(to_step(job, step, {"--resume"})));
  output_of({"checkpoint", "rollback", dir_of(dir), "4"});
  EXPECT_EQ(steps_in(dir_of(dir)), std::vector<int>{4});
  const Summary again = train(mpirun(3, to_step(job, 12, Args{"--resume"} + set({"cluster.servers=2"}))));
  EXPECT_EQ(again.first_step, 4);
  EXPECT_EQ(again.hash, hash);
  PosixFs fs;
  EXPECT_EQ(load_manifest(fs, step_path(dir, 12)).manifest.parent, "step-000000004");
  const std::string list = output_of({"checkpoint", "list", dir_of(dir)});
  for (const char* words : {"set aside: superseded-step-000000012-", "set aside: superseded-step-000000008-",
                            "rollback to step-000000004"})
    EXPECT_NE(list.find(words), std::string::npos) << words << list;
  // A resume from an older checkpoint is a step back, too.
  train(varscope(to_step(job, 12, {"--resume=" + step_path(dir, 4)})));
  EXPECT_NE(output_of({"checkpoint", "list", dir_of(dir)}).find("resume to step-000000004"),
            std::string::npos);
}

}  // namespace
}  // namespace varscope::testing
