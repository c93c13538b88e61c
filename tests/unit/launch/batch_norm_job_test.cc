// The moving averages of batch_norm after a job's steps, against statistics computed here from the data.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "launch/commands/train.h"
#include "launch/job/load_config.h"
#include "launch/job/loaded_model.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "worker/data/order.h"
#include "worker/data/source_registry.h"

namespace varscope {
namespace {

using testing::TempDir;

constexpr double kMomentum = 0.6;

struct Moving {
  std::vector<double> mean, variance;
};

class BatchNormJob : public ::testing::Test {
 protected:
  // Trains for so many steps, and returns the averages of the checkpoint at the end.
  Moving train(std::int64_t samples, std::int64_t batch, std::int64_t parts, std::int64_t steps) {
    const std::string run_dir = dir_ / fmt::format("run-{}", n_runs_++);
    const std::string config = run_dir + ".yaml";
    testing::spit(
        config,
        fmt::format(
            "job: {{name: bn, run_dir: {}}}\ncluster: {{logical_workers: {}}}\n"
            "data: {{train: {{type: digits, samples: {}, size: 8}}}}\nmodel:\n  dtype: float64\n  layers:\n"
            "    - {{type: flatten}}\n    - {{type: batch_norm, scope: bn, momentum: {}}}\n"
            "    - {{type: dense, units: 10}}\n  loss: softmax_cross_entropy\n"
            "train: {{batch: {}, epochs: 1, max_steps: {}, shuffle: false}}\n"
            "output: {{metrics: false, progress: off}}\n",
            run_dir, parts, samples, kMomentum, batch, steps));
    TrainOptions options;
    options.config = config;
    ::testing::internal::CaptureStdout();  // what a run prints is not of interest here
    PosixFs fs;
    train_in_one_process(options, LayerRegistry::built_in(), fs);
    ::testing::internal::GetCapturedStdout();
    job_ = load_config(config, {});
    LoadedModel loaded = LoadedModel::open(job_);
    EXPECT_EQ(loaded.step(), steps);
    const auto values = [&](const char* name) {
      const auto v = loaded.session().value(*loaded.store().find(name)).as<double>();
      return std::vector<double>(v.begin(), v.end());
    };
    return {values("bn/moving_mean"), values("bn/moving_variance")};
  }
  // What one step makes of the averages: parts of two rows and more bring their statistics, each weighed by
  // its share of the batch; one of a single row brings what is there.
  void step(Moving& moving, const Dataset& data, Range batch, std::int64_t parts) const {
    const auto n = static_cast<std::size_t>(data.size()), c = moving.mean.size();
    Tensor x(DType::float64, {data.size(), 8, 8}), y(DType::int32, {data.size()});
    std::vector<std::int64_t> all(n);
    for (std::size_t i = 0; i < n; ++i) all[i] = static_cast<std::int64_t>(i);
    data.fill(all, x.view(), y.view());
    const auto at = [&](std::int64_t row, std::size_t k) {
      return x.as<double>()[static_cast<std::size_t>(row) * c + k];
    };
    for (std::size_t k = 0; k < c; ++k) {
      double mean_of_parts = 0, variance_of_parts = 0;
      for (int p = 0; p < parts; ++p) {
        const Range rows = logical_range(batch.begin, batch.end, p, static_cast<int>(parts));
        const double share = static_cast<double>(rows.size()) / static_cast<double>(batch.size());
        double mean = moving.mean[k], variance = moving.variance[k];
        if (rows.size() > 1) {
          mean = variance = 0;
          for (std::int64_t r = rows.begin; r < rows.end; ++r)
            mean += at(r, k) / static_cast<double>(rows.size());
          for (std::int64_t r = rows.begin; r < rows.end; ++r)
            variance += (at(r, k) - mean) * (at(r, k) - mean) / static_cast<double>(rows.size() - 1);
        }
        mean_of_parts += share * mean;
        variance_of_parts += share * variance;
      }
      moving.mean[k] = kMomentum * moving.mean[k] + (1 - kMomentum) * mean_of_parts;
      moving.variance[k] = kMomentum * moving.variance[k] + (1 - kMomentum) * variance_of_parts;
    }
  }
  void expect_as_computed(std::int64_t samples, std::int64_t batch, std::int64_t parts) {
    const Moving found = train(samples, batch, parts, (samples + batch - 1) / batch);
    const auto data = open_source(job_.data.train, {});
    Moving moving{std::vector<double>(64, 0), std::vector<double>(64, 1)};
    for (std::int64_t begin = 0; begin < samples; begin += batch)
      step(moving, *data, {begin, std::min(begin + batch, samples)}, parts);
    for (std::size_t k = 0; k < 64; ++k) {
      EXPECT_NEAR(found.mean[k], moving.mean[k], 1e-14) << k;
      EXPECT_NEAR(found.variance[k], moving.variance[k], 1e-14) << k;
    }
  }
  TempDir dir_;
  int n_runs_ = 0;
  JobConfig job_;
};

TEST_F(BatchNormJob, AveragesAreThoseOfThePartsWeighedByTheirRows) {
  expect_as_computed(12, 6, 2);
  expect_as_computed(12, 7, 3);  // parts of 3, 2, 2; then of 2, 2, 1
}

TEST_F(BatchNormJob, PartsOfOneRowInTheLastBatchLeaveTheAveragesAlone) {
  expect_as_computed(11, 4, 2);  // parts of 2, 2; then of 2, 1
  expect_as_computed(5, 4, 2);   // then of 1, 0
  const Moving before = train(5, 4, 2, 1), after = train(5, 4, 2, 2);
  for (std::size_t k = 0; k < 64; ++k) {
    EXPECT_NEAR(after.mean[k], before.mean[k], 1e-15);
    EXPECT_NEAR(after.variance[k], before.variance[k], 1e-15);
  }
}

}  // namespace
}  // namespace varscope
