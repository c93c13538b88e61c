// Compressed gradients and values where each push is applied by itself (SSP, ASP). Gradients count, so that
// what is lost shows: over threads of one process.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/fs.h"
#include "common/transport/step_traffic.h"
#include "tests/support/jobs/recorded_exchange.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"
#include "worker/client/gradient_coder.h"

namespace varscope {
namespace {

using testing::counted_sum;
using testing::make_spec;
using testing::RecordedExchange;
using testing::RecordedResult;
using testing::run_exchange;
using testing::TempDir;

struct Case {
  StepRule rule;
  Compression compression;
};

const std::vector<StepRule>& rules() {
  static const std::vector<StepRule> all{{Consistency::asp, 0, Dealing::to_whoever_asks},
                                         {Consistency::asp, 0, Dealing::in_place},
                                         {Consistency::ssp, 1, Dealing::to_whoever_asks},
                                         {Consistency::ssp, 2, Dealing::in_place}};
  return all;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::vector<std::optional<CodecType>> types{std::nullopt, CodecType::bf16, CodecType::fp16,
                                                    CodecType::onebit, CodecType::topk};
  for (const StepRule& rule : rules()) {
    for (const auto& type : types) {
      for (const ValueForm values : {ValueForm::full, ValueForm::bf16})
        all.push_back({rule, {.type = type, .ratio = 0.25, .values = values, .start_step = 0}});
    }
  }
  return all;
}

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return fmt::format("{}{}_{}{}", c.rule.consistency == Consistency::asp ? "asp" : "ssp",
                     c.rule.is_dynamic() ? "_dynamic" : "_static",
                     c.compression.type ? to_string(*c.compression.type) : "none",
                     c.compression.values == ValueForm::bf16 ? "_bf16_values" : "");
}

// Half of the leaves have no samples in every fourth step: there a worker has nothing to push, but what it
// has kept back. All shares are powers of two.
RecordedExchange counting(const Case& c, const TempDir& dir) {
  RecordedExchange e{.rule = c.rule, .run_dir = dir.path(), .replay = {}};
  e.n_workers = 2;
  e.n_leaves = 4;
  e.weights = Shape{32, 1024};
  e.compression = c.compression;
  e.flush = {c.compression.has_residual(), 4, 0, 0, Clock(e.steps)};
  e.flush.settle = 2;  // halves are exact, too
  e.is_counting = true;
  return e;
}

// How many elements are not what all gradients add up to, without any loss.
int n_wrong(const RecordedExchange& e, const RecordedResult& result) {
  const double even = -counted_sum(e, 0), odd = -counted_sum(e, 1);
  int n = 0;
  for (std::size_t i = 0; i < result.weights.size(); ++i) {
    n += static_cast<double>(result.weights[i]) == (i % 2 == 0 ? even : odd) ? 0 : 1;
  }
  return result.weights.empty() ? -1 : n;
}

class CodedPushesOf : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Modes, CodedPushesOf, ::testing::ValuesIn(cases()), name_of);

TEST_P(CodedPushesOf, LoseNothingWhereAllComeTogether) {
  const TempDir dir;
  const RecordedExchange e = counting(GetParam(), dir);
  const RecordedResult result = run_exchange(e);
  ASSERT_EQ(result.error, "");
  EXPECT_EQ(n_wrong(e, result), 0);
  EXPECT_EQ(result.kept_back, 0);
  EXPECT_EQ(result.most_kept_back > 0, e.compression.has_residual());
}

TEST(CodedPushes, LoseNothingOfABucketOfManyChunks) {
  for (const CodecType type : {CodecType::onebit, CodecType::topk}) {
    const TempDir dir;
    RecordedExchange e = counting({rules()[0], {.type = type, .ratio = 0.1, .start_step = 0}}, dir);
    e.weights = Shape{512, 1024};
    e.n_workers = 4;
    const RecordedResult result = run_exchange(e);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(n_wrong(e, result), 0) << to_string(type);
  }
}

