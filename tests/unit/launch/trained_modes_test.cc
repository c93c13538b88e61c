// What a job reports in every mode, with the real trainers.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/jobs/trainer_job.h"

namespace varscope {
namespace {

using testing::run_trainers;
using testing::TrainerJobResult;

constexpr const char* kModes[] = {"consistency: ssp, staleness: 1, dealing: static",
                                  "consistency: ssp, staleness: 3, dealing: dynamic",
                                  "consistency: asp, dealing: static",
                                  "consistency: asp, dealing: dynamic",
                                  "delay: 1",
                                  "delay: 2"};

std::string job(const std::string& cluster, const std::string& first_layer, const std::string& optimizer,
                const std::string& train) {
  return "job: {name: t}\n"
         "cluster: {servers: 2, " +
         cluster +
         "}\n"
         "data: {train: {type: digits, samples: 450, size: 12, seed: 1}, test: {type: digits, samples: 450, size: 12, seed: 1}}\n"
         "model:\n  loss: softmax_cross_entropy\n  layers:\n    - {type: flatten}\n" +
         first_layer +
         "    - {type: dense, scope: a, units: 40, activation: relu}\n"
         "    - {type: dense, scope: b, units: 10}\n"
         "optimizer: {" +
         optimizer + "}\ntrain: {batch: 64, log_every_steps: 1, " + train +
         "}\n"
         "checkpoint: {every_steps: 0, at_end: false}\n";
}

void expect_same(const BatchSums& mine, const BatchSums& bsp) {
  EXPECT_EQ(mine.loss, bsp.loss);
  EXPECT_EQ(mine.correct, bsp.correct);
  EXPECT_EQ(mine.samples, bsp.samples);
}

// At a rate that changes no value, what a step and an epoch add up to depends on nothing but their samples:
// whoever computed them, and whatever others were computing by then. The last batch of an epoch is short.
// What dropout draws belongs to the samples, too.
TEST(TrainedModes, SumStepsAndEpochsAsBspDoes) {
  const auto run = [](const char* mode) {
    return run_trainers(job(std::string("logical_workers: 4, ") + mode, "    - {type: dropout, rate: 0.3}\n",
                            "type: sgd, learning_rate: 1e-30", "epochs: 3, eval_every_epochs: 3"),
                        3);
  };
  const TrainerJobResult bsp = run("consistency: bsp");
  ASSERT_EQ(bsp.error, "");
  ASSERT_EQ(bsp.epochs.size(), 3U);
  ASSERT_EQ(bsp.evaluations.size(), 1U);
  EXPECT_EQ(bsp.epochs[1].sums.samples, 450);
  for (const char* mode : kModes) {
    SCOPED_TRACE(mode);
    const TrainerJobResult mine = run(mode);
    ASSERT_EQ(mine.error, "");
    ASSERT_EQ(mine.steps.size(), bsp.steps.size());
    for (std::size_t i = 0; i < bsp.steps.size(); ++i) {
      EXPECT_EQ(mine.steps[i].clock, bsp.steps[i].clock);
      EXPECT_EQ(mine.steps[i].epoch, bsp.steps[i].epoch);
      expect_same(mine.steps[i].sums, bsp.steps[i].sums);
    }
    ASSERT_EQ(mine.epochs.size(), bsp.epochs.size());
    for (std::size_t i = 0; i < bsp.epochs.size(); ++i) {
      EXPECT_EQ(mine.epochs[i].clock, bsp.epochs[i].clock);
      expect_same(mine.epochs[i].sums, bsp.epochs[i].sums);
    }
    ASSERT_EQ(mine.evaluations.size(), 1U);
    expect_same(mine.evaluations.back().sums, bsp.evaluations.back().sums);
  }
}

// There is one set of averages, on the servers, which each push moves: what they come to after some epochs is
// what BSP's come to, so that evaluations, which use them, find as much.
TEST(TrainedModes, LearnWithBatchNorm) {
  const auto run = [](const char* mode) {
    std::string text = job(std::string("logical_workers: 3, ") + mode,
                           "    - {type: dense, scope: z, units: 40}\n"
                           "    - {type: batch_norm, scope: bn, momentum: 0.8}\n",
                           "type: sgd, learning_rate: 0.1", "epochs: 4, eval_every_epochs: 2");
    text.replace(text.find("samples: 450"), 12, "samples: 4500");
    return run_trainers(text, 3);
  };
  const auto loss = [](const TrainerJobResult& r) {
    const BatchSums& sums = r.evaluations.back().sums;
    return sums.loss / static_cast<double>(sums.samples);
  };
  const TrainerJobResult bsp = run("consistency: bsp");
  ASSERT_EQ(bsp.error, "");
  ASSERT_LT(loss(bsp), 1.2);
  for (const char* mode : kModes) {
    SCOPED_TRACE(mode);
    const TrainerJobResult mine = run(mode);
    ASSERT_EQ(mine.error, "");
    EXPECT_EQ(mine.evaluations.size(), 2U);
    EXPECT_NEAR(loss(mine), loss(bsp), 0.25 * loss(bsp));
  }
}

// Whoever is late: the sums are of the samples that count, and nothing else is left out.
TEST(TrainedModes, WithBackupWorkersCountWhatIsDropped) {
  for (const char* compression : {"none", "fp16", "{type: bf16, values: bf16}"}) {
    std::string text = job("backup_workers: 2, logical_workers: 4", "", "type: sgd, learning_rate: 0.1",
                           "epochs: 4, eval_every_epochs: 1");
    text.replace(text.find("model:\n"), 7, std::string("model:\n  compression: ") + compression + "\n");
    const TrainerJobResult mine = run_trainers(text, 4);
    ASSERT_EQ(mine.error, "") << compression;
    ASSERT_EQ(mine.steps.size(), 32U);
    std::int64_t n_dropped = 0, n_counted = 0;
    for (const StepSummary& s : mine.steps) {
      n_dropped += s.dropped.samples;
      n_counted += s.sums.samples;
      EXPECT_LE(s.dropped.workers.size(), 2U);
    }
    EXPECT_EQ(n_dropped + n_counted, 4 * 450);
    EXPECT_EQ(mine.finish.dropped->samples, n_dropped);
    EXPECT_EQ(mine.evaluations.size(), 4U);
    EXPECT_LT(mine.epochs.back().sums.loss / static_cast<double>(mine.epochs.back().sums.samples),
              mine.epochs.front().sums.loss / static_cast<double>(mine.epochs.front().sums.samples));
  }
}

}  // namespace
}  // namespace varscope
