// What a user brings and takes away: a config from a file, a look at the data, the records of a run,
// evaluations and predictions of what was trained.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <regex>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// With one space where there are several.
std::string squeezed(const std::string& text) { return std::regex_replace(text, std::regex(" +"), " "); }

double figure_in(const std::string& text, const std::string& name) {
  std::smatch m;
  const std::string line = text.substr(std::min(text.size(), text.rfind("  test         ")));
  if (std::regex_search(line, m, std::regex(name + " (-?[0-9.e+-]+)"))) return std::stod(m[1]);
  ADD_FAILURE() << "no " << name << " in\n" << text;
  return std::nan("");
}

// --- init

class Init : public ::testing::Test {
 protected:
  // The config of init, trained as it is; the output of both.
  Ended init_and_train(const std::string& csv, const std::string& label, const std::string& name = "t.csv") {
    write_text(dir / name, csv);
    const Ended made = run({{"/bin/sh", "-c",
                             "cd " + dir.path() + " && " + VARSCOPE_BINARY + " init " + name + " --label '" +
                                 label + "' > job.yaml"}});
    EXPECT_EQ(made.code, 0) << made.all();
    config = text_of(dir / "job.yaml");
    Ended ended = run({{"/bin/sh", "-c", "cd " + dir.path() + " && " + VARSCOPE_BINARY + " train job.yaml"}},
                      300 * kSlowness);
    EXPECT_EQ(ended.code, 0) << ended.all() << config;
    EXPECT_TRUE(ended.messages().empty()) << ended.err;
    return ended;
  }
  ScratchDir dir;
  std::string config;
};

// Three kinds of flowers by their measures, sorted by kind, as the table of Fisher is: 50 of each.
TEST_F(Init, ATableOfFlowersTrainsAsItIs) {
  std::mt19937 random(5);
  std::string csv = "sepal_length,sepal_width,petal_length,petal_width,species\n";
  const double means[3][4] = {{5.0, 3.4, 1.5, 0.25}, {5.9, 2.8, 4.3, 1.3}, {6.6, 3.0, 5.6, 2.0}};
  const double deviations[4] = {0.45, 0.33, 0.4, 0.22};
  const char* kinds[] = {"setosa", "versicolor", "virginica"};
  for (int kind = 0; kind < 3; ++kind) {
    for (int i = 0; i < 50; ++i) {
      for (int k = 0; k < 4; ++k)
        csv +=
            fmt::format("{:.1f},", std::normal_distribution<double>(means[kind][k], deviations[k])(random));
      csv += std::string(kinds[kind]) + "\n";
    }
  }
  const Ended e = init_and_train(csv, "species", "iris.csv");
  EXPECT_THAT(
      config,
      AllOf(HasSubstr("label: {column: species}  # 3 classes: setosa 50, versicolor 50, virginica 50"),
            HasSubstr("transform: standardize"), HasSubstr("loss: softmax_cross_entropy"),
            HasSubstr("metrics: [accuracy, log_loss]"), HasSubstr("name: iris\n"),
            HasSubstr("  split: {test: 0.2}\n")));
  EXPECT_GE(figure_in(e.out, "accuracy"), 0.93) << e.out;
}

// Numbers, words, gaps, an id, a constant; a label of yes and no that follows from two of them.
TEST_F(Init, SaysWhatItTakesEachColumnFor) {
  std::mt19937 random(1);
  std::string csv = "id,age,income,city,plan,rows,bought\n";
  const char* cities[] = {"Oslo", "Rome", "Lima", "Cairo"};
  for (int i = 0; i < 400; ++i) {
    const int age = 18 + static_cast<int>(random() % 60), city = static_cast<int>(random() % 4);
    csv += fmt::format("u{}x,{},{},{},basic,{},{}\n", i * 7919 % 1009, age,
                       random() % 5 == 0 ? "NA" : std::to_string(1000 + random() % 9000), cities[city], i,
                       age > 45 || city == 2 ? "yes" : "no");
  }
  const Ended e = init_and_train(csv, "bought");
  EXPECT_THAT(config, AllOf(HasSubstr("# 2 classes: "), HasSubstr("- age "), HasSubstr("missing: mean"),
                            HasSubstr("indicator: true"), HasSubstr("; missing in "), HasSubstr("- city "),
                            HasSubstr("# 4 words: "),
                            HasSubstr("left out: id (400 different words in 400 rows: an id or a text)"),
                            HasSubstr("left out: plan (the same in all rows)"),
                            HasSubstr("left out: rows (numbers of rows)"),
                            HasSubstr("loss: sigmoid_cross_entropy"), HasSubstr("metrics: [accuracy, auc]")));
  EXPECT_GE(figure_in(e.out, "accuracy"), 0.93) << e.out;
}

