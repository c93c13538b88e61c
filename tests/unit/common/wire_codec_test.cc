#include "common/transport/wire_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "common/transport/loopback_transport.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::make_spec;
using testing::thrown;

// A bucket of two chunks, the second of two elements.
class WireCodecTest : public ::testing::Test {
 protected:
  static constexpr std::int64_t kElements = kWireChunkBytes / 4 + 2;
  std::vector<Completion> completions(Transport& transport) {
    std::vector<Completion> done;
    transport.poll_completions(done);
    return done;
  }
  VariableTable variables{{make_spec("a/w", DType::float32, Shape{kElements})}};
  BucketPlan plan = BucketPlan::make(variables, 1);
  LoopbackHub hub{2};
  std::unique_ptr<Transport> t0 = hub.endpoint(Rank(0)), t1 = hub.endpoint(Rank(1));
  WireCodec server{*t0}, worker{*t1};
};

TEST_F(WireCodecTest, AChunkGoesFromPiecesIntoPieces) {
  ASSERT_EQ(plan.size(), 1);
  const Bucket& bucket = plan[BucketId(0)];
  ASSERT_EQ(bucket.n_wire_chunks(), 2);
  const float from[] = {1, -2};
  float into[2] = {};
  const ConstPiece whole{reinterpret_cast<const std::byte*>(from), sizeof from};
  const Piece halves[] = {{reinterpret_cast<std::byte*>(&into[1]), sizeof(float)},
                          {reinterpret_cast<std::byte*>(&into[0]), sizeof(float)}};
  server.receive(Flow::gradients, Rank(1), bucket, 1, 3, halves);
  worker.send(Flow::gradients, Rank(0), bucket, 1, 0, std::span(&whole, 1));
  const std::vector<Completion> received = completions(*t0);
  ASSERT_EQ(received.size(), 1U);
  EXPECT_EQ(WireCodec::flow_of(received[0]), Flow::gradients);
  EXPECT_EQ(received[0].key.bucket, 0);
  EXPECT_EQ(received[0].key.chunk, 1);
  EXPECT_EQ(received[0].key.contribution, 3);
  server.arrived(bucket, received[0]);
  EXPECT_THAT(into, ElementsAre(-2, 1));
  ASSERT_EQ(completions(*t1).size(), 1U);
}

TEST_F(WireCodecTest, TheFlowsOfABucketDoNotMix) {
  const Bucket& bucket = plan[BucketId(0)];
  const float gradient[] = {1, 2}, value[] = {3, 4};
  float received[2] = {};
  const ConstPiece g{reinterpret_cast<const std::byte*>(gradient), sizeof gradient},
      v{reinterpret_cast<const std::byte*>(value), sizeof value};
  const Piece into{reinterpret_cast<std::byte*>(received), sizeof received};
  server.send(Flow::gradients, Rank(1), bucket, 1, 0, std::span(&g, 1));
  server.send(Flow::values, Rank(1), bucket, 1, 0, std::span(&v, 1));
  worker.receive(Flow::values, Rank(0), bucket, 1, 0, std::span(&into, 1));
  const std::vector<Completion> done = completions(*t1);
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(WireCodec::flow_of(done[0]), Flow::values);
  EXPECT_THAT(received, ElementsAre(3, 4));
}

TEST_F(WireCodecTest, AChunkThatIsNotWholeIsRefused) {
  const Bucket& bucket = plan[BucketId(0)];
  EXPECT_EQ(thrown([&] { server.arrived(bucket, {{1, 0, 0, 1}, 8}); }), "no error");
  EXPECT_EQ(thrown([&] {
              server.arrived(bucket, {{1, 0, 0, 1}, 4});
            }),
            "protocol: wire chunk 1 of bucket 0 (a, of server 0) has 4 bytes instead of 8");
  EXPECT_EQ(thrown([&] {
              server.arrived(bucket, {{1, 0, 0, 0}, 8});
            }),
            "protocol: wire chunk 0 of bucket 0 (a, of server 0) has 8 bytes instead of 524288");
}

