// What `varscope graph`, `gradcheck`, `eval`, `plan` and the options of `train` show of a model.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr const char* kHead =
    "job: {name: t}\n"
    "data: {train: {type: digits, samples: 200}, test: {type: digits, samples: 150}}\n"
    "train: {epochs: 1, batch: 40}\n";

std::string config(const ScratchDir& dir, const std::string& model, const std::string& more = "") {
  write_text(dir / "job.yaml", kHead + more + "model:\n  loss: softmax_cross_entropy\n  layers:\n" + model);
  return dir / "job.yaml";
}

constexpr const char* kModel =
    "    - scope: body\n"
    "      layers:\n"
    "        - {type: conv2d, scope: conv, filters: 4, kernel: [3], activation: relu}\n"
    "        - {type: batch_norm, scope: norm}\n"
    "    - {type: max_pool2d}\n"
    "    - {type: dropout, rate: 0.5}\n"
    "    - {type: dense, scope: out, units: 10}\n";

void expect_words(const std::string& text, std::initializer_list<const char*> words) {
  for (const char* word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " in:\n" << text;
}

TEST(GraphCommand, PrintsTheScopeTree) {
  const ScratchDir dir;
  const Ended e = run(varscope({"graph", config(dir, kModel)}));
  ASSERT_EQ(e.code, 0) << e.all();
  expect_words(e.out,
               {"the graph of training", "body/", "  conv/", "    conv2d", "[?, 16, 16, 4]", "moving average",
                "dropout_1", "parameters", "FLOPs/sample", "total: 2618 parameters"});
}

// One line after the other, as data flow: layers without a scope of their own stand between those that have
// one.
TEST(GraphCommand, ListsNodesInTheOrderOfTheNetworkWithTheirInputs) {
  const ScratchDir dir;
  const Ended e = run(varscope({"graph", config(dir, kModel)}));
  ASSERT_EQ(e.code, 0) << e.all();
  std::size_t at = 0;
  for (const char* line : {"\nx ", "\nbody/", "\n  conv/", "\n    conv2d ", "\n  norm/", "\n    batch_norm ",
                           "\nmax_pool2d ", "\ndropout_1 ", "\nout/", "\n  dense ", "\nloss "}) {
    at = e.out.find(line, at);
    ASSERT_NE(at, std::string::npos) << line << e.out;
  }
  const auto ends = [&](const std::string& node, const std::string& inputs) {
    const std::size_t begin = e.out.find(node);
    ASSERT_NE(begin, std::string::npos) << node << e.out;
    const std::string line = e.out.substr(begin, e.out.find('\n', begin + 1) - begin);
    EXPECT_TRUE(line.ends_with("  " + inputs)) << line;
  };
  ends("scope / node ", "inputs");
  ends("\n    conv2d ", "body/conv/channel, body/conv/weights, body/conv/bias");
  ends("\nmax_pool2d ", "body/norm/batch_norm");
  ends("\ndropout_1 ", "max_pool2d");
  ends("\nloss ", "out/dense, y");
}

TEST(GraphCommand, MarksAScopeThatIsEnteredAgain) {
  const ScratchDir dir;
  const Ended e = run(varscope({"graph", config(dir,
                                                "    - {type: dense, scope: a, units: 256}\n"
                                                "    - {type: dense, scope: b, units: 256}\n"
                                                "    - {type: dense, reuse: a, units: 256}\n"
                                                "    - {type: dense, scope: out, units: 10}\n")}));
  ASSERT_EQ(e.code, 0) << e.all();
  const std::size_t first = e.out.find("\na/ "), again = e.out.find("\na/ ", first + 1);
  ASSERT_NE(again, std::string::npos) << e.out;
  EXPECT_LT(e.out.find("\nb/ "), again);
  EXPECT_EQ(e.out.substr(again, e.out.find('\n', again + 1) - again), fmt::format("\n{:<36} (again)", "a/"));
  EXPECT_LT(again, e.out.find("dense_1 ", again));
}

TEST(GraphCommand, EvaluationLeavesDropoutOut) {
  const ScratchDir dir;
  const Ended e = run(varscope({"graph", config(dir, kModel), "--evaluation"}));
  ASSERT_EQ(e.code, 0) << e.all();
  EXPECT_EQ(e.out.find("dropout"), std::string::npos) << e.out;
  expect_words(e.out, {"the graph of evaluation", "accuracy"});
}

TEST(GraphCommand, WritesGraphviz) {
  const ScratchDir dir;
  const Ended e = run(varscope({"graph", config(dir, kModel), "--dot", dir / "g.dot"}));
  ASSERT_EQ(e.code, 0) << e.all();
  const std::string dot = read_text(dir / "g.dot");
  expect_words(dot, {"digraph \"t\" {", "subgraph \"cluster_body/conv\"", "label=\"[?, 16, 16, 4]\""});
  EXPECT_EQ(std::count(dot.begin(), dot.end(), '{'), std::count(dot.begin(), dot.end(), '}'));
  EXPECT_TRUE(dot.ends_with("}\n"));
}

TEST(GraphCommand, SaysWhereTheDotFileCannotBeWritten) {
  const ScratchDir dir;
  const Ended e = run(varscope({"graph", config(dir, kModel), "--dot", dir / "no/such/g.dot"}));
  EXPECT_EQ(e.code, 11) << e.all();
  expect_words(e.err, {"cannot write", "no/such/g.dot: there is no directory ", "; make it first"});
}

TEST(GradcheckCommand, AgreesForRightGradients) {
  const ScratchDir dir;
  const std::string file = config(dir, kModel);
  const Ended good = run(varscope({"gradcheck", file, "--elements", "6"}));
  EXPECT_EQ(good.code, 0) << good.all();
  expect_words(good.out, {"body/conv/weights", "body/norm/gamma", "out/bias", "all gradients agree"});
}

TEST(CheckNumerics, NamesTheOpItsLineAndTheStep) {
  const ScratchDir dir;
  const Ended e = run(varscope({"train", config(dir, kModel, "optimizer: {learning_rate: 1e+30}\n"),
                                "--check-numerics", "--set", "job.run_dir=" + (dir / "run")}));
  EXPECT_EQ(e.code, 6) << e.all();
  ASSERT_EQ(e.errors().size(), 1U) << e.all();
  expect_words(e.err, {"step ", "node \"", "job.yaml:", " made "});
}

TEST(Profile, ShowsTheShareOfBlas) {
  const ScratchDir dir;
  const Ended e =
      run(varscope({"train", config(dir, kModel), "--profile", "--set", "job.run_dir=" + (dir / "run")}));
  ASSERT_EQ(e.code, 0) << e.all();
  expect_words(e.out,
               {"profile of worker 0", "body/conv/conv2d", "backward us", "5 runs of", "of it in BLAS"});
}

TEST(EvalCommand, PrintsTheMetricsOfTheRun) {
  const ScratchDir dir;
  const std::string file = config(dir, kModel);
  const Args sets = set({"job.run_dir=" + (dir / "run"),
                         "train.metrics=[accuracy, top_3, confusion_matrix, precision, recall]"});
  const Ended trained = run(varscope(Args{"train", file} + sets));
  ASSERT_EQ(trained.code, 0) << trained.all();
  const Ended e = run(varscope(Args{"eval", file} + sets));
  ASSERT_EQ(e.code, 0) << e.all();
  expect_words(e.out, {"test samples  150", "accuracy", "top_3", "precision", "recall",
                       "confusion_matrix (a row for each label"});
  const std::string accuracy = e.out.substr(e.out.find("accuracy      ") + 14, 6);
  EXPECT_NE(trained.out.find("accuracy " + accuracy), std::string::npos) << accuracy << "\n" << trained.out;
}

// The parts of a variable are a matter of the run, not of its values.
TEST(Partitioner, MayChangeWhenARunGoesOn) {
  const ScratchDir dir;
  const std::string model =
      "    - {type: dense, scope: a, units: 12, activation: tanh PARTS}\n    - {type: dense, scope: out, "
      "units: 10}\n";
  const auto with = [&](const std::string& name, const std::string& parts) {
    std::string text = model;
    text.replace(text.find(" PARTS"), 6, parts);
    const ScratchDir at;
    const std::string file = config(dir, text, "optimizer: {type: adam, learning_rate: 0.01}\n");
    write_text(dir / name, read_text(file));
    return dir / name;
  };
  const std::string rows = with("rows.yaml", ", partitioner: {type: fixed_size, parts: 3}");
  const std::string columns = with("columns.yaml", ", partitioner: {type: fixed_size, parts: 5, axis: 1}");
  const std::string whole = with("whole.yaml", "");
  const auto loss = [&](const std::string& first, const std::string& second, const std::string& name) {
    const Args dirs = set({"job.run_dir=" + (dir / name)});
    train(varscope(Args{"train", first} + dirs + set({"train.max_steps=2"})));
    const Summary s = train(varscope(Args{"train", second, "--resume"} + dirs));
    EXPECT_EQ(s.first_step, 2);
    EXPECT_EQ(s.step, 5);
    return s.test_loss;
  };
  const double expected =
      train(varscope(Args{"train", whole} + set({"job.run_dir=" + (dir / "w")}))).test_loss;
  EXPECT_DOUBLE_EQ(loss(rows, whole, "rw"), expected);
  EXPECT_DOUBLE_EQ(loss(whole, columns, "wc"), expected);
  EXPECT_DOUBLE_EQ(loss(columns, rows, "cr"), expected);
}

// One penalty is added to the loss of a word, whatever the gradient is of.
TEST(ShownLoss, IsOfOneWordAndOnePenaltyForSumsOverStepsToo) {
  const ScratchDir dir;
  std::string words;
  for (int i = 0; i < 60; ++i) words += std::string(1, static_cast<char>('a' + i % 5)) + " ";
  write_text(dir / "words", words);
  const std::string file = dir / "job.yaml";
  // Logits of 0: each of the six words is as likely. The penalty is 0.1 * 12 * 0.5^2.
  write_text(file,
             "job: {name: t, run_dir: " + (dir / "run") + "}\ndata: {train: {type: text, file: " +
                 (dir / "words") + ", vocabulary: 6, steps: 4, test_fraction: 0}}\n" +
                 "model:\n  loss: {type: softmax_cross_entropy, sum_over_steps: false}\n  layers:\n"
                 "    - {type: embedding, vocabulary: 6, units: 2, initializer: 0.5, "
                 "regularizer: {type: l2, factor: 0.1}}\n"
                 "    - {type: dense, units: 6, each_step: true, initializer: zeros}\n"
                 "optimizer: {learning_rate: 1e-12}\ntrain: {batch: 2, epochs: 1, log_every_steps: 1}\n");
  for (const char* sums : {"false", "true"}) {
    train(varscope(Args{"train", file, "--fresh"} + set({std::string("model.loss.sum_over_steps=") + sums})));
    const std::string metrics = read_text(dir / "run/metrics.jsonl");
    const std::size_t at = metrics.find("\"loss\":");
    ASSERT_NE(at, std::string::npos) << metrics;
    EXPECT_NEAR(std::stod(metrics.substr(at + 7)), std::log(6.0) + 0.3, 1e-6) << sums;
  }
}

// IDX files of as many images of 2 x 2 as there are labels.
void write_idx(const std::string& stem, const std::vector<unsigned char>& labels) {
  const auto word = [](std::size_t n) { return std::string{0, 0, 0, static_cast<char>(n)}; };
  const std::size_t n = labels.size();
  std::string images = std::string{0, 0, 8, 3} + word(n) + word(2) + word(2);
  for (std::size_t i = 0; i < 4 * n; ++i) images += static_cast<char>(i * 37 % 256);
  write_text(stem + ".x", images);
  write_text(stem + ".y", std::string{0, 0, 8, 1} + word(n) + std::string(labels.begin(), labels.end()));
}

class Classes : public ::testing::Test {
 protected:
  void SetUp() override {
    write_idx(dir / "train", {0, 1, 1, 0, 1, 0});
    write_idx(dir / "test", {0, 2, 1});
  }
  Ended train_with(const std::string& of_train, const std::string& of_test, int outputs) const {
    write_text(
        dir / "job.yaml",
        "job: {name: t}\ndata:\n  train: {type: idx, images: train.x, labels: train.y" + of_train +
            "}\n  test: {type: idx, images: test.x, labels: test.y" + of_test +
            "}\ntrain: {epochs: 1, batch: 3}\nmodel:\n  loss: softmax_cross_entropy\n  layers: [{type: "
            "flatten}, {type: dense, scope: out, units: " +
            std::to_string(outputs) + "}]\n");
    return run(
        {{VARSCOPE_BINARY, "train", dir / "job.yaml", "--fresh", "--set", "job.run_dir=" + (dir / "run")},
         {{"VARSCOPE_DATA", dir.path()}}});
  }
  ScratchDir dir;
};

TEST_F(Classes, AModelMayHaveMoreOutputsThanTheLabelsShow) {
  for (const int outputs : {3, 10}) EXPECT_EQ(train_with("", "", outputs).code, 0) << outputs;
  EXPECT_EQ(train_with(", classes: 10", "", 10).code, 0);
  EXPECT_EQ(train_with(", classes: 3", ", classes: 3", 3).code, 0);
}

TEST_F(Classes, LabelsThatTheModelCannotAnswerAreRefused) {
  const Ended few = train_with("", "", 2);
  EXPECT_EQ(few.code, 2) << few.all();
  expect_words(few.err, {"data.test: has labels up to 2, data.train only up to 1"});
  const Ended other = train_with(", classes: 10", "", 9);
  EXPECT_EQ(other.code, 2) << other.all();
  expect_words(other.err, {"the last layer has 9 outputs, but the data has 10 classes"});
}

TEST_F(Classes, ALabelBeyondThemIsNamedWithFileAndSample) {
  const Ended of_train = train_with(", classes: 1", "", 1);
  EXPECT_EQ(of_train.code, 3) << of_train.all();
  expect_words(of_train.err, {"data.train: ", "train.y: sample 1 has label 1, but classes are 0 to 0"});
  const Ended of_test = train_with(", classes: 2", "", 2);
  EXPECT_EQ(of_test.code, 3) << of_test.all();
  expect_words(of_test.err, {"data.test: ", "test.y: sample 1 has label 2, but classes are 0 to 1"});
}

}  // namespace
}  // namespace varscope::testing
