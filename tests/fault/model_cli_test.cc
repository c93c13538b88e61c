// What `varscope graph`, `gradcheck`, `eval`, `plan` and the options of `train` show of a model.
#include <gtest/gtest.h>

#include <algorithm>

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
  expect_words(e.err, {"cannot write", "no/such/g.dot", "No such file"});
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
  EXPECT_EQ(e.code, 3) << e.all();
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

}  // namespace
}  // namespace varscope::testing