// Two slices in one chunk, and a codec.
class EncodedChunk : public ::testing::Test {
 protected:
  static VariableTable table(const Compression& compression) {
    std::vector<VariableSpec> all{make_spec("a/w", DType::float32, Shape{2, 3}),
                                  make_spec("a/x", DType::float32, Shape{5, 1})};
    for (VariableSpec& v : all) v.compression = compression;
    return VariableTable(all);
  }
  static std::vector<Completion> completions(Transport& transport) {
    std::vector<Completion> done;
    transport.poll_completions(done);
    return done;
  }
  LoopbackHub hub{2};
  std::unique_ptr<Transport> t0 = hub.endpoint(Rank(0)), t1 = hub.endpoint(Rank(1));
  WireCodec server{*t0}, worker{*t1};
};

TEST_F(EncodedChunk, ValuesAreRoundedOnTheWireAndScatteredSliceBySlice) {
  const BucketPlan plan = BucketPlan::make(table({.values = ValueForm::bf16}), 1);
  const Bucket& bucket = plan[BucketId(0)];
  ASSERT_EQ(bucket.n_wire_chunks(), 1);
  EXPECT_EQ(wire_bytes(bucket, Flow::values, form_of_values(bucket)), 12 + 12) << "an odd slice is filled up";
  EXPECT_EQ(wire_bytes(bucket, Flow::values, WireForm::full), 44);
  EXPECT_FALSE(codec_of(bucket, Flow::gradients));
  float values[11], first[6] = {}, second[5] = {};
  for (int i = 0; i < 11; ++i) values[i] = 1.0F + static_cast<float>(i) * 0.001F;
  const Piece into[] = {{reinterpret_cast<std::byte*>(first), sizeof first},
                        {reinterpret_cast<std::byte*>(second), sizeof second}};
  worker.receive(Flow::values, Rank(0), bucket, 0, 0, into, WireForm::encoded);
  server.send_encoded_values(Rank(1), bucket, 0, 7, std::as_bytes(std::span(values)));
  const std::vector<float> sent(values, values + 11);
  std::ranges::fill(values, 0.0F);  // they are free
  const std::vector<Completion> received = completions(*t1);
  ASSERT_EQ(received.size(), 1U);
  worker.arrived(bucket, received[0]);
  std::vector<float> rounded = sent;
  round_values(rounded);
  EXPECT_NE(rounded, sent);
  EXPECT_EQ(std::vector<float>(first, first + 6), std::vector<float>(rounded.begin(), rounded.begin() + 6));
  EXPECT_EQ(std::vector<float>(second, second + 5), std::vector<float>(rounded.begin() + 6, rounded.end()));
  const std::vector<Completion> left = completions(*t0);
  ASSERT_EQ(left.size(), 1U);
  EXPECT_EQ(left[0].key.contribution, 7);
  EXPECT_EQ(
      thrown([&] { server.send_encoded_values(Rank(1), bucket, 0, 7, std::as_bytes(std::span(values))); }),
      "argument: wire chunk 0 of bucket 0 is sent twice as contribution 7");
  server.sent(left[0]);
  server.send_encoded_values(Rank(1), bucket, 0, 7, std::as_bytes(std::span(values)));
}

TEST_F(EncodedChunk, BytesThatNoEncoderMakesAreRefused) {
  const BucketPlan plan = BucketPlan::make(table({.type = CodecType::topk, .ratio = 0.5}), 1);
  const Bucket& bucket = plan[BucketId(0)];
  float sum[11] = {};
  const Piece into{reinterpret_cast<std::byte*>(sum), sizeof sum};
  ASSERT_EQ(wire_bytes(bucket, Flow::gradients, WireForm::encoded), 3 * 8 + 3 * 8);
  const auto answer_to = [&](const std::vector<std::uint32_t>& words) {
    server.receive(Flow::gradients, Rank(1), bucket, 0, 0, std::span(&into, 1), WireForm::encoded);
    worker.send_as_is(Flow::gradients, Rank(0), bucket, 0, 0, std::as_bytes(std::span(words)));
    const std::vector<Completion> done = completions(*t0);
    return thrown([&] { server.arrived(bucket, done.at(0)); });
  };
  EXPECT_EQ(answer_to({0, 2, 4, 0, 0, 0, 0, 1, 2, 0, 0, 0}), "no error");
  EXPECT_THAT(answer_to({0, 2, 4, 0, 0, 0, 0, 1, 5, 0, 0, 0}),
              ::testing::HasSubstr("protocol: a topk gradient of 5 elements has index 5 at place 2 of 3"));
  EXPECT_EQ(answer_to({0, 2, 4}),
            "protocol: wire chunk 0 of bucket 0 (a, of server 0) has 12 bytes instead of 48");
}

}  // namespace
}  // namespace varscope
