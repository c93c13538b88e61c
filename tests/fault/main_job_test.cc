// The jobs that the bundled configs describe, at full size: Fashion-MNIST reaches the loss and accuracy that
// this model and these hyperparameters reach elsewhere, and the digits task needs its hidden layers.
#include <gtest/gtest.h>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

class FashionMlp : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_fashion_mnist()) GTEST_SKIP() << "Fashion-MNIST is not under VARSCOPE_DATA";
  }
  Args args(const Args& more) {
    return Args{"train", config_file("fashion_mlp.yaml"), "--set", "job.run_dir=" + (dir_ / "run")} + more;
  }
  ScratchDir dir_;
};

class FashionMlpSeed : public FashionMlp, public ::testing::WithParamInterface<int> {};

TEST_P(FashionMlpSeed, LearnsInFiveEpochs) {
  const Summary s = train(mpirun(3, args(set({"job.seed=" + std::to_string(GetParam())}))));
  ASSERT_EQ(s.epoch_losses.size(), 5U);
  EXPECT_GE(s.epoch_losses[4], 0.320);
  EXPECT_LE(s.epoch_losses[4], 0.342);
  EXPECT_GE(s.test_accuracy, 0.845);
  EXPECT_EQ(s.step, 5 * 469);
}

INSTANTIATE_TEST_SUITE_P(Seeds, FashionMlpSeed, ::testing::Values(1, 2, 3));

// One epoch; four logical workers, so that every cluster must end in the same bits.
TEST_F(FashionMlp, EndsInTheSameBitsOnEveryCluster) {
  const auto one_epoch = [&](int servers) {
    return args(
        set({"train.epochs=1", "cluster.logical_workers=4", "cluster.servers=" + std::to_string(servers)}) +
        Args{"--fresh"});
  };
  const Summary alone = train(varscope(one_epoch(1)));
  EXPECT_EQ(alone.step, 469);
  EXPECT_GE(alone.test_accuracy, 0.78);
  ASSERT_EQ(alone.epoch_losses.size(), 1U);
  EXPECT_LE(alone.epoch_losses[0], 0.65);
  for (const auto& [servers, workers] : {std::pair(2, 1), std::pair(3, 4)}) {
    SCOPED_TRACE(::testing::Message() << servers << " servers, " << workers << " workers");
    const Summary s = train(mpirun(servers + workers, one_epoch(servers)));
    EXPECT_EQ(s.hash, alone.hash);
    EXPECT_EQ(s.test_accuracy, alone.test_accuracy);
    EXPECT_EQ(s.epoch_losses, alone.epoch_losses);
  }
}

TEST(DigitsMlp, BeatsALinearModelByFar) {
  const auto accuracy = [](const Args& more) {
    const ScratchDir dir;
    return train(mpirun(3, Args{"train", config_file("digits_mlp.yaml"), "--set",
                                "job.run_dir=" + (dir / "run")} +
                               more))
        .test_accuracy;
  };
  const double mlp = accuracy({});
  const double linear =
      accuracy(set({"model.layers=[{type: dense, scope: output, units: 10, initializer: fan_in_uniform}]"}));
  EXPECT_GT(linear, 0.2) << "better than chance, or it is no comparison";
  EXPECT_GE(mlp, linear + 0.06);
}

}  // namespace
}  // namespace varscope::testing