std::vector<Case> cases_of(const std::vector<CodecType>& types, ValueForm values) {
  std::vector<Case> all = cases();
  std::erase_if(all, [&](const Case& c) {
    return !c.compression.type || std::ranges::find(types, *c.compression.type) == types.end() ||
           c.compression.values != values;
  });
  return all;
}
const std::vector<CodecType> kLossy{CodecType::onebit, CodecType::topk};

class KeptBack : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Modes, KeptBack, ::testing::ValuesIn(cases_of(kLossy, ValueForm::full)), name_of);

// Else the test above would say nothing.
TEST_P(KeptBack, AndForgottenIsMissed) {
  const TempDir dir;
  RecordedExchange e = counting(GetParam(), dir);
  e.forgets_residuals = true;
  const RecordedResult result = run_exchange(e);
  ASSERT_EQ(result.error, "");
  EXPECT_GT(n_wrong(e, result), 1000);
}

// A checkpoint is of a step after which nobody has anything left: each is a start from which nothing is lost.
TEST_P(KeptBack, IsInNoCheckpoint) {
  const TempDir dir;
  RecordedExchange e = counting(GetParam(), dir);
  e.saves_every = 4;
  const RecordedResult whole = run_exchange(e);
  ASSERT_EQ(whole.error, "");
  ASSERT_FALSE(whole.saved.empty());
  EXPECT_EQ(n_wrong(e, whole), 0);
  RecordedExchange resumed = e;
  resumed.first = whole.saved.front();
  resumed.seed = 7;
  resumed.n_servers = 1;
  resumed.n_workers = 4;
  const RecordedResult rest = run_exchange(resumed);
  ASSERT_EQ(rest.error, "");
  EXPECT_EQ(n_wrong(e, rest), 0) << "from step " << resumed.first;
}

class CodedBytes : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Modes, CodedBytes,
                         ::testing::ValuesIn(cases_of({CodecType::bf16, CodecType::onebit, CodecType::topk},
                                                      ValueForm::full)),
                         name_of);

// Steps of which none is full, and at the end a flush of what is kept back, in full. All else of the
// data are the same rows, and what is not compressed.
TEST_P(CodedBytes, AreThoseThatThePlanSays) {
  const TempDir coded_dir, plain_dir;
  Case plain = GetParam();
  plain.compression = {};
  RecordedExchange e = counting(GetParam(), coded_dir), of_plain = counting(plain, plain_dir);
  e.flush.every = of_plain.flush.every = 0;
  e.flush.last = of_plain.flush.last = Clock(1000);
  e.steps = of_plain.steps = 3;  // no step that is short
  const RecordedResult coded = run_exchange(e), full = run_exchange(of_plain);
  ASSERT_EQ(coded.error + full.error, "");
  const ClusterMap cluster = assign_roles({"a", "a", "a", "a"}, e.n_servers, e.n_leaves);
  const BucketPlan plan =
      BucketPlan::make(testing::recorded_variables(e), e.n_servers, ChunkRule::whole_slices);
  const StepTraffic step = step_traffic(plan, cluster, e.rule);
  std::int64_t flushed = 0;
  for (const Bucket& bucket : plan.buckets())
    flushed += bucket.compression.has_residual() ? e.n_workers * bucket.n_bytes() : 0;
  const auto more = static_cast<std::int64_t>(coded.bytes_up) - static_cast<std::int64_t>(full.bytes_up);
  const std::int64_t expected = e.steps * (step.up - step.full_up);
  // A worker that had no ticket has nothing to flush.
  EXPECT_LE(more, expected + flushed);
  EXPECT_GE(more, expected + (e.rule.is_dynamic() ? flushed / e.n_workers : flushed));
}

class CodedReplay : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Modes, CodedReplay, ::testing::ValuesIn(cases_of(kLossy, ValueForm::bf16)), name_of);

