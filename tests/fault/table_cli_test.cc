// Jobs on tables, as a user runs them: the bundled configs reach their figures, and what is wrong is told.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <regex>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"
#include "tests/support/references/numpy_files.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The metrics of the run's last evaluation.
std::map<std::string, double> figures_of(const std::string& out) {
  std::map<std::string, double> figures;
  const std::size_t at = out.rfind("  test         ");
  if (at == std::string::npos) return figures;
  const std::string line = out.substr(at, out.find('\n', at) - at);
  const std::regex figure("([a-z_0-9]+) (-?[0-9.e+-]+)");
  for (auto i = std::sregex_iterator(line.begin(), line.end(), figure); i != std::sregex_iterator(); ++i)
    figures[(*i)[1]] = std::stod((*i)[2]);
  return figures;
}

// How many elements of a float32 variable are 0 in the run's newest checkpoint, by its safetensors file.
std::int64_t zeros_in(const std::string& run_dir, const std::string& variable) {
  const std::string file = run_dir + "/values.safetensors";
  const Ended e = run(varscope({"checkpoint", "export", run_dir + "/checkpoints", file}));
  EXPECT_EQ(e.code, 0) << e.all();
  const std::string bytes = read_text(file);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const nlohmann::json json = nlohmann::json::parse(bytes.substr(sizeof header, header));
  const std::vector<std::size_t> place = json.at(variable).at("data_offsets");
  std::vector<float> values((place.at(1) - place.at(0)) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + sizeof header + header + place[0], values.size() * sizeof(float));
  return std::ranges::count(values, 0.0F);
}

class BundledTable : public ::testing::TestWithParam<const char*> {};

TEST_P(BundledTable, ReachesItsFigures) {
  const std::string name = GetParam();
  const char* data = std::getenv("VARSCOPE_DATA");
  const std::string folder = name.substr(0, name.find('_'));
  if (data == nullptr || !std::filesystem::exists(std::filesystem::path(data) / folder))
    GTEST_SKIP() << "needs the data set " << folder << ": launch/get_data.sh " << folder;
  const ScratchDir dir;
  const Ended e = run(varscope(Args{"train", config_file(name + ".yaml")} +
                               set({"job.run_dir=" + (dir / "run"), "output.progress=off"})));
  ASSERT_EQ(e.code, 0) << e.all();
  EXPECT_TRUE(e.messages().empty()) << e.all();
  std::map<std::string, double> f = figures_of(e.out);
  if (name == "a9a_logreg") {
    EXPECT_LE(f["log_loss"], 0.326) << e.out;
    EXPECT_GE(f["accuracy"], 0.848) << e.out;
  } else if (name == "a9a_ftrl") {
    EXPECT_LE(f["log_loss"], 0.326) << e.out;
    EXPECT_GE(f["accuracy"], 0.848) << e.out;
    EXPECT_GE(zeros_in(dir / "run", "logit/weights"), 62);  // of 123: half of the weights
  } else if (name == "agaricus_logreg") {
    EXPECT_LE(f["log_loss"], 0.020) << e.out;
    EXPECT_GE(f["accuracy"], 0.999) << e.out;
  } else if (name == "higgs_mlp") {
    EXPECT_GE(f["auc"], 0.75) << e.out;
  } else {
    // By early stopping: the best epoch, not the last.
    std::smatch best;
    ASSERT_TRUE(std::regex_search(
        e.out, best, std::regex("\n  best         log_loss ([0-9.]+) after step [0-9]+: (.*)\n")))
        << e.out;
    EXPECT_LE(std::stod(best[1]), 0.50) << e.out;
    EXPECT_GT(std::stod(best[1]), 0.3) << e.out;
    EXPECT_THAT(e.out, HasSubstr("log_loss has not become better in 3 evaluations (train.stop)"));
    const Ended of_best = run(varscope(Args{"eval", config_file(name + ".yaml"), "--checkpoint", best[2]}));
    EXPECT_THAT(of_best.out, HasSubstr(fmt::format("log_loss      {}\n", best[1].str()))) << of_best.all();
  }
  // What was trained is what eval evaluates.
  const Ended evaluated =
      run(varscope(Args{"eval", config_file(name + ".yaml"), "--checkpoint", dir / "run/checkpoints"}));
  EXPECT_EQ(evaluated.code, 0) << evaluated.all();
  EXPECT_THAT(evaluated.out, HasSubstr(fmt::format("auc           {:.4f}", f["auc"])));
}
INSTANTIATE_TEST_SUITE_P(All, BundledTable,
                         ::testing::Values("a9a_logreg", "a9a_ftrl", "agaricus_logreg", "higgs_mlp",
                                           "criteo_wide_deep", "criteo_fm", "criteo_deepfm"),
                         [](const auto& info) { return std::string(info.param); });

