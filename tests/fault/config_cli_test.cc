// What users meet before a job trains: `varscope config` and its explanations, paths, durations, warnings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr const char* kDenseLayers =
    "    - {type: dense, scope: h, units: 8, activation: tanh}\n"  // line 9
    "    - {type: dense, scope: out, units: 10}\n";                // line 10

// Lines 1 to 8, then layers.
std::string job_file(const ScratchDir& dir, const std::string& layers = kDenseLayers,
                     const std::string& data =
                         "data: {train: {type: digits, samples: 80}, test: {type: digits, samples: 50}}") {
  const std::string file = dir / "job.yaml";
  write_text(file, "job:\n  name: t\n  run_dir: " + (dir / "run") + "\n" + data +
                       "\ntrain: {epochs: 1, batch: 40}\nmodel:\n  loss: softmax_cross_entropy\n  layers:\n" +
                       layers);
  return file;
}

std::string output_of(const Args& args) {
  const Ended ended = run(varscope(args));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(ended.err, "") << ended.all();
  return ended.out;
}

// --- config checks what needs no data

struct Mistake {
  const char* name;
  const char* set;
  const char* words;  // where, what, and what to do
};
void PrintTo(const Mistake& m, std::ostream* out) { *out << m.name; }

class CheckedWithoutData : public ::testing::TestWithParam<Mistake> {};

// The same line as `graph` or `train` has.
TEST_P(CheckedWithoutData, IsRefusedInTheWordsOfTraining) {
  const ScratchDir dir;
  const Args args = Args{job_file(dir)} + set({GetParam().set});
  const Ended checked = run(varscope(Args{"config"} + args));
  EXPECT_EQ(checked.code, 2) << checked.all();
  EXPECT_EQ(checked.out, "");
  EXPECT_THAT(checked.err, HasSubstr(GetParam().words));
  EXPECT_FALSE(std::filesystem::exists(dir / "run"));
  const Ended trained = run(varscope(Args{"train"} + args));
  EXPECT_EQ(trained.code, 2) << trained.all();
  ASSERT_THAT(trained.errors(), ElementsAre(checked.err.substr(0, checked.err.size() - 1)));
}

