// What onebit and topk lose is not lost: it comes with later gradients.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "common/compression/codec.h"

namespace varscope {
namespace {

// Whether what an encoding lost is sent later, or forgotten: the counter-test.
enum class Residual : std::uint8_t { kept, forgotten };

struct Sums {
  std::vector<double> sent, wanted;
  std::vector<float> residual;
  // The Euclidean norm of what is missing, over that of the sum.
  double missing() const {
    double error = 0, size = 0;
    for (std::size_t i = 0; i < sent.size(); ++i) {
      error += (sent[i] - wanted[i]) * (sent[i] - wanted[i]);
      size += wanted[i] * wanted[i];
    }
    return std::sqrt(error / size);
  }
};

// The sums of as many gradients: each element has its own size and direction, and noise larger than these.
Sums sums_of(const Codec& codec, int n_steps, Residual how) {
  constexpr std::size_t n = 333;
  std::mt19937 random(5);
  const auto uniform = [&] { return static_cast<double>(random()) / 2147483648.0 - 1; };
  std::vector<double> direction(n);
  for (double& d : direction) d = std::pow(uniform(), 3);
  Sums sums{std::vector<double>(n), std::vector<double>(n), std::vector<float>(n)};
  std::vector<std::byte> bytes(encoded_bytes(codec.type, n, codec.ratio));
  std::vector<float> g(n), decoded(n);
  for (int step = 0; step < n_steps; ++step) {
    for (std::size_t i = 0; i < n; ++i) {
      g[i] = static_cast<float>(direction[i] + 2 * uniform());
      sums.wanted[i] += static_cast<double>(g[i]);
    }
    EXPECT_FALSE(encode_gradient(codec, g, sums.residual, bytes));
    decode_gradient(codec, bytes, decoded);
    for (std::size_t i = 0; i < n; ++i) sums.sent[i] += static_cast<double>(decoded[i]);
    if (how == Residual::forgotten) std::fill(sums.residual.begin(), sums.residual.end(), 0.0F);
  }
  return sums;
}

class CodecFeedback : public ::testing::TestWithParam<Codec> {};

TEST_P(CodecFeedback, SumsOfManyStepsComeNearTheTrueSums) {
  const double after_400 = sums_of(GetParam(), 400, Residual::kept).missing();
  const double after_4000 = sums_of(GetParam(), 4000, Residual::kept).missing();
  EXPECT_LT(after_4000, 0.05);
  EXPECT_LT(after_4000, after_400 / 3) << "what is missing does not grow with the sum";
}

TEST_P(CodecFeedback, WithoutTheResidualTheyDoNot) {
  const double kept = sums_of(GetParam(), 4000, Residual::kept).missing();
  const double forgotten = sums_of(GetParam(), 4000, Residual::forgotten).missing();
  EXPECT_GT(forgotten, 0.2);
  EXPECT_GT(forgotten, 5 * kept);
}

TEST_P(CodecFeedback, WhatWasSentAndTheResidualAreAll) {
  const Sums sums = sums_of(GetParam(), 300, Residual::kept);
  for (std::size_t i = 0; i < sums.sent.size(); ++i)
    EXPECT_NEAR(sums.sent[i] + static_cast<double>(sums.residual[i]), sums.wanted[i], 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Codecs, CodecFeedback,
                         ::testing::Values(Codec{CodecType::onebit}, Codec{CodecType::topk, 0.01},
                                           Codec{CodecType::topk, 0.1}),
                         [](const ::testing::TestParamInfo<Codec>& info) {
                           return std::string(to_string(info.param.type)) +
                                  std::to_string(static_cast<int>(info.param.ratio * 1000));
                         });

}  // namespace
}  // namespace varscope