class TableJob : public ::testing::Test {
 protected:
  Ended train(const std::string& csv, const std::string& schema, const std::string& model) const {
    write_text(dir / "t.csv", csv);
    write_text(dir / "job.yaml", "job: {name: t}\ndata:\n  train: {type: csv, files: t.csv, schema: {" +
                                     schema + "}}\n  test: {type: csv, files: t.csv}\nmodel: {" + model +
                                     "}\ntrain: {epochs: 40, batch: 8}\noptimizer: {learning_rate: 0.1}\n");
    return run(
        {{VARSCOPE_BINARY, "train", dir / "job.yaml", "--fresh", "--set", "job.run_dir=" + (dir / "run")},
         {{"VARSCOPE_DATA", dir.path()}}});
  }
  ScratchDir dir;
};

// y = 3 a - 2 b + 1 without noise: linear regression finds it.
TEST_F(TableJob, RegressionFindsTheLine) {
  std::string csv = "a,b,y\n";
  for (int row = 0; row < 8; ++row) {
    for (int column = 0; column < 8; ++column) {
      const double a = column / 8.0, b = row / 8.0;
      csv += fmt::format("{},{},{}\n", a, b, 3 * a - 2 * b + 1);
    }
  }
  const Ended e = train(csv, "label: {column: y, type: number}",
                        "loss: mean_squared_error, layers: [{type: dense, units: 1}]");
  ASSERT_EQ(e.code, 0) << e.all();
  std::map<std::string, double> f = figures_of(e.out);
  EXPECT_LT(f["rmse"], 0.05) << e.out;
  EXPECT_NEAR(f["rmse"] * f["rmse"], f["loss"], 1e-4);
}

// v of ftrl follows from its slots: these begin with what the checkpoint's values need, not with zeros.
TEST_F(TableJob, FtrlStartsWarmWithTheValuesAndTellsWhatAnotherRateDoes) {
  std::string csv = "a,b,y\n";
  for (int i = 0; i < 64; ++i) {
    const int row = i / 8;
    const double a = i % 8, b = row;
    csv += fmt::format("{},{},{}\n", a / 8, b / 8, a / 4 - b / 8);
  }
  const std::string file = dir / "job.yaml";
  ASSERT_EQ(train(csv, "label: {column: y, type: number}",
                  "loss: mean_squared_error, layers: [{type: dense, units: 1}]")
                .code,
            0);
  const auto go = [&](const std::string& where, Args more) {
    return run(
        {Args{VARSCOPE_BINARY, "train", file, "--set", "job.run_dir=" + (dir / where)} + std::move(more),
         {{"VARSCOPE_DATA", dir.path()}}});
  };
  const std::string ftrl = "optimizer={type: ftrl, l1: 0.01, learning_rate: ";
  const Ended first = go("a", set({ftrl + "0.5}"}));
  ASSERT_EQ(first.code, 0) << first.all();
  const double rmse = figures_of(first.out)["rmse"];
  EXPECT_LT(rmse, 0.1) << first.out;
  const Ended warm =
      go("b",
         set({ftrl + "1.0e-7}", "train.max_steps=1", "warm_start={from: " + (dir / "a/checkpoints") + "}"}));
  ASSERT_EQ(warm.code, 0) << warm.all();
  EXPECT_NEAR(figures_of(warm.out)["rmse"], rmse, 2e-4) << warm.out;

  const Ended resumed = go("a", Args{"--resume"} + set({ftrl + "0.4}", "train.epochs=41"}));
  ASSERT_EQ(resumed.code, 0) << resumed.all();
  EXPECT_THAT(
      resumed.err,
      HasSubstr("optimizer.learning_rate: 0.5 in the checkpoint's run, 0.4 now; the bits will differ from "
                "those of a run that was not changed; ftrl makes each value from its sums and this: it "
                "jumps at its next gradient"));
}