TEST_P(CodedReplay, ReadsWhatTheRunHasReadWhateverTheDelays) {
  const TempDir dir;
  RecordedExchange e = counting(GetParam(), dir);
  e.is_counting = false;
  e.saves_every = e.evaluates_every = 4;
  const RecordedResult run = run_exchange(e);
  ASSERT_EQ(run.error, "");
  PosixFs fs;
  for (const std::int64_t from : {std::int64_t{0}, run.saved.front()}) {
    RecordedExchange again = e;
    again.replay = recorded_run(fs, e.run_dir, Clock(from));
    again.first = from;
    again.seed = 50 + static_cast<std::uint64_t>(from);
    again.most_delay = 50;
    const RecordedResult replayed = run_exchange(again);
    ASSERT_EQ(replayed.error, "");
    EXPECT_EQ(replayed.hash, run.hash) << "from step " << from;
    ASSERT_LE(replayed.reads.size(), run.reads.size());
    EXPECT_TRUE(std::equal(replayed.reads.rbegin(), replayed.reads.rend(), run.reads.rbegin()));
  }
}

// One bucket of one slice of four elements.
struct OneSlice {
  VariableTable variables = of(CodecType::topk);
  BucketPlan plan = BucketPlan::make(variables, 1, ChunkRule::whole_slices);
  VariableMemory memory{variables, 1};
  GradientCoder coder{plan, memory, 1};
  const Bucket& bucket() const { return plan[BucketId(0)]; }
  std::span<float> gradient() { return memory.gradient(0, 0).as<float>(); }
  static VariableTable of(CodecType type) {
    VariableSpec v = make_spec("a/weights", DType::float32, Shape{2, 2});
    v.compression = {.type = type, .ratio = 0.25, .start_step = 0};
    return VariableTable({v});
  }
};

TEST(GradientCoder, KeepsWhatIsKeptBackWorthWhatItWas) {
  OneSlice one;
  ASSERT_TRUE(one.coder.set_share(one.bucket(), 0.5));
  std::ranges::copy(std::vector<float>{8, 1, 2, -4}, one.gradient().begin());
  one.coder.encode(one.bucket(), 0, 0, Clock(1));
  EXPECT_EQ(one.coder.share(one.bucket()), 0.5);
  EXPECT_THAT(one.coder.residual(one.bucket(), 0), ::testing::ElementsAre(0, 1, 2, -4));
  ASSERT_TRUE(one.coder.set_share(one.bucket(), 0.125));
  EXPECT_THAT(one.coder.residual(one.bucket(), 0), ::testing::ElementsAre(0, 4, 8, -16));
  EXPECT_EQ(one.coder.share(one.bucket()), 0.125);
}

// Else adaptive rules, which square, would make much of little.
TEST(GradientCoder, LeavesWhatIsKeptBackToALaterPushWhereTheShareIsVerySmall) {
  OneSlice one;
  ASSERT_TRUE(one.coder.set_share(one.bucket(), 0.5));
  std::ranges::copy(std::vector<float>{8, 1, 2, -4}, one.gradient().begin());
  one.coder.encode(one.bucket(), 0, 0, Clock(1));
  EXPECT_FALSE(one.coder.set_share(one.bucket(), 0.5 / 17));
  EXPECT_THAT(one.coder.residual(one.bucket(), 0), ::testing::ElementsAre(0, 1, 2, -4));
  EXPECT_TRUE(one.coder.set_share(one.bucket(), 0.5 / 16));
  one.coder.clear_residual(one.bucket());
  EXPECT_EQ(one.coder.share(one.bucket()), 0);
  EXPECT_TRUE(one.coder.set_share(one.bucket(), 1e-300)) << "nothing is kept back";
}

TEST(GradientCoder, OfAPushThatIsNotFiniteNamesTheVariable) {
  OneSlice one;
  ASSERT_TRUE(one.coder.set_share(one.bucket(), 1));
  one.gradient()[3] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(testing::thrown([&] { one.coder.encode(one.bucket(), 0, 0, Clock(7)); }),
            "not finite: step 7: the gradient of variable \"a/weights\" is inf at element 3, so that it "
            "cannot be compressed");
}

}  // namespace
}  // namespace varscope
