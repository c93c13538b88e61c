// Compressed gradients and values between real servers and clients, over threads of one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/transport/step_traffic.h"
#include "common/transport/wire.h"
#include "tests/support/case_stride.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::default_exchange;
using testing::Exchange;
using testing::ExchangeResult;
using ::testing::HasSubstr;
using testing::make_spec;
using testing::reference_hash;
using testing::run_over_loopback;

constexpr int kLeaves = 4;

// The variables of the exchange and one more of shape `odd`, its float32 matrices compressed. Those of more
// than `most` elements are left out.
Exchange exchange_with(const Compression& compression, const Shape& odd, std::int64_t most) {
  Exchange e = default_exchange();
  std::vector<VariableSpec> all = e.variables.variables();
  all.push_back(make_spec("large/odd", DType::float32, odd, Initializer::normal(0, 1)));
  std::erase_if(all, [&](const VariableSpec& v) { return v.shape.n_elements() > most; });
  for (VariableSpec& v : all) {
    if (v.dtype == DType::float32 && v.shape.rank() == 2) v.compression = compression;
  }
  e.variables = VariableTable(all);
  e.optimizer.type = OptimizerType::momentum;
  e.steps = 5;
  e.flush = {compression.has_residual(), 3, 0, 0, Clock(e.steps)};
  return e;
}

// One variable has two slices.
Exchange compressed_exchange(const Compression& compression) {
  return exchange_with(compression, Shape{1001, 331}, 1'000'000);
}

// Where slices do not matter: a twentieth of the work.
Exchange small_exchange(const Compression& compression) {
  return exchange_with(compression, Shape{77, 301}, 100'000);
}

Compression of_type(CodecType type, ValueForm values = ValueForm::full) {
  return {.type = type, .ratio = 0.07, .values = values, .start_step = 0};
}

std::string name_of(const ::testing::TestParamInfo<Compression>& info) {
  return (info.param.type ? to_string(*info.param.type) : std::string("none")) +
         (info.param.values == ValueForm::bf16 ? "_bf16_values" : "");
}

class CompressedExchange : public ::testing::TestWithParam<Compression> {};

INSTANTIATE_TEST_SUITE_P(Types, CompressedExchange,
                         ::testing::Values(of_type(CodecType::bf16), of_type(CodecType::fp16),
                                           of_type(CodecType::onebit), of_type(CodecType::topk),
                                           of_type(CodecType::bf16, ValueForm::bf16),
                                           of_type(CodecType::onebit, ValueForm::bf16),
                                           Compression{.values = ValueForm::bf16}),
                         name_of);

TEST_P(CompressedExchange, EqualsTheReferenceForAnyServersAndWorkers) {
  const Exchange e = compressed_exchange(GetParam());
  const std::string expected = reference_hash(e, kLeaves).hex();
  for (const auto& [n_servers, n_workers] : {std::pair{1, 1}, {1, 2}, {2, 4}, {3, 3}}) {
    if (n_servers != 2 && testing::kCaseStride > 1) continue;
    SCOPED_TRACE(::testing::Message() << n_servers << " servers, " << n_workers << " workers");
    const ExchangeResult result = run_over_loopback(e, n_servers, n_workers, kLeaves);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), expected);
    for (const Digest& d : result.worker_hash) EXPECT_EQ(d.hex(), expected) << "a worker has other values";
  }
}

TEST_P(CompressedExchange, SettlesBeforeAFlushWithTheSameBits) {
  Exchange e = small_exchange(GetParam());
  e.steps = 14;
  e.flush.every = 12;
  e.flush.last = Clock(14);
  const std::string at_once = reference_hash(e, kLeaves).hex();
  e.flush.settle = 4;
  const std::string expected = reference_hash(e, kLeaves).hex();
  EXPECT_EQ(expected != at_once, e.flush.has_residuals);
  for (const auto& [n_servers, n_workers] : {std::pair{1, 2}, {2, 4}, {3, 3}}) {
    if (n_servers != 2 && testing::kCaseStride > 1) continue;
    const ExchangeResult result = run_over_loopback(e, n_servers, n_workers, kLeaves);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), expected) << n_servers << " servers, " << n_workers << " workers";
  }
}

TEST_P(CompressedExchange, EqualsTheReferenceForManyRanks) {
  const Exchange e = small_exchange(GetParam());
  const std::string expected = reference_hash(e, 8).hex();
  for (const auto& [n_servers, n_workers] : {std::pair{4, 5}, {1, 8}, {4, 7}}) {
    if (n_workers != 5 && testing::kCaseStride > 1) continue;
    const ExchangeResult result = run_over_loopback(e, n_servers, n_workers, 8);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), expected) << n_servers << " servers, " << n_workers << " workers";
  }
}