INSTANTIATE_TEST_SUITE_P(
    Mistakes, CheckedWithoutData,
    ::testing::Values(
        Mistake{"LayerType", "model.layers.0.type=dens",
                "model.layers.0.type: unknown layer type \"dens\"; did you mean \"dense\"?"},
        Mistake{"LayerTypeOfOthers", "model.layers.0.type=Linear", "did you mean \"dense\"?"},
        Mistake{"LayerKey", "model.layers.0.unitz=3",
                "model.layers.0.unitz: unknown key; did you mean \"units\"?"},
        Mistake{"LayerKeyOfOthers", "model.layers.0.neurons=3", "unknown key; did you mean \"units\"?"},
        Mistake{"ListKey", "model.layers.0={type: conv2d, filters: 2, kernel: 3}",
                "model.layers.0.kernel: expected a list of integers, got \"3\"; did you mean [3]?"},
        Mistake{"LayerRange", "model.layers.0.units=99999999999999",
                "model.layers.0.units: 99999999999999 is out of range; allowed: 1 to 1073741824 (units)"},
        Mistake{"KernelRange", "model.layers.0={type: conv2d, filters: 2, kernel: [4294967299]}",
                "model.layers.0.kernel.0: 4294967299 is out of range; allowed: 1 to 65536 (pixels)"},
        Mistake{"Activation", "model.layers.0.activation=rleu", "did you mean \"relu\"?"},
        Mistake{"Metric", "train.metrics=[acuracy]",
                "train.metrics.0: unknown metric \"acuracy\"; did you mean \"accuracy\"?"},
        Mistake{"MetricOfOtherLoss", "train.metrics=[auc]",
                "metric \"auc\" does not fit loss softmax_cross_entropy"},
        Mistake{"TopTooMany", "train.metrics=[top_11]",
                "train.metrics.0: metric \"top_11\": the model has 10 outputs"},
        Mistake{"Scope", "model.layers.0.scope=a/", "model.layers.0.scope: \"a/\" is not a scope name"},
        Mistake{"ScopeTaken", "model.layers.1.scope=h", "scope \"h\" is another layer's"},
        Mistake{"Initializer", "model.layers.0.initializer=xavier", "did you mean \"glorot_uniform\"?"},
        Mistake{"DefaultInitializer", "model.initializer={type: uniform, low: 2, high: 1}",
                "low 2 is above high 1"},
        Mistake{"Partitioner", "model.layers.0.partitioner={type: fixed_size}", "partitioner.parts: missing"},
        Mistake{"PartitionerRange", "model.layers.0.partitioner={type: fixed_size, parts: 10000000000}",
                "is out of range"},
        Mistake{"Regularizer", "model.regularizer={type: l3, factor: 1}",
                "model.regularizer.type: expected one of"},
        Mistake{"Constraint", "model.layers.0.constraint=max_nrom", "did you mean \"max_norm\"?"},
        Mistake{"Input", "model.layers.1.input=hh", "model.layers.1.input: unknown input \"hh\""},
        Mistake{"Reuse", "model.layers.1={type: dense, reuse: nothing, units: 10}", "model.layers.1"},
        Mistake{"Outputs", "model.layers.1.units=9", "model.layers.1.units: the last layer has 9 outputs"},
        Mistake{"NoVariables", "model.layers=[{type: flatten}]", "model.layers"},
        Mistake{"ClassWeights", "model.loss={type: softmax_cross_entropy, class_weights: [1, 2]}",
                "model.loss.class_weights"},
        Mistake{"TestData", "data.test.size=20",
                "data.test: its samples have shape [20, 20], those of data.train [16, 16]"},
        Mistake{"TestText", "data.test={type: text, file: f}", "data.test: "},
        Mistake{
            "CheckpointVariables", "checkpoint.variables=[h/weigths]",
            "checkpoint.variables.0: the model has no variable \"h/weigths\"; did you mean \"h/weights\"?"},
        Mistake{"CheckpointRename", "checkpoint.rename={h/bias: h/weights}", "checkpoint.rename"},
        Mistake{"Steps", "train.epochs=1000000000001", "train.epochs: 1000000000001 is out of range"},
        Mistake{"Staleness", "cluster.consistency=ssp", "cluster.staleness: missing; ssp needs it"},
        Mistake{"Delay", "cluster={consistency: asp, delay: 1}",
                "cluster.delay: does not go with cluster.consistency: asp"},
        Mistake{"Dealing", "cluster.dealing=dynamic",
                "cluster.dealing: dynamic does not go with cluster.consistency: bsp"},
        Mistake{"LogicalWorkers", "cluster.logical_workers=4294967298",
                "is out of range; allowed: 0 to 1048576"}),
    [](const auto& info) { return info.param.name; });

// What does not depend on the images is checked for files that are not there.
TEST(CheckedWithoutFiles, WhateverTheirImagesAre) {
  const ScratchDir dir;
  const std::string idx =
      job_file(dir, kDenseLayers, "data: {train: {type: idx, images: none/i, labels: none/l}}");
  const auto refusal = [&](const std::string& file, const char* assignment) {
    const Ended ended = run(varscope(Args{"config", file} + set({assignment})));
    EXPECT_EQ(ended.code, 2) << assignment << ended.all();
    return ended.err;
  };
  EXPECT_THAT(output_of({"config", idx}), HasSubstr("images: none/i"));
  // Not for all shapes: a file may have such images.
  output_of(Args{"config", idx} +
            set({"model.layers=[{type: take, index: 30}, {type: reshape, shape: [4, 8]}, "
                 "{type: dense, units: 3}]"}));
  EXPECT_THAT(refusal(idx, "model.layers.0.unitz=3"), HasSubstr("did you mean \"units\"?"));
  EXPECT_THAT(refusal(idx, "train.metrics=[acc]"), HasSubstr("did you mean \"accuracy\"?"));
  EXPECT_THAT(refusal(idx, "model.layers.1.input=hh"), HasSubstr("unknown input \"hh\""));
  EXPECT_THAT(refusal(idx, "model.layers.1.scope=h"), HasSubstr("is another layer's"));

  const std::string text = job_file(dir,
                                    "    - {type: embedding, vocabulary: 100, units: 8}\n"
                                    "    - {type: lstm, units: 8}\n"
                                    "    - {type: dense, units: 100, each_step: true}\n",
                                    "data: {train: {type: text, file: none, vocabulary: 100, steps: 5}}");
  output_of({"config", text});
  EXPECT_THAT(refusal(text, "model.layers.0.vocabulary=99"),
              HasSubstr("has rows for 99 ids, but the samples have 100"));
  EXPECT_THAT(refusal(text, "model.layers.2.each_step=false"),
              HasSubstr("give the dense layer each_step: true"));
  EXPECT_THAT(
      refusal(text, "data.test={type: text, file: none, vocabulary: 100, steps: 5, test_fraction: 0.2}"),
      HasSubstr("test_fraction is 0.2, but 0.1 for the same file in data.train"));

  const std::string fashion =
      job_file(dir, kDenseLayers, "data: {train: {type: fashion_mnist, folder: none}}");
  output_of({"config", fashion});
  EXPECT_THAT(refusal(fashion, "model.layers.1.units=9"), HasSubstr("the last layer has 9 outputs"));
}