// A number on a large scale, in a table without names, between semicolons.
TEST_F(Init, ANumberIsEstimatedOnItsOwnScale) {
  std::mt19937 random(2);
  std::string csv;
  for (int i = 0; i < 500; ++i) {
    const double a = static_cast<double>(random() % 1000) / 100,
                 b = static_cast<double>(random() % 1000) / 100;
    csv += fmt::format("{};{};{:.0f}\n", a, b, 250'000 + 30'000 * a - 8'000 * b);
  }
  const Ended e = init_and_train(csv, "2");
  EXPECT_THAT(config, AllOf(HasSubstr("delimiter: \";\""), HasSubstr("header: false"),
                            HasSubstr("label: {column: 2, type: number}"),
                            HasSubstr("loss: mean_squared_error"), HasSubstr("metrics: [rmse, mae, r2]")));
  EXPECT_GE(figure_in(e.out, "r2"), 0.98) << e.out;
}

TEST_F(Init, OddNamesAndRowsWithoutAnAnswerTrainToo) {
  std::string csv = "\"a\nb\",\"c: #d\",y\n";
  for (int i = 0; i < 80; ++i)
    csv += fmt::format("{},{},{}\n", i % 7 * 0.5, i % 5 * 1.25, i % 10 == 0 ? "NA" : i % 3 == 0 ? "x" : "z");
  write_text(dir / "t.csv", csv);
  const Ended made = run(varscope({"init", dir / "t.csv", "--label", "y"}));
  ASSERT_EQ(made.code, 0) << made.all();
  EXPECT_THAT(made.out, AllOf(HasSubstr("- \"a\\x0Ab\""),
                              HasSubstr("bad_records: skip            # 8 rows without a label")));
  write_text(dir / "job.yaml", made.out);
  const Ended e = run(
      varscope(Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run"), "train.epochs=2"})));
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_THAT(e.err, HasSubstr("8 of 80 records are left out (bad_records: skip)"));
}

TEST_F(Init, TellsWhatItCannotGuess) {
  write_text(dir / "t.csv", "a,b,price\n1,u,0\n2,v,1\n3,u,0\n4,v,1\n");
  const auto told = [&](const Args& more, int code) {
    const Ended e = run(varscope(Args{"init", dir / "t.csv"} + more));
    EXPECT_EQ(e.code, code) << e.all();
    EXPECT_EQ(e.out, "");
    return e.err;
  };
  EXPECT_THAT(told({}, 2), HasSubstr("--label NAME says which column is the answer; "));
  EXPECT_THAT(told({}, 2), HasSubstr("t.csv has the columns a, b, price"));
  EXPECT_THAT(told({"--label", "prize"}, 2),
              HasSubstr("--label prize: no such column; did you mean \"price\"?"));
  write_text(dir / "t.csv", "a,y\n1,s\n2,s\n");
  EXPECT_THAT(told({"--label", "y"}, 3),
              HasSubstr("--label y: all rows say the same: there is nothing to learn"));
  write_text(dir / "t.csv", "a,y\n1,p\n2,q\n3,r\n");
  EXPECT_THAT(told({"--label", "y"}, 3), HasSubstr("--label y: 3 different words in 3 rows are no classes"));
  EXPECT_THAT(run(varscope({"init", dir / "none.csv", "--label", "y"})).err,
              HasSubstr("none.csv: no such file"));
}

// --- data show

TEST(DataShow, TellsColumnsClassesAndSamplesOfATable) {
  const ScratchDir dir;
  write_text(dir / "t.csv", "id,a,w,y\nr1,1,u,no\nr2,,v,yes\nr3,5,u,no\nr4,3,x,no\n");
  write_text(
      dir / "job.yaml",
      "job: {name: t}\ndata:\n  train:\n    type: csv\n    files: t.csv\n    schema: {label: {column: y}, features: "
      "{x: {columns: a, missing: mean, indicator: true, transform: standardize}, w: {columns: w, vocabulary: {size: "
      "9}}}}\n  test: {type: csv, files: t.csv, from: 0.5}\nmodel: {loss: sigmoid_cross_entropy, layers: [{type: "
      "dense, input: x, units: 1}]}\n");
  const Ended e = run(varscope({"data", "show", dir / "job.yaml", "--rows", "2"}));
  ASSERT_EQ(e.code, 0) << e.all();
  EXPECT_EQ(e.err, "");
  const std::string out = squeezed(e.out);
  EXPECT_THAT(out, AllOf(StartsWith("data.train: csv, 4 samples, "), HasSubstr("\n the files: 4 rows\n"),
                         HasSubstr("\n a x number 1 1 3 5 3\n"), HasSubstr("\n w w words 0 3\n"),
                         HasSubstr("\n y label words 0 2\n"), HasSubstr("\n not used: id\n")));
  EXPECT_THAT(out, AllOf(HasSubstr("\n x [2] numbers a "), HasSubstr("\n a is missing 0 0.25 1 2\n"),
                         HasSubstr("\n w [1] ids below 4 w 1 3 3\n"),
                         HasSubstr("2 classes\n no 3 75.0 %\n yes 1 25.0 %\n"),
                         HasSubstr("\ndata.test: csv, 2 samples, ")));
  // Of a: mean 3, and of 1, 3, 5, 3 the deviation is sqrt(2).
  EXPECT_THAT(
      out,
      AllOf(HasSubstr("\n the first 2 samples\n 0: x [-1.414, 0] w [1] -> no\n 1: x [0, 1] w [2] -> yes\n")));
  EXPECT_EQ(run(varscope({"data", "show", dir / "job.yaml", "--rows", "0"})).out.find("the first"),
            std::string::npos);
  write_text(dir / "job.yaml",
             std::regex_replace(text_of(dir / "job.yaml"), std::regex("t\\.csv"), "none.csv"));
  EXPECT_THAT(run(varscope({"data", "show", dir / "job.yaml"})).err,
              AllOf(HasSubstr("files: none.csv: no such file"), HasSubstr(dir / "none.csv")));
}

// No double holds them.
TEST(DataShow, IdsOfRowsHaveAllTheirBits) {
  const ScratchDir dir;
  write_text(
      dir / "t.csv",
      "u,t,w,y\n18446744073709551615,-9223372036854775808|9007199254740993,a,no\n9007199254740993,,b,yes\n");
  write_text(
      dir / "job.yaml",
      "job: {name: t}\ndata:\n  train:\n    type: csv\n    files: t.csv\n    schema: {label: {column: y}, "
      "features: {u: {columns: u, ids: uint64}, t: {columns: t, ids: int64, split: '|'}, w: {columns: w, ids: "
      "string}}}\nmodel: {loss: sigmoid_cross_entropy, layers: [{type: dense, input: x, units: 1}]}\n");
  const Ended e = run(varscope({"data", "show", dir / "job.yaml", "--rows", "2"}));
  ASSERT_EQ(e.code, 0) << e.all();
  EXPECT_THAT(squeezed(e.out),
              AllOf(HasSubstr("\n u [1] ids of type uint64 u 9007199254740993 18446744073709551615 2\n"),
                    HasSubstr(" ids of type int64 all -9223372036854775808 9007199254740993 2\n"),
                    HasSubstr("\n w [1] ids of type string w 2\n"),
                    HasSubstr("\n 0: u [18446744073709551615] t [-9223372036854775808, 9007199254740993] w "
                              "[#e6c632b61e964e1f] -> no\n 1: u [9007199254740993] t [] w [#")));
  write_text(dir / "job.yaml", std::regex_replace(text_of(dir / "job.yaml"), std::regex("uint64"), "int64"));
  const Ended wrong = run(varscope({"data", "show", dir / "job.yaml"}));
  EXPECT_NE(wrong.code, 0);
  EXPECT_THAT(wrong.err, HasSubstr("t.csv:2:1: column \"u\": expected an id of type int64"));
}

TEST(DataShow, KnowsEveryTypeOfSource) {
  const ScratchDir dir;
  const auto shown = [&](const std::string& train, const std::string& model) {
    write_text(dir / "job.yaml",
               "job: {name: t}\ndata: {train: {" + train + "}}\nmodel: {" + model + "}\ntrain: {batch: 4}\n");
    const Ended e = run({{VARSCOPE_BINARY, "data", "show", dir / "job.yaml", "--rows", "1"},
                         {{"VARSCOPE_DATA", "/nowhere"}}});
    EXPECT_EQ(e.code, 0) << e.all();
    return squeezed(e.out);
  };
  const std::string dense = "loss: softmax_cross_entropy, layers: [{type: dense, units: 10}]";
  EXPECT_THAT(shown("type: digits, samples: 100, size: 8", dense),
              AllOf(HasSubstr("data.train: digits, 100 samples"), HasSubstr("x [8, 8] numbers all "),
                    HasSubstr("10 classes\n 0 "), HasSubstr("0: x [8, 8] -> "), HasSubstr("\n |")));
  write_text(dir / "l", "+1 1:0.5 3:2\n-1 2:1\n");
  EXPECT_THAT(
      shown("type: libsvm, files: l", "loss: sigmoid_cross_entropy, layers: [{type: dense, units: 1}]"),
      AllOf(HasSubstr("data.train: libsvm, 2 samples"), HasSubstr("x [3] numbers 1 0 0.25 0.5 2"),
            HasSubstr("-1 1 50.0 %"), HasSubstr("0: x [0.5, 0, 2] -> 1")));
  std::string words;
  for (int i = 0; i < 400; ++i) words += fmt::format("w{} ", i * i % 7);
  write_text(dir / "text", words);
  EXPECT_THAT(
      shown(
          "type: text, file: text, vocabulary: 20, steps: 4",
          "loss: softmax_cross_entropy, layers: [{type: embedding, vocabulary: 20, units: 2}, {type: dense, units: "
          "20, each_step: true}]"),
      AllOf(HasSubstr("data.train: text, "), HasSubstr("x [4] ids below "),
            HasSubstr("0: x [w0, w1, w4, w2] -> "
                      "w1, w4, w2, w2")));
  const std::string logit = "loss: sigmoid_cross_entropy, layers: [{type: dense, units: 1}]";
  EXPECT_THAT(shown("type: skipgram, file: text, window: 1, negatives: 1, subsample: 0", logit),
              AllOf(HasSubstr("data.train: skipgram, 718 samples"),
                    HasSubstr("a vocabulary of 4 words; 360 of 360 words"),
                    HasSubstr("0: word [w0] context [w1, w")));
  EXPECT_THAT(shown("type: synthetic, generate: ctr, samples: 100, features: 3, numbers: 2", logit),
              AllOf(HasSubstr("data.train: synthetic, 100 samples, none in memory"),
                    HasSubstr("the least log loss to expect is 0."),
                    HasSubstr("words [3] ids of type uint64 all "), HasSubstr("numbers [2] numbers all ")));
  std::string images = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4},
              labels = {0, 0, 8, 1, 0, 0, 0, 2, 0, 1};
  images.resize(images.size() + 32, '\x40');
  write_text(dir / "i", images);
  write_text(dir / "j", labels);
  EXPECT_THAT(
      shown("type: idx, images: i, labels: j", dense),
      AllOf(HasSubstr("data.train: idx, 2 samples"), HasSubstr("x [4, 4] numbers all 0.251 0.251 0.251 1")));
}

// --- paths

TEST(DataPaths, AreSearchedBesideTheConfigThenWhereTheEnvironmentSays) {
  const ScratchDir dir;
  for (const char* folder : {"/configs", "/data", "/home"})
    std::filesystem::create_directory(dir.path() + folder);
  const auto samples = [&](const std::string& files, int code = 0) {
    write_text(
        dir / "configs/job.yaml",
        "job: {name: t}\ndata: {train: {type: csv, files: '" + files +
            "', schema: {label: {column: y}}}}\nmodel: {loss: sigmoid_cross_entropy, layers: [{type: dense, units: "
            "1}]}\n");
    Command c = varscope({"data", "show", dir / "configs/job.yaml"});
    c.environment = {{"VARSCOPE_DATA", dir / "data"}, {"HOME", dir / "home"}, {"WHERE", dir / "home"}};
    const Ended e = run(c);
    EXPECT_EQ(e.code, code) << e.all();
    return code == 0 ? e.out.substr(0, e.out.find(" samples")) : e.err;
  };
  write_text(dir / "configs/a.csv", "x,y\n1,0\n2,1\n");
  write_text(dir / "data/a.csv", "x,y\n1,0\n2,1\n3,1\n");
  write_text(dir / "data/b.csv", "x,y\n1,0\n2,1\n3,1\n4,0\n");
  write_text(dir / "home/c.csv", "x,y\n1,0\n2,1\n3,1\n4,0\n5,1\n");
  EXPECT_EQ(samples("a.csv"), "data.train: csv, 2");
  EXPECT_EQ(samples("b.csv"), "data.train: csv, 4");
  EXPECT_EQ(samples("b*.csv"), "data.train: csv, 4");
  EXPECT_EQ(samples("~/c.csv"), "data.train: csv, 5");
  EXPECT_EQ(samples("${WHERE}/c.csv"), "data.train: csv, 5");
  EXPECT_THAT(samples("d.csv", 3), AllOf(HasSubstr("job.yaml:2:15: data.train: files: d.csv: no such file"),
                                         HasSubstr(dir / "configs/d.csv and " + (dir / "data/d.csv"))));
  EXPECT_THAT(samples("${NOWHERE_SET}/d.csv", 2), HasSubstr("the environment has no variable NOWHERE_SET"));
}

// --- records of a run, eval of it, predictions

constexpr const char* kTable = R"(
job: {name: t}
data:
  train: {type: csv, files: t.csv, schema: {label: {column: kind}, features: {x: {columns: [a, b], transform: standardize}}}}
  test: {type: csv, files: t.csv, from: 0.5}
model:
  layers:
    - {type: dense, scope: hidden1, units: 4, activation: tanh}
    - {type: dense, scope: output, units: 3}
  loss: softmax_cross_entropy
optimizer: {learning_rate: 0.1}
train: {epochs: 4, batch: 10, log_every_steps: 5}
output: {progress: off}
)";

class UserRun : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string csv = "id,a,b,kind\n";
    for (int i = 0; i < 60; ++i)
      csv += fmt::format("r{},{},{},{}\n", i, i * 7 % 23, i * 5 % 11, (i * 7 % 23 > 11) + (i * 5 % 11 > 5));
    write_text(dir / "t.csv", csv);
    write_text(dir / "job.yaml", kTable);
  }
  Command train_command(const Args& more = {}) const {
    return varscope(Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")}) + more);
  }
  void change(const std::string& from, const std::string& to) const {
    std::string text = text_of(dir / "job.yaml");
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    write_text(dir / "job.yaml", text.replace(at, from.size(), to));
  }
  ScratchDir dir;
};