// Norms are of the sums of what has been decoded.
TEST_P(CompressedExchange, ClippedByNormsHasTheSameBitsForAnyServersAndWorkers) {
  for (const ClipType type : {ClipType::norm, ClipType::global_norm}) {
    Exchange e = small_exchange(GetParam());
    e.optimizer.clip.type = type;
    e.optimizer.clip.limit = 0.5;
    std::optional<Digest> first;
    for (const auto& [n_servers, n_workers] : {std::pair{1, 1}, {2, 4}, {3, 3}}) {
      if (n_servers == 3 && testing::kCaseStride > 1) continue;
      const ExchangeResult result = run_over_loopback(e, n_servers, n_workers, kLeaves);
      ASSERT_EQ(result.error, "");
      if (!first) first = result.hash;
      EXPECT_EQ(*result.hash, *first) << n_servers << " servers, " << n_workers << " workers";
    }
    EXPECT_NE(*first, reference_hash(small_exchange(GetParam()), kLeaves)) << "nothing was clipped";
  }
}

TEST_P(CompressedExchange, EqualsTheReferenceForOddNumbersOfLeaves) {
  Exchange e = small_exchange(GetParam());
  e.steps = 4;
  e.flush.last = Clock(4);
  for (const int leaves : {1, 3, 7}) {
    if (leaves != 3 && testing::kCaseStride > 1) continue;
    const ExchangeResult result = run_over_loopback(e, 2, std::min(2, leaves), leaves);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), reference_hash(e, leaves).hex()) << leaves << " logical workers";
  }
}

TEST_P(CompressedExchange, MakesOtherBitsThanWithoutCompression) {
  EXPECT_NE(reference_hash(small_exchange(GetParam()), kLeaves).hex(),
            reference_hash(small_exchange({}), kLeaves).hex());
}

TEST_P(CompressedExchange, NeedsOneChunkOfMemoryOnly) {
  Exchange e = compressed_exchange(GetParam());
  e.limits = {.max_bytes = 1, .max_window = 1};
  const ExchangeResult result = run_over_loopback(e, 2, 3, kLeaves);
  ASSERT_EQ(result.error, "");
  EXPECT_EQ(result.hash->hex(), reference_hash(e, kLeaves).hex());
}

TEST_P(CompressedExchange, GoesOnFromACheckpointWithTheSameBits) {
  const testing::TempDir dir;
  Exchange e = compressed_exchange(GetParam());
  e.steps = 6;
  e.flush.last = Clock(6);
  e.flush.checkpoint_every = e.every_steps = 4;
  const std::string expected = reference_hash(e, kLeaves).hex();
  e.checkpoint_dir = dir.path();
  ExchangeResult result = run_over_loopback(e, 2, 2, kLeaves);
  ASSERT_EQ(result.error, "");
  EXPECT_EQ(result.hash->hex(), expected);
  e.first = 4;
  result = run_over_loopback(e, 1, 4, kLeaves);
  ASSERT_EQ(result.error, "");
  EXPECT_EQ(result.hash->hex(), expected);
}

// One more step sends as many bytes more.
TEST_P(CompressedExchange, SendsTheBytesThatThePlanSays) {
  for (const auto& [n_servers, n_workers] : {std::pair{1, 1}, {2, 3}}) {
    if (n_servers != 2 && testing::kCaseStride > 1) continue;
    Exchange e = compressed_exchange(GetParam());
    e.flush = {};
    const ClusterMap cluster =
        assign_roles(std::vector<std::string>(static_cast<std::size_t>(n_servers + n_workers), "host"),
                     n_servers, kLeaves);
    const StepTraffic plan = step_traffic(BucketPlan::make(e.variables, n_servers), cluster);
    const ExchangeResult before = run_over_loopback(e, n_servers, n_workers, kLeaves);
    ++e.steps;
    const ExchangeResult after = run_over_loopback(e, n_servers, n_workers, kLeaves);
    EXPECT_EQ(after.bytes_up - before.bytes_up, static_cast<std::uint64_t>(plan.up));
    EXPECT_EQ(after.bytes_down - before.bytes_down, static_cast<std::uint64_t>(plan.down));
    const bool is_rounded = GetParam().values == ValueForm::bf16;
    EXPECT_EQ(plan.down < plan.full_down, is_rounded);
  }
}

TEST_P(CompressedExchange, SendsFirstStepsInFull) {
  Compression late = GetParam();
  late.start_step = 2;
  const Exchange e = small_exchange(late);
  const ExchangeResult result = run_over_loopback(e, 2, 2, kLeaves);
  ASSERT_EQ(result.error, "");
  EXPECT_EQ(result.hash->hex(), reference_hash(e, kLeaves).hex());
  const std::string early = reference_hash(small_exchange(GetParam()), kLeaves).hex();
  EXPECT_EQ(result.hash->hex() != early, late.type.has_value());
}

