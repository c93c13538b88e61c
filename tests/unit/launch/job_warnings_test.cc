#include "launch/job/job_warnings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "common/config/yaml_reader.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(OutputWarnings, AreOfHistogramsThatNobodyWrites) {
  const auto warnings = [](const std::string& output) {
    return output_warnings(
        parse_job(read_yaml_text("job: {name: t}\ndata: {train: {type: digits}}\n"
                                 "model: {layers: [{type: dense, units: 10}], loss: softmax_cross_entropy}\n"
                                 "optimizer: {type: sgd}\noutput: " +
                                     output + "\n",
                                 "job.yaml"),
                  "job.yaml"));
  };
  EXPECT_THAT(warnings("{}"), IsEmpty());
  EXPECT_THAT(warnings("{tensorboard: true, histogram_every_steps: 10}"), IsEmpty());
  EXPECT_THAT(warnings("{histogram_every_steps: 10}"),
              ElementsAre("job.yaml:5:33: output.histogram_every_steps: no histograms are written without "
                          "output.tensorboard: true"));
}

TEST(OutputWarnings, AreOfHistogramsThatOnlyBspHas) {
  const auto warnings = [](const std::string& cluster) {
    return output_warnings(
        parse_job(read_yaml_text("job: {name: t}\ndata: {train: {type: digits}}\n"
                                 "model: {layers: [{type: dense, units: 10}], loss: softmax_cross_entropy}\n"
                                 "cluster: {" +
                                     cluster + "}\noutput: {tensorboard: true, histogram_every_steps: 10}\n",
                                 "job.yaml"),
                  "job.yaml"));
  };
  EXPECT_THAT(warnings("consistency: bsp"), IsEmpty());
  EXPECT_THAT(
      warnings("consistency: asp"),
      ElementsAre("job.yaml:5:52: output.histogram_every_steps: no histograms are written in asp: they are "
                  "of one step's values over all servers, which only cluster.consistency: bsp has"));
  EXPECT_THAT(warnings("consistency: ssp, staleness: 1"),
              ElementsAre(::testing::HasSubstr("no histograms are written in ssp: ")));
}

TEST(CrowdingWarnings, CountProcessorsThatRanksOfAHostMayUseTogether) {
  EXPECT_THAT(crowding_warnings({}, {}, 1), IsEmpty());
  EXPECT_THAT(crowding_warnings({"a", "a"}, {"0 1", "0 1"}, 1), IsEmpty());
  EXPECT_THAT(crowding_warnings({"a", "a"}, {"3", "7"}, 1), IsEmpty()) << "each is bound to its own";
  EXPECT_THAT(crowding_warnings({"a", "b"}, {"0", "0"}, 1), IsEmpty()) << "of two hosts";
  EXPECT_THAT(
      crowding_warnings({"a", "a", "b"}, {"4", "4", "0"}, 1),
      ElementsAre("2 ranks on host a share 1 processor: the result is the same, but steps take longer than "
                  "with a processor for each"));
}

TEST(CrowdingWarnings, AreOneLineForAllHostsAndCountThreads) {
  EXPECT_THAT(
      crowding_warnings({"b", "a", "b", "a", "c"}, {"0", "1", "0", "1", "1"}, 1),
      ElementsAre(::testing::StartsWith("2 ranks on host a share 1 processor, and so on 1 more host: ")));
  EXPECT_THAT(crowding_warnings({"a", "a"}, {"0 1 2", "0 1 2"}, 2),
              ElementsAre(::testing::StartsWith(
                  "2 ranks with 2 threads of OpenBLAS each on host a share 3 processors: ")));
}

TEST(CrowdingWarnings, PromiseTheSameResultInBspAlone) {
  for (const StepRule& rule : {StepRule{.consistency = Consistency::asp}, StepRule{.backups = 1}}) {
    EXPECT_THAT(
        crowding_warnings({"a", "a"}, {"4", "4"}, 1, rule),
        ElementsAre("2 ranks on host a share 1 processor: steps take longer than with a processor for each"));
  }
}

TEST(CrowdingWarnings, AreSilentWhereProcessorsAreNotKnown) {
  EXPECT_THAT(crowding_warnings({"a", "a"}, {"0", ""}, 1), IsEmpty());
  std::istringstream own(own_processors());
  int id = -1;
  EXPECT_TRUE(own >> id);
  EXPECT_GE(id, 0);
}

}  // namespace
}  // namespace varscope
