// Jobs on tables, as a user runs them: the bundled configs reach their figures, and what is wrong is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "tests/support/jobs/job.h"

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
  } else if (name == "agaricus_logreg") {
    EXPECT_LE(f["log_loss"], 0.020) << e.out;
    EXPECT_GE(f["accuracy"], 0.999) << e.out;
  } else if (name == "higgs_mlp") {
    EXPECT_GE(f["auc"], 0.75) << e.out;
  } else {
    EXPECT_LE(f["log_loss"], 0.50) << e.out;
    EXPECT_GT(f["log_loss"], 0.3) << e.out;
  }
  // What was trained is what eval evaluates.
  const Ended evaluated =
      run(varscope(Args{"eval", config_file(name + ".yaml"), "--checkpoint", dir / "run/checkpoints"}));
  EXPECT_EQ(evaluated.code, 0) << evaluated.all();
  EXPECT_THAT(evaluated.out, HasSubstr(fmt::format("auc           {:.4f}", f["auc"])));
}
INSTANTIATE_TEST_SUITE_P(All, BundledTable,
                         ::testing::Values("a9a_logreg", "agaricus_logreg", "higgs_mlp", "criteo_wide_deep"),
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
  for (int i = 0; i < 64; ++i)
    csv += fmt::format("{},{},{}\n", i % 8 / 8.0, i / 8 / 8.0, 3 * (i % 8 / 8.0) - 2 * (i / 8 / 8.0) + 1);
  const Ended e = train(csv, "label: {column: y, type: number}",
                        "loss: mean_squared_error, layers: [{type: dense, units: 1}]");
  ASSERT_EQ(e.code, 0) << e.all();
  std::map<std::string, double> f = figures_of(e.out);
  EXPECT_LT(f["rmse"], 0.05) << e.out;
  EXPECT_NEAR(f["rmse"] * f["rmse"], f["loss"], 1e-4);
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

}  // namespace
}  // namespace varscope::testing