TEST_F(TableJob, MistakesAreToldWithFileLineAndColumn) {
  const std::string model = "loss: sigmoid_cross_entropy, layers: [{type: dense, units: 1}]";
  Ended e = train("a,y\n1,0\nx,1\n", "label: {column: y}", model);
  EXPECT_EQ(e.code, 3) << e.all();
  EXPECT_THAT(e.err, AllOf(HasSubstr("job.yaml:3:10: data.train: " + (dir / "t.csv") +
                                     ":3:1: column \"a\": expected a "
                                     "number, got \"x\"")));
  e = train("a,y\n1,0\n2,1\n", "label: {column: z}", model);
  EXPECT_EQ(e.code, 2) << e.all();
  EXPECT_THAT(e.err, HasSubstr("data.train: schema.label: the table has no column \"z\""));
  e = train("a,y\n1,0\n2,1\n", "label: {column: y, type: number}", model);
  EXPECT_EQ(e.code, 2) << e.all();
  EXPECT_THAT(e.err, HasSubstr("the labels are numbers, and sigmoid_cross_entropy is for classes"));
  e = train("a,y\n1,0\n2,1\n", "label: {column: y, type: number}",
            "loss: mean_squared_error, layers: [{type: dense, units: 3}]");
  EXPECT_THAT(e.err, HasSubstr("the samples have 1 numbers to be answered with: give it units: 1"));
  e = train("a,w,y\n1,u,0\n2,v,1\n",
            "label: {column: y}, features: {n: {columns: a}, w: {columns: w, hash: 5}}", model);
  EXPECT_THAT(e.err, HasSubstr("the samples have the inputs n, w: say which one the layer takes, input: n"));
}

// A run of words, numbers and a class, and files to predict.
class Predict : public TableJob {
 protected:
  void SetUp() override {
    std::string csv = "id,a,w,kind\n";
    for (int i = 0; i < 90; ++i) {
      const std::string row =
          fmt::format("r{},{},{},{}", i, i * 7 % 23, i % 4 == 0 ? "x" : "y", kinds_[i % 3]);
      csv += row + "\n";
      rows_.push_back(row);
    }
    const Ended e = train(
        csv,
        "label: {column: kind}, features: {a: {columns: a, transform: standardize}, w: {columns: w, "
        "vocabulary: {size: 3}}}",
        "loss: softmax_cross_entropy, layers: [{type: embedding, input: w, vocabulary: 3, units: 2}, {type: "
        "flatten, name: v}, {type: concat, inputs: [a, v]}, {type: dense, units: 33, activation: tanh}, {type: "
        "dense, units: 3}]");
    ASSERT_EQ(e.code, 0) << e.all();
    of_run_ = figures_of(e.out);
    std::filesystem::rename(dir / "t.csv", dir / "labelled.csv");  // the training data are gone
    std::filesystem::remove(dir / "job.yaml");
  }
  Ended predict(const Args& more) const { return run(varscope(Args{"predict", dir / "run"} + more)); }
  // The rows' text without the label, in this order.
  std::string unlabelled(const std::vector<std::string>& rows) const {
    std::string text = "id,a,w\n";
    for (const std::string& row : rows) text += row.substr(0, row.rfind(',')) + "\n";
    return text;
  }
  const char* kinds_[3] = {"ant", "bee", "\"the \"\"cat\"\"\""};
  std::vector<std::string> rows_;
  std::map<std::string, double> of_run_;
};