TEST_F(UserRun, ItsDirectorySaysHowItWasTrained) {
  train(train_command({"--set", "train.max_steps=12"}));
  EXPECT_THAT(names_in(dir / "run"),
              ::testing::IsSupersetOf({"checkpoints", "command.txt", "job.yaml", "log.txt"}));
  const std::string job = text_of(dir / "run/job.yaml");
  EXPECT_THAT(job, AllOf(HasSubstr("# config: " + (dir / "job.yaml") + "\n"),
                         HasSubstr("# attempt 1 of run "), HasSubstr("#   --set train.max_steps=12\n"),
                         HasSubstr("  max_steps: 12\n"), HasSubstr("files: " + (dir / "t.csv"))))
      << job;
  EXPECT_EQ(run(varscope({"config", dir / "run/job.yaml"})).code, 0) << "a config, too";
  EXPECT_THAT(text_of(dir / "run/log.txt"),
              AllOf(HasSubstr("attempt 1: "), HasSubstr("  model        "), HasSubstr("step 5/12  epoch 1"),
                    HasSubstr("evaluation after step 6"), HasSubstr("  values hash  ")));
  const std::string hash = train(train_command({"--resume"})).hash;
  EXPECT_THAT(text_of(dir / "run/job.yaml"),
              AllOf(HasSubstr("#   --set train.max_steps=12\n# attempt 2 of run "),
                    HasSubstr(": from " + (dir / "run"))));
  const std::vector<std::string> commands = lines_of(text_of(dir / "run/command.txt"));
  ASSERT_EQ(commands.size(), 2U);
  EXPECT_THAT(commands[0], AllOf(HasSubstr("attempt 1 in "), HasSubstr(" train " + (dir / "job.yaml")),
                                 HasSubstr("--set train.max_steps=12")));
  EXPECT_THAT(commands[1], HasSubstr("--resume"));
  // Nobody needs them.
  train(train_command({"--fresh", "--set", "train.max_steps=12"}));
  for (const char* name : {"job.yaml", "command.txt", "log.txt"}) {
    EXPECT_THAT(names_in(dir / "run"), ::testing::Contains(StartsWith(std::string(name) + ".old-")));
    std::filesystem::remove(dir / (std::string("run/") + name));
  }
  EXPECT_EQ(train(train_command({"--resume"})).hash, hash);
  std::filesystem::remove(dir / "run/job.yaml");
  std::filesystem::create_directory(dir / "run/job.yaml");
  const Ended e = run(train_command({"--resume", "--set", "train.epochs=5"}));
  EXPECT_EQ(e.code, 0) << e.all();
  ASSERT_EQ(e.messages().size(), 1U) << e.err;
  EXPECT_THAT(e.messages()[0], HasSubstr("job.yaml"));
}

