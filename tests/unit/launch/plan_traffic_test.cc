// What `varscope plan` says of the bytes of a step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/yaml_reader.h"
#include "launch/commands/plan.h"
#include "worker/layers/model.h"

namespace varscope {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Two workers. Weights of 144 x 40, 23,040 bytes; weights below min_bytes and biases, together 1,800 bytes.
std::string plan_of(const std::string& compression, int n_leaves,
                    const std::string& mode = "consistency: bsp") {
  const std::string text =
      "job: {name: t}\ncluster: {" + mode + ", logical_workers: " + std::to_string(n_leaves) +
      "}\ndata: {train: {type: digits, samples: 64, size: 12}}\nmodel:\n  compression: " + compression +
      "\n  loss: softmax_cross_entropy\n  layers:\n"
      "    - {type: dense, scope: a, units: 40}\n"
      "    - {type: dense, scope: b, units: 10}\n";
  const JobConfig job = parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
  return plan_text(job, 2, 2, PlanDetail::summary, LayerRegistry::built_in());
}

TEST(PlanTraffic, CountsTheBytesOfAllWorkers) {
  const std::string plain = plan_of("none", 4);  // each worker pushes a sum of two leaves
  EXPECT_THAT(plain, HasSubstr("\nper step, all workers: 49,680 bytes up, 49,680 bytes down\n"));
  EXPECT_THAT(plain, Not(HasSubstr("compression:")));
  EXPECT_THAT(plain, Not(HasSubstr("compressed gradients")));
}

TEST(PlanTraffic, CountsCompressedLeaves) {
  EXPECT_THAT(
      plan_of("{type: bf16, values: bf16}", 2),
      HasSubstr("\nper step, all workers: 26,640 bytes up, 26,640 bytes down\n"
                "compression: bf16, bf16 values; 0.5362 of the bytes up in full (49,680), 0.5362 of those "
                "down (49,680)\n"));
  EXPECT_THAT(plan_of("bf16", 4), HasSubstr(" 49,680 bytes up, 49,680 bytes down\n"))
      << "four codes are as long as two sums in full";
  EXPECT_THAT(plan_of("onebit", 2), HasSubstr(" + 23.3 KiB (compressed gradients, and what they lose) + "));
}

// 24,840 bytes of values and of each of two gradient buffers.
TEST(PlanMemory, CountsTheSetsOfADelay) {
  EXPECT_THAT(plan_of("none", 4), HasSubstr("; a worker 72.8 KiB (values and 2 gradient buffers) + "));
  EXPECT_THAT(plan_of("none", 4, "delay: 2"),
              HasSubstr("; a worker 218.3 KiB (values and 2 gradient buffers, 3 of each: cluster.delay) + "));
  // Of codes there are two sets then, of what they lose one.
  EXPECT_THAT(plan_of("onebit", 2, "delay: 1"),
              HasSubstr(" + 24.0 KiB (compressed gradients, and what they lose) + "));
}

// Each of two workers has two copies of the values of a server: 12,160 bytes in one chunk, which takes
// 16 KiB, and 1,640, which takes 4.
TEST(PlanMemory, CountsTheCopiesThatAnswersLeaveFrom) {
  EXPECT_THAT(plan_of("none", 4), Not(HasSubstr("copies that answers leave from")));
  EXPECT_THAT(plan_of("none", 4, "consistency: asp"),
              HasSubstr(" + 80.0 KiB (copies that answers leave from) + "));
}

TEST(PlanTraffic, SaysWhichStepsItDoesNotCount) {
  const char* words = "; steps that go up in full are not in it\n";
  EXPECT_THAT(plan_of("onebit", 2), HasSubstr(words));
  EXPECT_THAT(plan_of("{type: bf16, start_step: 3}", 2), HasSubstr(words));
  EXPECT_THAT(plan_of("bf16", 2), Not(HasSubstr(words)));
}

TEST(PlanTraffic, CountsTicketsWhereEachPushIsAppliedByItself) {
  const std::string by_worker = plan_of("bf16", 4, "consistency: asp, dealing: static");
  EXPECT_THAT(by_worker, HasSubstr("\nper ticket: "));
  EXPECT_THAT(by_worker,
              HasSubstr("\nper step, all workers: 26,640 bytes up, 49,680 bytes down\n"
                        "compression: bf16; 0.5362 of the bytes up in full (49,680), 1.0000 of those down "));
  EXPECT_THAT(plan_of("bf16", 4, "consistency: asp, dealing: dynamic"),
              HasSubstr("\nper step, all workers: 53,280 bytes up, 99,360 bytes down\n"));
}

}  // namespace
}  // namespace varscope