TEST_F(Predict, AnswersFromTheCheckpointAloneWithTheMetricsOfEval) {
  const Ended e = predict({"--in", dir / "labelled.csv", "--out", dir / "p.csv", "--keep", "id"});
  ASSERT_EQ(e.code, 0) << e.all();
  EXPECT_EQ(e.err, "");
  EXPECT_THAT(e.out, AllOf(HasSubstr("p.csv: 90 rows by "),
                           HasSubstr(fmt::format("loss          {:.4f}\n", of_run_["loss"])),
                           HasSubstr(fmt::format("accuracy      {:.4f}\n", of_run_["accuracy"]))));
  const std::vector<std::string> lines = lines_of(read_text(dir / "p.csv"));
  ASSERT_EQ(lines.size(), 91U);
  EXPECT_EQ(lines[0], "id,class,probability_ant,probability_bee,\"probability_the \"\"cat\"\"\"");
  EXPECT_TRUE(lines[90].starts_with("r89,")) << lines[90];
}

TEST_F(Predict, ARowHasTheSameBitsWhateverStandsBesideIt) {
  write_text(dir / "all.csv", unlabelled(rows_));
  ASSERT_EQ(predict({"--in", dir / "all.csv", "--out", dir / "all.out.csv", "--outputs", "logits"}).code, 0);
  const std::vector<std::string> all = lines_of(read_text(dir / "all.out.csv"));
  std::vector<std::string> reversed(rows_.rbegin(), rows_.rend());
  write_text(dir / "back.csv", unlabelled(reversed));
  ASSERT_EQ(predict({"--in", dir / "back.csv", "--out", dir / "back.out.csv", "--outputs", "logits"}).code,
            0);
  const std::vector<std::string> back = lines_of(read_text(dir / "back.out.csv"));
  for (std::size_t i = 1; i <= 90; ++i) EXPECT_EQ(all[i], back[91 - i]);
  for (const std::size_t i : {0U, 41U, 89U}) {
    write_text(dir / "one.csv", unlabelled({rows_[i]}));
    ASSERT_EQ(predict({"--in", dir / "one.csv", "--out", dir / "one.out.csv", "--outputs", "logits"}).code,
              0);
    EXPECT_EQ(lines_of(read_text(dir / "one.out.csv"))[1], all[i + 1]);
  }
}