TEST_F(UserRun, ResumeRefusesWhatValuesWouldMeanNoLongerAndTellsTheRest) {
  train(train_command({"--set", "train.max_steps=12"}));
  const Ended e = run(train_command(
      {"--resume", "--set", "model.layers.0.activation=relu", "--set", "optimizer.learning_rate=0.2"}));
  EXPECT_EQ(e.code, 4) << e.all();
  EXPECT_THAT(e.err, AllOf(HasSubstr("does not fit the job, which cannot resume (1 difference)"),
                           HasSubstr("model.layers.0.activation: tanh in the checkpoint's run, relu now"),
                           HasSubstr("nothing was restored")));
  const Ended loss = run(train_command(
      {"--resume", "--set", "model.loss={type: softmax_cross_entropy, label_smoothing: 0.1}", "--set",
       "optimizer.learning_rate=0.2", "--set", "optimizer.schedule={type: cosine, decay_steps: 100}", "--set",
       "optimizer.clip={type: norm, limit: 1}"}));
  EXPECT_EQ(loss.code, 0) << loss.all();
  for (const char* line :
       {"model.loss.label_smoothing: nothing in the checkpoint's run, 0.1 now; the bits will differ",
        "optimizer.learning_rate: 0.1 in the checkpoint's run, 0.2 now",
        "optimizer.schedule.type: constant in",
        "optimizer.clip.type: none in the checkpoint's run, norm now"})
    EXPECT_THAT(loss.err, HasSubstr(line));
}

