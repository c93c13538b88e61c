#include "common/transport/wire_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace varscope