TEST_F(Predict, WritesJsonToStandardOutputAndNothingElseThere) {
  write_text(dir / "in.csv", unlabelled({rows_[0], rows_[1]}));
  const Ended e = predict({"--in", dir / "in.csv", "--format", "jsonl", "--keep", "id,w"});
  EXPECT_EQ(e.code, 0) << e.all();
  const std::vector<std::string> lines = lines_of(e.out);
  ASSERT_EQ(lines.size(), 2U) << e.out;
  EXPECT_THAT(lines[0], AllOf(HasSubstr(R"({"id":"r0","w":"x","class":")"),
                              HasSubstr(R"("probability_the \"cat\"":0.)")));
  EXPECT_THAT(e.err, HasSubstr("standard output: 2 rows by "));
}

TEST_F(Predict, ReadsStandardInput) {
  write_text(dir / "in.csv", unlabelled({rows_[0]}));
  const std::string predict = fmt::format("'{}' predict '{}'", VARSCOPE_BINARY, dir / "run");
  const auto of = [&](const std::string& in, const std::string& out) {
    const std::string line = predict + " --in " + in + " --out '" + dir / out + "'";
    EXPECT_EQ(std::system(line.c_str()), 0) << line;
    return read_text(dir / out);
  };
  EXPECT_EQ(of("- < '" + dir / "in.csv" + "'", "a.csv"), of("'" + dir / "in.csv" + "'", "b.csv"));
}

TEST_F(Predict, MistakesAreToldAndLeaveNoFile) {
  const auto told = [&](const std::string& text, const Args& more, int code) {
    write_text(dir / "in.csv", text);
    const Ended e = predict(Args{"--in", dir / "in.csv", "--out", dir / "out.csv"} + more);
    EXPECT_EQ(e.code, code) << e.all();
    EXPECT_FALSE(std::filesystem::exists(dir / "out.csv"));
    return e.err;
  };
  EXPECT_THAT(told("id,w\nr0,x\n", {}, 3),
              HasSubstr("in.csv: has no column \"a\", which the training data have"));
  EXPECT_THAT(told("id,a,w\nr0,1,x\nr1,one,y\n", {}, 3),
              HasSubstr("in.csv:3:4: column \"a\": expected a number, got \"one\""));
  EXPECT_THAT(told("a,w\n", {}, 3), HasSubstr("in.csv: has no rows"));
  EXPECT_THAT(told("a,w\n1,x\n", {"--keep", "id"}, 2), HasSubstr("--keep id: "));
  EXPECT_THAT(told("a,w\n1,x\n", {"--outputs", "values"}, 2),
              HasSubstr("--outputs values: this model has classes, probabilities, logits"));
  EXPECT_THAT(told("a,w\n1,x\n", {"--set", "train.batch=3"}, 2),
              HasSubstr("--set changes keys of a config: name the config"));
  EXPECT_THAT(
      told("class,a,w\nc,1,x\n", {"--keep", "class"}, 2),
      HasSubstr("--keep class: two columns of the answers would be called so; rename it in the file"));
  EXPECT_THAT(predict({"--in", dir / "none.csv"}).err, HasSubstr("none.csv: no such file"));
  EXPECT_THAT(predict({"--in", dir / "labelled.csv", "--out", dir / "x.parquet"}).err,
              HasSubstr("predictions are written as .csv or .jsonl, .npy or .npz"));
}

TEST(PredictImages, OfAnIdxFile) {
  const ScratchDir dir;
  const Ended trained = run(varscope(
      Args{"train", config_file("digits_mlp.yaml")} +
      set({"job.run_dir=" + (dir / "run"), "train.epochs=1", "data.train.samples=300", "data.test="})));
  ASSERT_EQ(trained.code, 0) << trained.all();
  std::string images = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 16};
  images.resize(images.size() + 2 * 256, '\x30');
  write_text(dir / "images", images);
  const Ended e = run(varscope({"predict", dir / "run", "--in", dir / "images"}));
  EXPECT_EQ(e.code, 0) << e.all();
  const std::vector<std::string> lines = lines_of(e.out);
  ASSERT_EQ(lines.size(), 3U) << e.out;
  EXPECT_TRUE(lines[0].starts_with("class,probability_0,"));
  EXPECT_EQ(lines[1], lines[2]);
}

// Arrays of NumPy in, arrays out: the same figures as eval's, and the same answers as in text.
TEST(ArrayJob, TrainsEvaluatesAndPredicts) {
  const ScratchDir dir;
  std::vector<float> x;
  std::vector<std::int64_t> y;
  for (int i = 0; i < 90; ++i) {
    for (int k = 0; k < 4; ++k) x.push_back(static_cast<float>((i * (k + 3) + i % 3 * 40) % 60) / 30.0F);
    y.push_back(i % 3);
  }
  write_text(dir / "d.npz",
             zip({{"x.npy", npy("<f4", "90, 4", raw(x))}, {"y.npy", npy("<i8", "90,", raw(y))}}, true));
  write_text(dir / "x.npy", npy(">f4", "90, 4", raw(x, true)));
  write_text(dir / "job.yaml",
             "job: {name: t}\ndata:\n  train: {type: npz, file: d.npz}\n  test: {type: npz, file: d.npz}\n"
             "model: {loss: softmax_cross_entropy, layers: [{type: dense, units: 8, activation: relu}, "
             "{type: dense, units: 3}]}\ntrain: {epochs: 3, batch: 16}\n");
  const auto with_data = [&](const Args& args) {
    return run({Args{VARSCOPE_BINARY} + args, {{"VARSCOPE_DATA", dir.path()}}});
  };
  const Ended trained = with_data({"train", dir / "job.yaml", "--set", "job.run_dir=" + (dir / "run")});
  ASSERT_EQ(trained.code, 0) << trained.all();
  std::map<std::string, double> of_run = figures_of(trained.out);
  std::filesystem::rename(dir / "d.npz", dir / "rows.npz");  // predict needs no data
  const auto predict = [&](const Args& args) { return with_data(Args{"predict", dir / "run"} + args); };
  const Ended labelled = predict({"--in", dir / "rows.npz", "--out", dir / "p.npz"});
  ASSERT_EQ(labelled.code, 0) << labelled.all();
  EXPECT_THAT(labelled.out, AllOf(HasSubstr("p.npz: 90 rows by "),
                                  HasSubstr(fmt::format("loss          {:.4f}\n", of_run["loss"]))));
  const Ended plain = predict({"--in", dir / "x.npy", "--out", dir / "p.npy"});
  ASSERT_EQ(plain.code, 0) << plain.all();
  EXPECT_THAT(plain.out, ::testing::Not(HasSubstr("loss")));
  ASSERT_EQ(predict({"--in", dir / "x.npy", "--out", dir / "p.csv"}).code, 0);
  ASSERT_EQ(predict({"--in", dir / "x.npy", "--out", dir / "l.npy", "--outputs", "logits"}).code, 0);

  // An independent reading of what was written.
  const std::string bytes = read_text(dir / "p.npy"), dict = bytes.substr(10, 118);
  EXPECT_THAT(dict, HasSubstr("'descr': '<f4', 'fortran_order': False, 'shape': (90, 3)"));
  ASSERT_EQ(bytes.size(), 128U + 90 * 3 * 4);
  const std::vector<std::string> lines = lines_of(read_text(dir / "p.csv"));
  for (std::size_t i = 0; i < 90; ++i) {
    float p[3];
    std::memcpy(p, bytes.data() + 128 + i * 12, sizeof p);
    EXPECT_THAT(lines[i + 1], ::testing::EndsWith(fmt::format(",{},{},{}", p[0], p[1], p[2])));
  }
  constexpr const char* kPython = "PATH=/usr/bin:$PATH python3";
  if (std::system(fmt::format("{} -c 'import numpy' 2>/dev/null", kPython).c_str()) == 0) {
    const std::string check = fmt::format(
        "cd {} && {} -c \"import numpy as n; a = n.load('p.npz'); p = n.load('p.npy'); l = n.load('l.npy'); "
        "e = n.exp(l - l.max(1, keepdims=True)); assert sorted(a.files) == ['classes', 'probabilities']; "
        "assert (a['probabilities'] == p).all() and a['classes'].dtype == n.int32; "
        "assert (a['classes'] == p.argmax(1)).all(); "
        "assert n.allclose(e / e.sum(1, keepdims=True), p, atol=1e-6)\"",
        dir.path(), kPython);
    EXPECT_EQ(std::system(check.c_str()), 0);
  }
  const auto told = [&](const Args& args, int code) {
    const Ended e = predict(args);
    EXPECT_EQ(e.code, code) << e.all();
    return e.err;
  };
  EXPECT_THAT(told({"--in", dir / "x.npy", "--out", dir / "q.npy", "--keep", "id"}, 2),
              HasSubstr("--keep id: arrays of numbers have no place for it"));
  EXPECT_THAT(told({"--in", dir / "x.npy", "--out", dir / "q.npy", "--outputs", "classes,logits"}, 2),
              HasSubstr("a .npy file holds one array; say one of --outputs, or write .npz"));
  write_text(dir / "wide.npy", npy("<f4", "1, 5", raw<float>({1, 2, 3, 4, 5})));
  EXPECT_THAT(told({"--in", dir / "wide.npy", "--out", dir / "q.npy"}, 3),
              HasSubstr("wide.npy: its rows have shape [5], those of the training data [4]"));
  EXPECT_THAT(told({"--in", dir / "p.csv"}, 2),
              HasSubstr("a model of arrays predicts from .npy and .npz files"));
  EXPECT_FALSE(std::filesystem::exists(dir / "q.npy"));
  for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
}

// Colour images of bytes train a convolution, and .npy images are read as the IDX files were.
TEST(ArrayJob, ColourImagesGoIntoAConvolution) {
  const ScratchDir dir;
  std::string pixels, labels;
  for (int i = 0; i < 40; ++i) {
    for (int k = 0; k < 6 * 6 * 3; ++k) pixels += static_cast<char>(k % 3 == i % 2 ? 200 : (i * k) % 60);
    labels += static_cast<char>(i % 2);
  }
  write_text(dir / "images", idx(8, {40, 6, 6, 3}, pixels));
  write_text(dir / "labels", idx(8, {40}, labels));
  write_text(dir / "images.npy", npy("|u1", "40, 6, 6, 3", pixels));
  write_text(dir / "job.yaml",
             "job: {name: t}\ndata: {train: {type: idx, images: " + (dir / "images") +
                 ", labels: " + (dir / "labels") +
                 "}}\nmodel: {loss: softmax_cross_entropy, layers: [{type: conv2d, filters: 4, kernel: [3]}, "
                 "{type: flatten}, {type: dense, units: 2}]}\ntrain: {epochs: 4, batch: 8}\n");
  const Ended trained =
      run(varscope(Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")})));
  ASSERT_EQ(trained.code, 0) << trained.all();
  const Ended a = run(varscope({"predict", dir / "run", "--in", dir / "images"}));
  const Ended b = run(varscope({"predict", dir / "run", "--in", dir / "images.npy"}));
  ASSERT_EQ(a.code, 0) << a.all();
  ASSERT_EQ(b.code, 0) << b.all();
  EXPECT_EQ(a.out, b.out);
  EXPECT_EQ(lines_of(a.out).size(), 41U);
  write_text(dir / "labels.npy", npy("|u1", "40,", labels));
  const Ended of_npy = run(varscope(Args{"train", dir / "job.yaml"} +
                                    set({"job.run_dir=" + (dir / "npy"), "train.epochs=1",
                                         "data.train={type: npy, inputs: " + (dir / "images.npy") +
                                             ", labels: " + (dir / "labels.npy") + "}"})));
  ASSERT_EQ(of_npy.code, 0) << of_npy.all();
  EXPECT_THAT(of_npy.out, HasSubstr("\n  scale        x / 255\n"));
}

TEST(PredictText, IsRefusedWithTheReason) {
  const ScratchDir dir;
  std::string words;
  for (int i = 0; i < 600; ++i) words += fmt::format("w{} ", i * i % 17);
  write_text(dir / "t", words);
  write_text(
      dir / "job.yaml",
      "job: {name: t}\ndata: {train: {type: text, file: " + (dir / "t") +
          ", vocabulary: 20, steps: 4}}\nmodel: {loss: softmax_cross_entropy, layers: [{type: embedding, "
          "vocabulary: 20, units: 4}, {type: dense, units: 20, each_step: true}]}\ntrain: {epochs: 1, batch: 4}\n");
  ASSERT_EQ(run(varscope(Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")}))).code, 0);
  const Ended e = run(varscope({"predict", dir / "run", "--in", dir / "t"}));
  EXPECT_EQ(e.code, 2) << e.all();
  EXPECT_THAT(
      e.err,
      AllOf(HasSubstr("a model of texts does not answer rows, it goes on with words: varscope predict "),
            HasSubstr("run --generate 20 --prompt \"...\"")));
  const Ended nan =
      run(varscope({"predict", dir / "run", "--generate", "3", "--prompt", "w1", "--temperature", "nan"}));
  EXPECT_EQ(nan.code, 2) << nan.all();
  EXPECT_THAT(nan.err, HasSubstr("--temperature: expected a number from 0 to 1000000, got nan"));
}

}  // namespace
}  // namespace varscope::testing