TEST(CheckedWithoutData, ABatchThatIsTooSmallForItsLogicalWorkers) {
  const ScratchDir dir;
  const std::string file =
      job_file(dir, "    - {type: flatten}\n    - {type: batch_norm}\n    - {type: dense, units: 10}\n");
  output_of({"config", file});
  // Each pixel of an image is a row.
  output_of(Args{"config", file} +
            set({"cluster.logical_workers=40",
                 "model.layers=[{type: conv2d, filters: 2, kernel: [3]}, {type: batch_norm}, "
                 "{type: dense, units: 10}]"}));
  const Ended ended = run(varscope(Args{"config", file} + set({"cluster.logical_workers=40"})));
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_THAT(ended.err, HasSubstr("train.batch 40 in 40 logical workers leaves 1"));
  // One value is asked for by scripts, which go on with a command that says more.
  EXPECT_EQ(output_of(Args{"config", file, "--get", "train.batch"} + set({"cluster.logical_workers=40"})),
            "40\n");
}

// Keys of a table, whatever its files hold.
const Mistake kTableMistakes[] = {
    {"Transform", "data.train.schema.features.x.transform=standardise",
     ": data.train: schema.features.x.transform: expected one of none, log1p, standardize, min_max, got "
     "\"standardise\"; did you mean \"standardize\"?"},
    {"Hash", "data.train.schema.features.x.hash=-1",
     "schema.features.x.hash: -1 is out of range; allowed: 0 to 16777216 (ids)"},
    {"Key", "data.train.schema.features.x.transforms=log1p",
     "schema.features.x.transforms: unknown key; did you mean \"transform\"?"},
    {"Columns", "data.train.schema.features.x.columns=[]", "schema.features.x.columns: names no column"},
    {"Label", "data.train.schema.label.type=number",
     "numbers have no classes; remove it, or say type: class"},
    {"Range", "data.train.to=0", "data.train.to: 0 is out of range"},
    {"Header", "data.train.header=yes please", "header: expected true, false or a list of names"},
    {"Delimiter", "data.train.delimiter=ab", "delimiter: expected one character, or tab"},
};
class TableCheckedWithoutData : public ::testing::TestWithParam<Mistake> {};

TEST_P(TableCheckedWithoutData, IsRefusedBeforeAnyFileIsRead) {
  const ScratchDir dir;
  const std::string file = job_file(
      dir, kDenseLayers,
      "data: {train: {type: csv, files: nowhere.csv, schema: {label: {column: y, classes: [a, b]}, features: "
      "{x: {columns: 'a..c'}}}}}");
  const Ended fine = run(varscope({"config", file}));
  EXPECT_EQ(fine.code, 0) << fine.all();
  const Ended checked = run(varscope(Args{"config", file} + set({GetParam().set})));
  EXPECT_EQ(checked.code, 2) << checked.all();
  EXPECT_THAT(checked.err, HasSubstr(GetParam().words));
  EXPECT_THAT(checked.err, HasSubstr("data.train")) << "where";
}
INSTANTIATE_TEST_SUITE_P(All, TableCheckedWithoutData, ::testing::ValuesIn(kTableMistakes),
                         [](const auto& info) { return std::string(info.param.name); });

// --- explanations

