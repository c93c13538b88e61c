// The bundled configs on data that are drawn reach their figures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

// The metrics that the run ended with.
nlohmann::json trained(const ScratchDir& dir, const std::string& config, const Args& more = {}) {
  const Ended e = run(varscope(Args{"train", config_file(config)} +
                               set({"job.run_dir=" + (dir / "run"), "output.progress=off"}) + more));
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_TRUE(e.messages().empty()) << e.all();
  nlohmann::json last;
  std::ifstream lines(dir / "run/metrics.jsonl");
  for (std::string line; std::getline(lines, line);) {
    nlohmann::json parsed = nlohmann::json::parse(line);
    if (parsed.value("event", "") == "finish") last = parsed;
  }
  EXPECT_FALSE(last.is_null()) << e.all();
  return last;
}

TEST(Friedman1Job, ComesCloseToTheLeastPossibleError) {
  const ScratchDir dir;
  const nlohmann::json last = trained(dir, "friedman1_mlp.yaml");
  EXPECT_LT(last.at("rmse").get<double>(), 1.08) << last;
  // Noise of standard deviation 1 over 4,000 rows: nothing can be better.
  EXPECT_GT(last.at("rmse").get<double>(), 0.96) << last;
  EXPECT_GT(last.at("r2").get<double>(), 0.95) << last;
}

TEST(ColourShapesJob, ConvolutionsTellNineClassesOfColourImages) {
  const ScratchDir dir;
  EXPECT_GT(trained(dir, "colour_shapes_cnn.yaml").at("accuracy").get<double>(), 0.96);
}

}  // namespace
}  // namespace varscope::testing