TEST_F(UserRun, EvalOfItsDirectoryIsOfWhatWasTrained) {
  train(train_command());
  const Ended by_config =
      run(varscope(Args{"eval", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")})));
  EXPECT_EQ(by_config.code, 0) << by_config.all();
  const Ended same = run(varscope({"eval", dir / "run"}));
  EXPECT_EQ(same.code, 0) << same.all();
  EXPECT_EQ(same.err, "");
  EXPECT_EQ(same.out, by_config.out);
  change("activation: tanh", "activation: relu");
  const Ended changed = run(varscope({"eval", dir / "run"}));
  EXPECT_EQ(changed.out, by_config.out);
  ASSERT_EQ(changed.messages().size(), 1U) << changed.err;
  EXPECT_THAT(changed.err,
              HasSubstr((dir / "job.yaml") + ": model.layers.0.activation: tanh in the checkpoint's run, "
                                             "relu now; what was trained is evaluated"));
  write_text(dir / "job.yaml", "broken: [");
  const Ended broken = run(varscope({"eval", dir / "run"}));
  EXPECT_EQ(broken.out, by_config.out);
  EXPECT_THAT(broken.err, HasSubstr("the config of the run cannot be read any more: "));
  std::filesystem::remove(dir / "job.yaml");
  const Ended json = run(varscope({"eval", dir / "run", "--json"}));
  ASSERT_EQ(json.code, 0) << json.all();
  const auto parsed = nlohmann::json::parse(json.out);
  EXPECT_EQ(parsed.at("samples"), 30);
  EXPECT_EQ(parsed.at("step"), 24);
  EXPECT_THAT(by_config.out,
              HasSubstr(fmt::format("loss          {:.4f}\n", parsed.at("loss").get<double>())));
  EXPECT_THAT(by_config.out,
              HasSubstr(fmt::format("accuracy      {:.4f}\n", parsed.at("accuracy").get<double>())));
  // Other files, by --set; and a checkpoint of the run by its own path.
  write_text(dir / "other.csv", "a,b,kind\n1,2,0\n20,9,2\n");
  const Ended other = run(varscope(Args{"eval", dir / "run/checkpoints"} +
                                   set({"data.test.files=" + (dir / "other.csv"), "data.test.from=0"})));
  EXPECT_THAT(squeezed(other.out), HasSubstr("test samples 2\n")) << other.all();
  std::filesystem::remove(dir / "run/job.yaml");
  const Ended gone = run(varscope({"eval", dir / "run"}));
  EXPECT_EQ(gone.code, 2) << gone.all();
  EXPECT_THAT(gone.err,
              HasSubstr("there is no job.yaml that says what to evaluate on; name the config: varscope eval "
                        "CONFIG --checkpoint "));
}

// Each cell of a CSV file's row as a number.
std::vector<double> numbers_of(const std::string& line) {
  std::vector<double> numbers;
  std::istringstream in(line);
  for (std::string cell; std::getline(in, cell, ',');) numbers.push_back(std::stod(cell));
  return numbers;
}

TEST_F(UserRun, PredictFetchesNodesAndGradients) {
  train(train_command({"--set", "model.dtype=float64"}));
  write_text(dir / "in.csv", "a,b\n3,4\n20,1\n11,10\n");
  const auto predict = [&](const Args& more) {
    const Ended e = run(varscope(Args{"predict", dir / "run", "--in", dir / "in.csv"} + more));
    EXPECT_EQ(e.code, 0) << e.all();
    return lines_of(e.out);
  };
  const std::vector<std::string> lines =
      predict({"--outputs", "logits", "--fetch", "hidden1,output", "--fetch", "x"});
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(
      lines[0],
      "logit_0,logit_1,logit_2,hidden1_0,hidden1_1,hidden1_2,hidden1_3,output_0,output_1,output_2,x_0,x_1");
  for (std::size_t i = 1; i < 4; ++i) {
    const std::vector<double> n = numbers_of(lines[i]);
    ASSERT_EQ(n.size(), 12U);
    for (int k = 0; k < 3; ++k) EXPECT_EQ(n[k], n[7 + k]) << "the output by another name";
    for (int k = 3; k < 7; ++k) EXPECT_LT(std::abs(n[k]), 1) << "tanh";
  }
  // The gradient of the answered class's logit by a is what finite differences say; a is standardized: (a -
  // mean) / deviation over the table.
  double mean = 0, squares = 0;
  for (int i = 0; i < 60; ++i) mean += i * 7 % 23 / 60.0;
  for (int i = 0; i < 60; ++i) squares += (i * 7 % 23 - mean) * (i * 7 % 23 - mean) / 60.0;
  const std::vector<std::string> of = predict({"--outputs", "logits", "--gradients"});
  EXPECT_EQ(of[0], "logit_0,logit_1,logit_2,gradient_a,gradient_b");
  constexpr double kStep = 1e-4;
  write_text(dir / "in.csv", fmt::format("a,b\n{},4\n{},4\n", 3 + kStep, 3 - kStep));
  const std::vector<std::string> near = predict({"--outputs", "logits"});
  const std::vector<double> row = numbers_of(of[1]), up = numbers_of(near[1]), down = numbers_of(near[2]);
  const auto answer = static_cast<std::size_t>(std::max_element(row.begin(), row.begin() + 3) - row.begin());
  EXPECT_NEAR(row[3], (up[answer] - down[answer]) / (2 * kStep) * std::sqrt(squares), 1e-6);
  const Ended none = run(varscope({"predict", dir / "run", "--in", dir / "in.csv", "--fetch", "hiden1"}));
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(
      none.err,
      HasSubstr("--fetch hiden1: the model has no such node; did you mean \"hidden1\"?; its layers are "
                "hidden1, output"));
  EXPECT_THAT(
      run(varscope({"predict", dir / "run", "--in", dir / "in.csv", "--fetch", "hidden1/weights"})).err,
      HasSubstr(
          "--fetch hidden1/weights: node \"hidden1/weights\" is float64 [2, 4]: it has no value for each row"));
}

TEST_F(UserRun, ExportsSayWhatModelTheyAreOf) {
  train(train_command());
  const auto exported = [&](const std::string& file) {
    const Ended e = run(varscope({"checkpoint", "export", dir / "run", dir / file}));
    EXPECT_EQ(e.code, 0) << e.all();
    return e.out;
  };
  const auto expect_model = [](const nlohmann::json& model) {
    EXPECT_EQ(model.at("inputs").at(0).at("name"), "x");
    EXPECT_EQ(model.at("inputs").at(0).at("shape"), nlohmann::json({2}));
    EXPECT_EQ(model.at("target").at("names"), nlohmann::json({"0", "1", "2"}));
    EXPECT_EQ(model.at("schema").at("inputs").at(0).at("columns").size(), 2U);
    EXPECT_THAT(model.at("config").get<std::string>(), HasSubstr("activation: tanh"));
  };
  exported("m.safetensors");
  const std::string bytes = text_of(dir / "m.safetensors");
  std::uint64_t n = 0;
  std::memcpy(&n, bytes.data(), sizeof n);
  const auto header = nlohmann::json::parse(bytes.substr(8, n));
  expect_model(nlohmann::json::parse(header.at("__metadata__").at("varscope.model").get<std::string>()));
  for (const char* file : {"m.npz", "m.ckpt"}) {
    std::filesystem::remove(dir / "m.model.json");
    EXPECT_THAT(exported(file), HasSubstr("m.model.json: what model they are of"));
    expect_model(nlohmann::json::parse(text_of(dir / "m.model.json")));
  }
}

// --- a language model

class Words : public ::testing::Test {
 protected:
  void SetUp() override {
    // After each word one of one or two: the days, in their order, and rain or sun after each.
    std::string text;
    std::mt19937 random(3);
    const char* days[] = {"monday", "tuesday", "wednesday", "thursday"};
    for (int i = 0; i < 1500; ++i)
      text += fmt::format("{} {} ", days[i % 4], random() % 2 == 0 ? "rain" : "sun");
    write_text(dir / "text", text);
    write_text(
        dir / "job.yaml",
        "job: {name: t}\ndata: {train: {type: text, file: text, vocabulary: 10, steps: 6}}\nmodel: {loss: "
        "softmax_cross_entropy, layers: [{type: embedding, vocabulary: 10, units: 8}, {type: lstm, units: 16}, {type: "
        "dense, units: 10, each_step: true}]}\noptimizer: {type: adam, learning_rate: 0.02}\ntrain: {epochs: 20, batch: "
        "10}\n");
    train(varscope(Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")})));
    std::filesystem::remove(dir / "text");
    std::filesystem::remove(dir / "job.yaml");
  }
  Ended generate(const Args& more, const std::string& prompt = "monday rain") const {
    Ended e = run(varscope(Args{"predict", dir / "run", "--generate", "8", "--prompt", prompt} + more));
    EXPECT_EQ(e.code, 0) << e.all();
    return e;
  }
  ScratchDir dir;
};

TEST_F(Words, AreWrittenFromTheCheckpointAlone) {
  const std::string likeliest = generate({"--temperature", "0"}).out;
  EXPECT_TRUE(std::regex_match(
      likeliest,
      std::regex(
          "monday rain tuesday (rain|sun) wednesday (rain|sun) thursday (rain|sun) monday (rain|sun)\n")))
      << likeliest;
  EXPECT_EQ(generate({"--temperature", "0", "--seed", "9"}).out, likeliest);
  const std::string drawn = generate({"--seed", "2"}).out;
  EXPECT_EQ(generate({"--seed", "2"}).out, drawn) << "of the seed alone";
  std::set<std::string> all;
  for (int seed = 1; seed <= 6; ++seed) all.insert(generate({"--seed", std::to_string(seed)}).out);
  EXPECT_GT(all.size(), 1U);
  EXPECT_THAT(generate({}, "monday hail").err,
              HasSubstr("not in the model's vocabulary, read as <unk>: hail"));
}

TEST_F(Words, ComeWithTheirProbabilities) {
  generate({"--temperature", "0", "--out", dir / "w.jsonl"});
  const std::vector<std::string> lines = lines_of(text_of(dir / "w.jsonl"));
  ASSERT_EQ(lines.size(), 8U);
  const auto first = nlohmann::json::parse(lines[0]), second = nlohmann::json::parse(lines[1]);
  EXPECT_EQ(first.at("word"), "tuesday");
  EXPECT_GT(first.at("probability").get<double>(), 0.8);
  EXPECT_EQ(first.at("next").at(0).at("word"), "tuesday");
  double sum = 0;
  for (const auto& word : second.at("next")) {
    if (word.at("word") == "rain" || word.at("word") == "sun") sum += word.at("probability").get<double>();
  }
  EXPECT_GT(sum, 0.9) << "one or the other";
  generate({"--out", dir / "w.csv"});
  EXPECT_THAT(lines_of(text_of(dir / "w.csv"))[0],
              StartsWith("number,word,probability,next_1,next_1_probability,"));
}

TEST_F(UserRun, OnlyLanguageModelsWriteWords) {
  train(train_command());
  const Ended e = run(varscope({"predict", dir / "run", "--generate", "3"}));
  EXPECT_EQ(e.code, 2) << e.all();
  EXPECT_THAT(
      e.err,
      HasSubstr("--generate is for language models, of data of type text; this model's are of type csv"));
  EXPECT_THAT(run(varscope({"predict", dir / "run"})).err, HasSubstr("--in FILE is missing"));
}

}  // namespace
}  // namespace varscope::testing
