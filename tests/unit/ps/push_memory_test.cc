// The memory of a server for pushes and answers where each is applied by itself: every worker has its part.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>

#include "common/transport/loopback_transport.h"
#include "ps/push_receiver.h"
#include "ps/staged_answers.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::make_spec;

constexpr std::size_t kChunk = 512 << 10;

// One server, two workers, a bucket of four chunks and one of one.
class PushMemory : public ::testing::Test {
 protected:
  PushMemory() {
    for (int r = 0; r < 3; ++r) ends_.push_back(hub_.endpoint(Rank(r)));
  }
  Transport& server() { return *ends_[0]; }
  Transport& end_of(WorkerId w) { return *ends_[static_cast<std::size_t>(cluster_.rank_of(w).value)]; }
  // What has completed at an end since the last call.
  static std::vector<Completion> done(Transport& end) {
    std::vector<Completion> all;
    end.poll_completions(all);
    return all;
  }
  // Sends all chunks of a push whose elements are all `value`.
  void send_gradients(WorkerId from, const Bucket& bucket, double value) {
    gradients_.emplace_back(static_cast<std::size_t>(bucket.n_elements), value);
    WireCodec codec(end_of(from));
    for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) {
      const WireChunk part = bucket.wire_chunk(chunk);
      const ConstPiece piece{reinterpret_cast<std::byte*>(gradients_.back().data() + part.first_element),
                             static_cast<std::size_t>(part.n_bytes)};
      codec.send(Flow::gradients, Rank(0), bucket, chunk, 0, std::span(&piece, 1));
    }
  }
  // Receives a chunk of values; they are in the vector once that has completed.
  std::vector<double>& receive_values(WorkerId to, const Bucket& bucket, int chunk) {
    const WireChunk part = bucket.wire_chunk(chunk);
    values_.emplace_back(static_cast<std::size_t>(part.n_elements), -1);
    const Piece piece{reinterpret_cast<std::byte*>(values_.back().data()),
                      static_cast<std::size_t>(part.n_bytes)};
    WireCodec(end_of(to)).receive(Flow::values, Rank(0), bucket, chunk, 0, std::span(&piece, 1));
    return values_.back();
  }

  VariableTable variables_{{make_spec("large/weights", DType::float64, Shape{4 * 64 * 1024}),
                            make_spec("small/weights", DType::float64, Shape{100})}};
  ClusterMap cluster_ = assign_roles({"a", "a", "a"}, 1, 2);
  BucketPlan plan_ = BucketPlan::make(variables_, 1, ChunkRule::whole_slices);
  const Bucket& large_ = plan_[BucketId(0)];
  const Bucket& small_ = plan_[BucketId(1)];
  LoopbackHub hub_{3};
  std::vector<std::unique_ptr<Transport>> ends_;
  std::deque<std::vector<double>> gradients_, values_;
};

TEST_F(PushMemory, TheLargeBucketHasFourChunks) {
  ASSERT_EQ(large_.n_wire_chunks(), 4);
  EXPECT_EQ(large_.wire_chunk(0).n_bytes, static_cast<std::int64_t>(kChunk));
}

TEST_F(PushMemory, AWorkerThatTakesNoAnswersKeepsItsOwnPartOnly) {
  StagedAnswers answers(server(), plan_, cluster_, 4 * kChunk);  // two chunks each
  std::vector<double> values(static_cast<std::size_t>(large_.n_elements), 3);
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  const WorkerId deaf(0), other(1);
  EXPECT_TRUE(answers.try_send(deaf, large_.id, 0, bytes, WireForm::full));
  EXPECT_TRUE(answers.try_send(deaf, large_.id, 1, bytes, WireForm::full));
  EXPECT_FALSE(answers.try_send(deaf, large_.id, 2, bytes, WireForm::full));
  for (int round = 0; round < 5; ++round) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      const std::vector<double>& got = receive_values(other, large_, chunk);
      ASSERT_TRUE(answers.try_send(other, large_.id, chunk, bytes, WireForm::full)) << "round " << round;
      ASSERT_EQ(done(end_of(other)).size(), 1U);
      EXPECT_EQ(got.front(), 3);
    }
    for (const Completion& sent : done(server())) answers.on_sent(sent);
  }
  EXPECT_FALSE(answers.try_send(deaf, large_.id, 2, bytes, WireForm::full))
      << "the other's memory is not its";
}