// Each leaf wants values of its own, which differ more from each other than from the first values: what all
// want is their mean, and a leaf's large numbers hide its small ones.
Exchange quarrel(const Compression& compression) {
  Exchange e = compressed_exchange(compression);
  e.variables = VariableTable({make_spec("a/weights", DType::float32, Shape{64, 50})});
  std::vector<VariableSpec> all = e.variables.variables();
  all[0].compression = compression;
  e.variables = VariableTable(all);
  e.optimizer.type = OptimizerType::sgd;
  e.optimizer.learning_rate = 0.005;
  e.steps = 400;
  e.flush = {compression.has_residual(), 100, 0, 0, Clock(e.steps)};
  e.gradient = [](int, std::int64_t element, int leaf, float value) {
    const float mine = element % 10 == 0 ? 3.0F : 0.3F, wanted = element % 2 == 0 ? 1.0F : -1.0F;
    const float sign = leaf < 2 ? 1.0F : -1.0F;
    return value - wanted - sign * (leaf % 2 == 0 ? mine : 2 * mine);
  };
  return e;
}

// The root of the mean square of what is missing to what all leaves want.
double missing(const Exchange& e) {
  const ExchangeResult result = run_over_loopback(e, 1, 2, kLeaves);
  EXPECT_EQ(result.error, "");
  double sum = 0;
  const auto values = result.values.at(0).as<float>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double d = static_cast<double>(values[i]) - (i % 2 == 0 ? 1 : -1);
    sum += d * d;
  }
  return std::sqrt(sum / static_cast<double>(values.size()));
}

class Quarrel : public ::testing::TestWithParam<CodecType> {};
INSTANTIATE_TEST_SUITE_P(Types, Quarrel, ::testing::Values(CodecType::onebit, CodecType::topk));

TEST_P(Quarrel, EndsInAgreementOnlyIfNothingIsForgotten) {
  const Compression compression{.type = GetParam(), .ratio = 0.1, .start_step = 0};
  Exchange e = quarrel(compression);
  const double kept = missing(e);
  e.forgets_residuals = true;
  const double forgotten = missing(e);
  EXPECT_LT(kept, 0.02);
  EXPECT_GT(forgotten, 0.2);
}

TEST(CompressedGradients, ThatAreNotFiniteEndTheRunWithTheVariablesName) {
  for (const CodecType type : {CodecType::bf16, CodecType::fp16, CodecType::onebit, CodecType::topk}) {
    Exchange e = compressed_exchange(of_type(type));
    e.gradient = [](int variable, std::int64_t element, int leaf, float value) {
      const bool is_bad = variable == 0 && element == 100'007 && leaf == 2;
      return is_bad ? std::numeric_limits<float>::quiet_NaN() : value;
    };
    EXPECT_EQ(
        run_over_loopback(e, 1, 2, kLeaves).error,
        "not finite: step 1: the gradient of variable \"large/weights\" is nan at element 100007, so that it "
        "cannot be compressed")
        << to_string(type);
  }
}

// A worker's messages are made by hand.
std::string answer_to_push(const Compression& compression, int bucket, std::uint32_t flags) {
  const Exchange e = compressed_exchange(compression);
  const ClusterMap cluster = assign_roles({"a", "a"}, 1, 1);
  const BucketPlan plan = BucketPlan::make(e.variables, 1);
  LoopbackHub hub(2);
  const auto servers = hub.endpoint(Rank(0)), mine = hub.endpoint(Rank(1));
  testing::ExchangeServer server(*servers, cluster, e, ServerId(0));
  MessageHeader h = make_header(MessageType::push, 0, Clock(1));
  h.bucket = bucket;
  h.sequence = h.n_contributions = 1;
  h.flags = flags;
  h.n_bytes = static_cast<std::uint64_t>(plan[BucketId(bucket)].n_bytes());
  mine->send_message(Rank(0), h);
  return testing::thrown([&] { server.run(); });
}

TEST(CompressedGradients, AreRefusedWhereTheServerDoesNotCompressOrExpectsOtherBytes) {
  EXPECT_EQ(answer_to_push({}, 0, kFlagEncoded),
            "protocol: worker 0 pushed encoded gradients to bucket 0 (large), which is not compressed");
  EXPECT_THAT(answer_to_push(of_type(CodecType::bf16), 0, kFlagEncoded),
              HasSubstr("contributions to bucket 0 (large), expected"));
}

}  // namespace
}  // namespace varscope