TEST(Explain, PrintsOneSectionOnly) {
  for (const std::string section :
       {"job", "cluster", "train", "checkpoint", "optimizer", "optimizer.schedule", "output"}) {
    const std::string text = output_of({"config", "--explain", section});
    EXPECT_EQ(output_of({"config", "--explain=" + section}), text);
    EXPECT_TRUE(text.starts_with(section + ": section")) << text;
    int n = 0;
    for (const std::string& line : lines_of(text)) {
      if (line.empty() || line.starts_with(" ")) continue;
      EXPECT_TRUE(line.starts_with(section + ".") || line.starts_with(section + ": ")) << line;
      ++n;
    }
    EXPECT_GE(n, 3) << text;
  }
  const std::string key = output_of({"config", "--explain", "train.batch"});
  EXPECT_TRUE(key.starts_with("train.batch: an integer, default 128")) << key;
  EXPECT_EQ(lines_of(key).size(), 2U) << key;
}

TEST(Explain, KnowsLayersAndWhatTheirKeysTake) {
  const std::string dense = output_of({"config", "--explain", "dense"});
  EXPECT_TRUE(dense.starts_with("type: dense\n")) << dense;
  EXPECT_THAT(dense, HasSubstr("\nmodel.layers[type=dense].reuse: a text, default no\n"));
  EXPECT_THAT(dense, Not(HasSubstr("conv2d")));
  EXPECT_THAT(output_of({"config", "--explain", "layers"}), HasSubstr("\ntype: lstm\n"));
  EXPECT_THAT(output_of({"config", "--explain", "block"}), StartsWith("model.layers[block].initializer: "));
  for (const std::string word : {"initializer", "regularizer", "constraint", "partitioner", "compression"})
    EXPECT_THAT(output_of({"config", "--explain", word}), StartsWith(word + ".type: one of "));
}