TEST_F(PushMemory, AnAnswerIsWhatTheValuesWereWhenItWasMade) {
  StagedAnswers answers(server(), plan_, cluster_, 8 * kChunk);
  std::vector<double> values(static_cast<std::size_t>(large_.n_elements), 3);
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  ASSERT_TRUE(answers.try_send(WorkerId(0), large_.id, 1, bytes, WireForm::full));
  values.assign(values.size(), 4);
  ASSERT_TRUE(answers.try_send(WorkerId(0), large_.id, 1, bytes, WireForm::full));
  values.assign(values.size(), 5);
  const std::vector<double>& first = receive_values(WorkerId(0), large_, 1);
  const std::vector<double>& second = receive_values(WorkerId(0), large_, 1);
  ASSERT_EQ(done(end_of(WorkerId(0))).size(), 2U);
  EXPECT_EQ(first, std::vector<double>(first.size(), 3));
  EXPECT_EQ(second, std::vector<double>(second.size(), 4));
}

TEST_F(PushMemory, OneChunkIsAlwaysAnswered) {
  StagedAnswers answers(server(), plan_, cluster_, 1);
  std::vector<double> values(static_cast<std::size_t>(large_.n_elements), 3);
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  EXPECT_TRUE(answers.try_send(WorkerId(0), large_.id, 0, bytes, WireForm::full));
  EXPECT_FALSE(answers.try_send(WorkerId(0), small_.id, 0, bytes, WireForm::full)) << "not even a small one";
  EXPECT_TRUE(answers.try_send(WorkerId(1), large_.id, 0, bytes, WireForm::full));
  receive_values(WorkerId(0), large_, 0);
  for (const Completion& sent : done(server())) answers.on_sent(sent);
  EXPECT_TRUE(answers.try_send(WorkerId(0), small_.id, 0, bytes, WireForm::full));
}

TEST_F(PushMemory, APushThatDoesNotComeHoldsItsOwnersPartOnly) {
  PushReceiver receiver(server(), plan_, cluster_, 4 * kChunk);  // two chunks each
  receiver.announce(WorkerId(0), large_.id, WireForm::full);     // and nothing comes
  EXPECT_EQ(server().stats().data_receives, 2U);
  send_gradients(WorkerId(1), large_, 7);
  receiver.announce(WorkerId(1), large_.id, WireForm::full);
  EXPECT_EQ(server().stats().data_receives, 4U);
  int n_chunks = 0;
  for (int turn = 0; turn < 10; ++turn) {
    for (const Completion& completion : done(server())) {
      const PushReceiver::Chunk chunk = receiver.on_received(completion);
      EXPECT_EQ(chunk.worker, WorkerId(1));
      EXPECT_EQ(chunk.bucket, large_.id);
      EXPECT_EQ(chunk.chunk, n_chunks++) << "in their order";
      double value = 0;
      std::memcpy(&value, chunk.gradient, sizeof value);
      EXPECT_EQ(value, 7);
      receiver.release(chunk);
    }
  }
  EXPECT_EQ(n_chunks, 4);
  EXPECT_EQ(server().stats().data_receives, 6U) << "the silent worker has no more of them";
}

TEST_F(PushMemory, PushesAreReceivedInTheOrderOfTheirAnnouncements) {
  PushReceiver receiver(server(), plan_, cluster_, 2);  // one chunk each, however large
  send_gradients(WorkerId(0), large_, 7);
  send_gradients(WorkerId(0), small_, 8);
  receiver.announce(WorkerId(0), large_.id, WireForm::full);
  receiver.announce(WorkerId(0), small_.id, WireForm::full);
  std::string seen;
  for (int turn = 0; turn < 10; ++turn) {
    const std::vector<Completion> completed = done(server());
    EXPECT_LE(completed.size(), 1U);
    for (const Completion& completion : completed) {
      const PushReceiver::Chunk chunk = receiver.on_received(completion);
      seen += fmt::format("{}.{} ", chunk.bucket.value, chunk.chunk);
      receiver.release(chunk);
    }
  }
  EXPECT_EQ(seen, "0.0 0.1 0.2 0.3 1.0 ");
}

TEST_F(PushMemory, AChunkThatIsNotWholeIsRefused) {
  PushReceiver receiver(server(), plan_, cluster_, 4 * kChunk);
  receiver.announce(WorkerId(0), small_.id, WireForm::full);
  const std::vector<double> half(50, 1);
  const ConstPiece piece{reinterpret_cast<const std::byte*>(half.data()), half.size() * sizeof(double)};
  WireCodec(end_of(WorkerId(0))).send(Flow::gradients, Rank(0), small_, 0, 0, std::span(&piece, 1));
  const std::vector<Completion> completed = done(server());
  ASSERT_EQ(completed.size(), 1U);
  EXPECT_THAT_THROWN(receiver.on_received(completed[0]), ErrorKind::protocol, {"400", "800", "small"});
}

}  // namespace
}  // namespace varscope