TEST(Explain, SaysKeysOfLayersAndDataSourcesOnce) {
  const std::string all = output_of({"config", "--explain"});
  const auto count = [&](const std::string& words) {
    int n = 0;
    for (std::size_t at = all.find(words); at != std::string::npos; at = all.find(words, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count("IDX file with the images"), 1);
  EXPECT_EQ(count("whether a bias is added to the outputs"), 1);
  EXPECT_EQ(count("].reuse: a text, default no\n    no: new variables. auto"), 1);
  EXPECT_EQ(count("its keys are those of data.train"), 1);
  EXPECT_EQ(count("]: the words of a text"), 1);
  EXPECT_EQ(count("partitioner, compression: as all layers with variables\n"), 7)
      << "dense, conv2d, embedding, lstm, gru, cross, factorization_machine";
  // Who asks for the other source has its keys.
  const std::string test = output_of({"config", "--explain", "data.test"});
  EXPECT_THAT(test, StartsWith("data.test: section (optional)\n"));
  EXPECT_THAT(test, HasSubstr("\ndata.test[type=idx].images: a text, required"));
  EXPECT_THAT(test, Not(HasSubstr("data.train.")));
  // A type by its name, and a key that only some types have.
  EXPECT_THAT(
      output_of({"config", "--explain", "idx"}),
      AllOf(StartsWith("data.train[type=idx]: images and labels in IDX files"), Not(HasSubstr("noise"))));
  EXPECT_THAT(output_of({"config", "--explain", "data.train.noise"}),
              StartsWith("data.train[type=digits].noise: a number, default 0.25"));
  EXPECT_THAT(output_of({"config", "--explain", "staleness"}), StartsWith("cluster.staleness: "));
  EXPECT_THAT(output_of({"config", "--explain", "drain_every_steps"}),
              StartsWith("cluster.drain_every_steps: "));
  const std::string everywhere = output_of({"config", "--explain", "learning_rate"});
  EXPECT_THAT(everywhere, HasSubstr("optimizer.learning_rate: "));
  EXPECT_THAT(run(varscope({"config", "--explain=idz"})).err, HasSubstr("did you mean \"idx\"?"));
}

TEST(Explain, RefusesWhatIsNoSection) {
  const Ended ended = run(varscope({"config", "--explain", "trian"}));
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_THAT(
      ended.err,
      StartsWith("varscope: config --explain: there is no \"trian\"; did you mean \"train\"?; there are the "
                 "sections checkpoint, cluster, data, job, model, "));
  EXPECT_THAT(run(varscope({"config", "--explain=lstn"})).err, HasSubstr("did you mean \"lstm\"?"));
}

// --- paths

TEST(Paths, OfTheConfigAreExpandedBeforeAnythingIsMade) {
  const ScratchDir dir;
  const std::string file = job_file(dir);
  const auto with_home = [&](Command command) {
    command.environment = {{"HOME", dir / "home"}, {"WHERE", dir / "where"}};
    return command;
  };
  const Args tiny = set({"train.max_steps=1", "data.test="});
  const Args at_home = Args{"train", file} + tiny + set({"job.run_dir=~/r"});
  ASSERT_EQ(run(with_home(varscope(at_home))).code, 0);
  EXPECT_TRUE(std::filesystem::exists(dir / "home/r/checkpoints/step-000000001"));
  const Args elsewhere = Args{"train", file} + tiny + set({"checkpoint.dir=${WHERE}/$WHERE_$$x"});
  const Ended unset = run(with_home(varscope(elsewhere)));
  EXPECT_EQ(unset.code, 2) << unset.all();
  EXPECT_THAT(unset.errors(),
              ElementsAre(HasSubstr("checkpoint.dir: \"${WHERE}/$WHERE_$$x\": the environment has no "
                                    "variable WHERE_; set it, or write $$ for a dollar sign")));
  // Ranks have what rank 0 has found, whatever their own environment is.
  const Args ranks = Args{"train", file} + tiny + set({"checkpoint.dir=${WHERE}/$$x"});
  const Ended ended = run(mpirun({{1, {"/usr/bin/env", "WHERE=" + (dir / "where")}, ranks}, {1, {}, ranks}}));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(std::filesystem::exists(dir / "where/$x/step-000000001"));
  EXPECT_FALSE(std::filesystem::exists("~"));
}

// --- durations

TEST(Durations, OfAnyLengthDoNotEndTheJob) {
  const ScratchDir dir;
  const std::string file = job_file(dir);
  int i = 0;
  for (const char* time : {"1e10", "1e300", "0", "off"}) {
    const std::string t = time;
    const Args args =
        Args{"train", file} +
        set({"cluster.stall_timeout_s=" + t, "cluster.step_timeout_s=" + t, "checkpoint.timeout_s=" + t,
             "checkpoint.every_seconds=" + t, "checkpoint.keep_every_hours=" + t,
             "checkpoint.mean_time_between_failures_s=" + t, "job.run_dir=" + (dir / std::to_string(++i))});
    const Summary alone = train(varscope(args));
    EXPECT_EQ(alone.step, 2) << time;
    EXPECT_EQ(alone.checkpoints, std::vector<std::int64_t>{2}) << time;
    EXPECT_EQ(train(mpirun(2, args + Args{"--fresh"})).hash, alone.hash) << time;
  }
}

// --- numbers of steps

TEST(Steps, DoNotOverflow) {
  const ScratchDir dir;
  const std::string file = job_file(dir);
  const Args most = set({"train.epochs=1000000000000", "train.batch=1", "data.train.samples=2000"});
  for (const char* command : {"config", "train"}) {
    const Ended ended = run(varscope(Args{command, file} + most));
    EXPECT_EQ(ended.code, 2) << ended.all();
    EXPECT_THAT(ended.errors(),
                ElementsAre(HasSubstr(
                    "train.epochs: 1000000000000 epochs of 2000 steps are more steps than are counted "
                    "(1000000000000000); lower it, or set train.max_steps")));
  }
  EXPECT_EQ(train(varscope(Args{"train", file} + most + set({"train.max_steps=2"}))).step, 2);
  const Ended servers = run(varscope(Args{"train", file} + set({"cluster.servers=1048576"})));
  EXPECT_EQ(servers.code, 2) << servers.all();
  EXPECT_THAT(servers.err,
              HasSubstr("cluster.servers: 1048576 servers would be as many threads of one process"));
}

// --- warnings

std::vector<std::string> warnings_of(const std::string& command, const std::string& file,
                                     const Args& sets = {}) {
  const Ended ended = run(varscope(Args{command, file} + sets));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.errors(), IsEmpty());
  return ended.messages();
}

// Every answer would be 1: what a logit says is its sign.
TEST(Warnings, OfASigmoidBeforeALossWithItsOwn) {
  const ScratchDir dir;
  const std::string file =
      job_file(dir, "    - {type: dense, units: 8}\n    - {type: dense, units: 1, activation: sigmoid}\n",
               "data: {train: {type: digits, samples: 80, pairs: true}}");
  for (const char* command : {"config", "train"}) {
    EXPECT_THAT(
        warnings_of(command, file, set({"model.loss=sigmoid_cross_entropy"})),
        ElementsAre(HasSubstr(":10:7: the last layer ends with sigmoid, and loss sigmoid_cross_entropy "
                              "applies sigmoid itself: ")));
  }
}

TEST(Warnings, OfWhatHardlyAnybodyMeans) {
  const ScratchDir dir;
  const std::string file = job_file(dir);
  const std::string begin = "varscope: warning: " + file;
  EXPECT_THAT(warnings_of("config", file), IsEmpty());
  const auto expect = [&](const char* assignment, const std::string& words) {
    for (const char* command : {"config", "train"}) {
      const Args sets = set({assignment}) + Args(std::string(command) == "train" ? Args{"--fresh"} : Args{});
      EXPECT_THAT(warnings_of(command, file, sets), ElementsAre(HasSubstr(words)))
          << command << " " << assignment;
    }
  };
  expect("model.layers=[{type: dense, units: 10}, {type: softmax}]",
         "the last layer ends with softmax, and loss softmax_cross_entropy applies softmax itself: ");
  expect(
      "model.layers.1.activation=sigmoid",
      begin +
          ":10:7: the last layer ends with sigmoid, and loss softmax_cross_entropy applies softmax itself: ");
  // What gives the probabilities another shape hides nothing.
  expect(
      "model.layers=[{type: dense, units: 10}, {type: activation, kind: sigmoid}, {type: reshape, shape: [10]}]",
      "the last layer ends with sigmoid, and loss softmax_cross_entropy applies softmax itself: ");
  expect("model.layers=[{type: dense, units: 10}, {type: softmax}, {type: flatten}]",
         "the last layer ends with softmax, and loss softmax_cross_entropy applies softmax itself: ");
  expect("model.layers=[{layers: [{type: dense, units: 10}], trainable: false}]",
         "model.layers: no variable is trained (trainable: false everywhere)");
  expect("model.layers=[{type: dense, scope: lost, units: 5}, {type: dense, units: 10, input: x}]",
         "the loss does not depend on variable \"lost/weights\" and 1 more: training will not change it");
  expect("model.layers.0.initializer=0.5",
         begin +
             ":9:7: all of \"h/weights\" begins as 0.5: the units of this layer would "
             "stay alike");
  expect("train.batch=81",
         "train.batch: 81 is more than the 80 samples of data.train: each step takes all of them");
  expect("cluster.logical_workers=42",
         "train.batch: 40 is less than the 42 logical workers: 2 of them never have a sample");
  EXPECT_THAT(warnings_of("plan", file, Args{"--workers", "41"}),
              ElementsAre(HasSubstr("40 is less than the 41 logical workers: 1 of them never has a sample")));
  // A layer that answers may begin with zeros.
  EXPECT_THAT(warnings_of("config", file, set({"model.layers.1.initializer=zeros"})), IsEmpty());
  EXPECT_THAT(warnings_of("graph", file, set({"model.layers.1.activation=sigmoid"})),
              ElementsAre(HasSubstr("ends with sigmoid")));
  EXPECT_THAT(warnings_of("plan", file, set({"train.batch=81"})),
              ElementsAre(HasSubstr("81 is more than the 80")));
}

TEST(Warnings, OfMoreRanksThanProcessorsOnce) {
  const ScratchDir dir;
  const std::string file = job_file(dir);
  const Args args = Args{"train", file};
  const Part on_one{3, {"/usr/bin/taskset", "-c", "0"}, args};
  const Ended ended = run(mpirun(std::vector<Part>{on_one}));
  ASSERT_EQ(ended.code, 0) << ended.all();
  int n = 0;
  for (const std::string& line : lines_of(ended.err)) {
    if (!is_warning_of_crowding(line)) continue;
    ++n;
    EXPECT_THAT(line, StartsWith("varscope: warning: 3 ranks on host "));
    EXPECT_THAT(line, HasSubstr(" share 1 processor: the result is the same, but steps take longer"));
  }
  EXPECT_EQ(n, 1) << ended.all();
}

}  // namespace
}  // namespace varscope::testing
