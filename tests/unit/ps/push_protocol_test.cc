// A server of SSP and ASP whose workers are played by the test, message by message.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "common/base/serialize.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/push_details.h"
#include "common/transport/row_codec.h"
#include "common/transport/wire.h"
#include "ps/server_rank.h"
#include "tests/support/jobs/push_exchange.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::counting_table;
using testing::make_spec;
using testing::TempDir;
using testing::thrown;

// Server 0, alone, and two workers with a leaf each. Pushes without samples have no data, and are applied as
// they come: what follows depends on messages alone.
class PushProtocol : public ::testing::Test {
 protected:
  PushProtocol() = default;
  explicit PushProtocol(VariableSpec table) {
    std::vector<VariableSpec> all = variables_.variables();
    all.push_back(std::move(table));
    variables_ = VariableTable(std::move(all));
    plan_ = BucketPlan::make(variables_, 1, ChunkRule::whole_slices);
    rows_ = RowPlan::make(variables_, 1);
  }
  static constexpr StepRule kSsp{Consistency::ssp, 1, Dealing::in_place};
  static constexpr StepRule kDynamic{Consistency::ssp, 1, Dealing::to_whoever_asks};
  void start(const StepRule& rule) {
    server_.reset();
    ends_.clear();
    hub_ = std::make_unique<LoopbackHub>(3);
    for (int r = 0; r < 3; ++r) ends_.push_back(hub_->endpoint(Rank(r)));
    sequence_ = {};
    OptimizerConfig sgd;
    sgd.type = OptimizerType::sgd;
    sgd.learning_rate = 1;
    server_.emplace(
        ServerRank::Parts{.transport = *ends_[0],
                          .cluster = cluster_,
                          .variables = variables_,
                          .plan = plan_,
                          .id = ServerId(0),
                          .optimizer = sgd,
                          .fill = [](ParameterShard& shard, TableShards&) { shard.initialize(1); },
                          .start_id = "by hand",
                          .saves = ServerRank::Saves{fs_, dir_.path(), {}},
                          .rows = &rows_,
                          .rule = rule,
                          .first = Clock(2)});
  }
  // The ticket of a worker's own leaf, without samples, that asks for an ack.
  MessageHeader push(int worker, std::int64_t step, int bucket = 0) {
    MessageHeader h = make_header(MessageType::push, worker, Clock(step));
    h.bucket = bucket;
    h.sequence = ++sequence_[static_cast<std::size_t>(worker)];
    h.leaf_begin = worker;
    h.flags = kFlagAck;
    return h;
  }
  void send(int worker, const MessageHeader& header, std::string_view body) {
    ends_[static_cast<std::size_t>(1 + worker)]->send_message(Rank(0), header, body);
  }
  void send(int worker, const MessageHeader& header, const PushDetails& details = {.n_leaves = 1}) {
    send(worker, header, bytes_of(details));
  }
  void pull(int worker, std::int64_t clock, int bucket = 0) {
    MessageHeader h = make_header(MessageType::pull, worker, Clock(clock));
    h.bucket = bucket;
    send(worker, h, "");
  }
  // From server 0 itself, as its coordinator would.
  void command(MessageType type, std::int64_t step) {
    ends_[0]->send_message(Rank(0), make_header(type, 0, Clock(step)));
  }
  // What the server makes of all that has been sent to it.
  std::string serve() {
    command(MessageType::shutdown, 0);
    return thrown([&] { server_->run(); });
  }
  // What it makes of one message, from the start.
  std::string answer(const StepRule& rule, const MessageHeader& header,
                     const PushDetails& details = {.n_leaves = 1}) {
    start(rule);
    send(header.sender, header, details);
    return serve();
  }
  // "ack 3 of 0, value 2 of 0", of steps and buckets or tables: what a worker has been sent since the last
  // call.
  std::string heard(int worker) {
    std::string text;
    for (Message m; ends_[static_cast<std::size_t>(1 + worker)]->poll_message(m);) {
      if (type_of(m.header) == MessageType::heartbeat) continue;
      text += fmt::format("{}{} {} of {}", text.empty() ? "" : ", ", to_string(type_of(m.header)),
                          m.header.clock, m.header.bucket);
    }
    return text;
  }

  VariableTable variables_{
      {make_spec("large/weights", DType::float64, Shape{600}),
       make_spec("small/weights", DType::float64, Shape{100}),
       make_spec("small/frozen", DType::float64, Shape{9}, Initializer::constant(7), false)}};
  ClusterMap cluster_ = assign_roles({"a", "a", "a"}, 1, 2);
  BucketPlan plan_ = BucketPlan::make(variables_, 1, ChunkRule::whole_slices);
  RowPlan rows_ = RowPlan::make(variables_, 1);
  std::unique_ptr<LoopbackHub> hub_;
  std::vector<std::unique_ptr<Transport>> ends_;
  TempDir dir_;
  PosixFs fs_;
  std::array<std::int64_t, 2> sequence_{};
  std::optional<ServerRank> server_;
};

TEST_F(PushProtocol, AnswersAPushThatAsksForAnAckOnceItIsApplied) {
  start(kSsp);
  send(0, push(0, 3));
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "ack 3 of 0");
  EXPECT_EQ(heard(1), "");
}

TEST_F(PushProtocol, AnswersWithValuesOnceTheyHoldWhatTheNextTicketNeeds) {
  start(kSsp);
  MessageHeader h = push(0, 3);
  h.flags = 0;
  send(0, h, {.next_step = 4, .n_leaves = 1});  // needs step 2, from which the run starts
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "value 2 of 0");
  h = push(0, 4);
  h.flags = 0;
  send(0, h, {.next_step = 5, .n_leaves = 1});  // needs step 3, of which worker 1 owes its part
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "");
  send(1, push(1, 3));
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "value 3 of 0");
  EXPECT_EQ(heard(1), "ack 3 of 0");
}

TEST_F(PushProtocol, RefusesAPushThatIsOutOfTurn) {
  MessageHeader h = push(0, 3);
  h.sequence = 2;
  EXPECT_EQ(answer(kSsp, h), "protocol: push 2 of worker 0 arrived where push 1 was due");
}

TEST_F(PushProtocol, RefusesTicketsThatAreNotTheWorkers) {
  const auto refusal = [&](const StepRule& rule, std::int64_t step, int leaf, std::int32_t n_leaves) {
    MessageHeader h = push(0, step);
    h.leaf_begin = leaf;
    return answer(rule, h, {.n_leaves = n_leaves});
  };
  EXPECT_EQ(refusal(kSsp, 3, 1, 1),
            "protocol: worker 0 pushed 1 leaves from 1 on of step 3, which are no ticket of it");
  EXPECT_EQ(refusal(kSsp, 3, 0, 2),
            "protocol: worker 0 pushed 2 leaves from 0 on of step 3, which are no ticket of it");
  EXPECT_EQ(refusal(kSsp, 2, 0, 1),
            "protocol: worker 0 pushed 1 leaves from 0 on of step 2, which are no ticket of it")
      << "the run starts with step 3";
  EXPECT_EQ(refusal(kDynamic, 3, 2, 1),
            "protocol: worker 0 pushed 1 leaves from 2 on of step 3, which are no ticket of it");
  EXPECT_EQ(refusal(kDynamic, 3, -1, 1),
            "protocol: worker 0 pushed 1 leaves from -1 on of step 3, which are no ticket of it");
  EXPECT_EQ(refusal(kDynamic, 3, 0, 2),
            "protocol: worker 0 pushed 2 leaves from 0 on of step 3, which are no ticket of it");
  EXPECT_EQ(refusal(kDynamic, 3, 1, 1), "no error") << "anybody may have it";
  const std::int64_t far = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(
      refusal(kDynamic, far, 0, 1),
      fmt::format("protocol: worker 0 pushed 1 leaves from 0 on of step {}, which are no ticket of it", far));
}

TEST_F(PushProtocol, RefusesATicketTheSecondTime) {
  start(kSsp);
  send(0, push(0, 3));
  send(0, push(0, 3));
  EXPECT_EQ(serve(), "protocol: worker 0 pushed step 3, leaf 0 of large, which is applied already");
  start(kDynamic);
  send(0, push(0, 4));
  MessageHeader again = push(1, 4);
  again.leaf_begin = 0;
  send(1, again);
  EXPECT_EQ(serve(), "protocol: worker 1 pushed step 4, leaf 0 of large, which is applied already");
}

TEST_F(PushProtocol, RefusesPushesAndPullsBeforeTheAnswerToTheLast) {
  const auto send_unanswered = [&] {
    start(kSsp);
    MessageHeader h = push(0, 3);
    h.flags = 0;
    send(0, h, {.next_step = 6, .n_leaves = 1});
  };
  send_unanswered();
  send(0, push(0, 4));
  EXPECT_EQ(
      serve(),
      "protocol: worker 0 pushed 0 bytes of step 4 to bucket 0 (large) before it had the answer to its last "
      "push, expected 0");
  send_unanswered();
  pull(0, 3);
  EXPECT_EQ(serve(), "protocol: worker 0 pulled bucket 0 (large) before it had the answer to its last push");
}

TEST_F(PushProtocol, RefusesReadsOfStepsThatNoRunHas) {
  for (const std::int64_t step : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
    start(kSsp);
    pull(0, step);
    EXPECT_EQ(serve(), fmt::format("protocol: worker 0 sent a pull of step {}, which no run has", step));
  }
}

TEST_F(PushProtocol, RefusesWrongBytes) {
  MessageHeader h = push(0, 3);
  h.n_bytes = 8;
  EXPECT_EQ(answer(kSsp, h, {.share = 0.5, .n_leaves = 1}),
            "protocol: worker 0 pushed 8 bytes of step 3 to bucket 0 (large), expected 4800");
  EXPECT_EQ(answer(kSsp, h, {.n_leaves = 1}),
            "protocol: worker 0 pushed 8 bytes of step 3 to bucket 0 (large), expected 0");
  h.n_bytes = 0;
  EXPECT_EQ(answer(kSsp, h, {.share = 0.5, .n_leaves = 1}),
            "protocol: worker 0 pushed 0 bytes of step 3 to bucket 0 (large), expected 4800");
}

TEST_F(PushProtocol, RefusesDetailsThatCannotBe) {
  start(kSsp);
  send(0, push(0, 3), "short");
  EXPECT_EQ(serve(), "protocol: rank 1 sent a push with 5 bytes of details instead of 32");
  MessageHeader h = push(0, 3);
  EXPECT_EQ(answer(kSsp, h, {.share = 2, .n_leaves = 1}),
            "protocol: rank 1 sent a push of 1 leaves with share 2");
  h.bucket = 2;
  h.sequence = 1;
  EXPECT_EQ(answer(kSsp, h), "protocol: worker 0 pushed bucket 2 (small), whose values never change");
  h.bucket = 77;
  EXPECT_EQ(answer(kSsp, h), "protocol: worker 0 pushed bucket 77, which is not on server 0");
  EXPECT_EQ(answer(kSsp, make_header(MessageType::norm_sums, 0, Clock(3))),
            "protocol: rank 1 sent a sums of squares, but workers take norms themselves in this mode");
}

TEST_F(PushProtocol, RefusesCodesAndFlushesWhereNothingIsCompressed) {
  MessageHeader h = push(0, 3);
  h.flags |= kFlagEncoded;
  EXPECT_EQ(answer(kSsp, h, {.share = 0.5, .n_leaves = 1}),
            "protocol: worker 0 pushed encoded gradients to bucket 0 (large), which is not compressed");
  h.flags = kFlagAck | kFlagFlush;
  EXPECT_EQ(
      answer(kSsp, h, {.share = 0.5, .n_leaves = 1}),
      "protocol: worker 0 flushed bucket 0 (large) after step 3, where nothing is kept back that could be");
}

TEST_F(PushProtocol, HoldsWhatAWorkerSendsBehindAPushThatWaitsForACut) {
  start(kSsp);
  command(MessageType::cut, 3);
  for (const int bucket : {0, 1}) send(0, push(0, 3, bucket));
  send(0, push(0, 4), {.held_after = 3, .n_leaves = 1});
  send(0, push(0, 4, 1), {.n_leaves = 1});  // says nothing of a cut, but comes behind one that does
  pull(0, 3, 1);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "ack 3 of 0, ack 3 of 1");
  for (const int bucket : {0, 1}) send(1, push(1, 3, bucket));
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(1), "ack 3 of 0, ack 3 of 1") << "pushes of the cut do not wait for it";
  EXPECT_EQ(heard(0), "ack 4 of 0, ack 4 of 1, value 3 of 1") << "the cut is made with the last of them";
}

TEST_F(PushProtocol, ACutThatIsAskedForLateFindsNothingOfLaterStepsApplied) {
  start(kSsp);
  for (const int bucket : {0, 1}) {
    send(0, push(0, 3, bucket));
    send(1, push(1, 3, bucket));
  }
  send(1, push(1, 4), {.held_after = 3, .n_leaves = 1});
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(1), "ack 3 of 0, ack 3 of 1");
  command(MessageType::cut, 3);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(1), "ack 4 of 0");
}

TEST_F(PushProtocol, ACutThatIsGivenUpLetsGoOfWhatItHeldAndNoMore) {
  start(kSsp);
  command(MessageType::cut, 3);
  send(0, push(0, 4), {.held_after = 3, .n_leaves = 1});
  send(0, push(0, 7), {.held_after = 6, .n_leaves = 1});
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "");
  command(MessageType::cut_given_up, 3);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "ack 4 of 0");
  command(MessageType::cut_given_up, 6);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "ack 7 of 0");
  send(0, push(0, 5), {.held_after = 3, .n_leaves = 1});
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "ack 5 of 0") << "that cut is over";
}

// The same of a table's rows.
class PushProtocolOfRows : public PushProtocol {
 protected:
  PushProtocolOfRows() : PushProtocol(counting_table("user/table", 2, 1)) {}
  void want(int worker, std::int64_t clock, std::uint32_t flags = 0) {
    MessageHeader h = make_header(MessageType::rows_wanted, worker, Clock(clock));
    h.bucket = 0;
    h.flags = flags;
    send(worker, h, "");
  }
  void push_rows(int worker, std::int64_t step, int leaf, const PushDetails& details = {.n_leaves = 1}) {
    MessageHeader h = make_header(MessageType::rows_push, worker, Clock(step));
    h.bucket = 0;
    h.leaf_begin = leaf;
    h.n_contributions = 1;
    send(worker, h, std::string(bytes_of(details)) + to_binary(std::vector<std::uint32_t>{0}));
  }
};

TEST_F(PushProtocolOfRows, AnswersOnceTheTableHoldsWhatTheStepNeeds) {
  start(kSsp);
  want(0, 2);
  push_rows(0, 3, 0);
  want(0, 3);  // for step 4, of step 2
  push_rows(0, 4, 0);
  want(0, 4);  // for step 5, of step 3
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "answer with rows 2 of 0, answer with rows 3 of 0");
  want(1, 2);
  push_rows(1, 3, 1);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "answer with rows 4 of 0");
}

TEST_F(PushProtocolOfRows, RefusesTicketsThatAreNotTheWorkersAndThoseThatAreIn) {
  start(kSsp);
  want(0, 2);
  push_rows(0, 3, 1);
  EXPECT_EQ(serve(), "protocol: worker 0 pushed 1 leaves from 1 on of step 3, which are no ticket of it");
  start(kDynamic);
  for (const int worker : {0, 1}) {
    want(worker, 2);
    push_rows(worker, 3, 1);
  }
  EXPECT_EQ(serve(), "protocol: worker 1 pushed step 3, leaf 1 of user/table, which is applied already");
  start(kSsp);
  push_rows(0, 3, 0);
  EXPECT_THAT_THROWN(
      [&] {
        const std::string error = serve();
        if (error != "no error") fail(ErrorKind::protocol, "{}", error);
      }(),
      ErrorKind::protocol, {"worker 0 pushed rows of table \"user/table\""});
}

TEST_F(PushProtocolOfRows, AnswersOnlyWithTheWorkersOwnPushIn) {
  start(kSsp);
  const std::vector<std::uint64_t> ids{7};
  std::vector<double> row(4, -1);
  RowCodec codec(*ends_[1], plan_.size());
  codec.receive(RowFlow::values, Rank(0), TableId(0), 0, std::as_writable_bytes(std::span(row)));
  MessageHeader wanted = make_header(MessageType::rows_wanted, 0, Clock(2));
  wanted.bucket = 0;
  wanted.n_bytes = sizeof(std::uint64_t);
  send(0, wanted, "");
  codec.send(RowFlow::ids, Rank(0), TableId(0), 0, std::as_bytes(std::span(ids)));
  for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "answer with rows 2 of 0");
  EXPECT_EQ(row, std::vector<double>(4, 0));
  const std::vector<std::uint32_t> n_rows{1};
  MessageHeader h = make_header(MessageType::rows_push, 0, Clock(3));
  h.bucket = 0;
  h.n_contributions = 1;
  h.n_bytes = RowsPushLayout(n_rows, 32, false).n_bytes();
  send(0, h, std::string(bytes_of(PushDetails{.share = 0.5, .n_leaves = 1})) + to_binary(n_rows));
  want(0, 3);
  for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "") << "the gradients are not there yet";
  const std::vector<std::byte> gradients(h.n_bytes);
  codec.send(RowFlow::gradients, Rank(0), TableId(0), 0, gradients);
  for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "answer with rows 3 of 0");
}

TEST_F(PushProtocolOfRows, RefusesReadsOfStepsThatNoRunHas) {
  for (const std::uint32_t flags : {0U, kFlagRead}) {
    start(kSsp);
    want(0, std::numeric_limits<std::int64_t>::max(), flags);
    EXPECT_THAT_THROWN(server_->run(), ErrorKind::protocol, {"worker 0 sent a", "which no run has"});
  }
}

TEST_F(PushProtocolOfRows, HoldsRowsBehindACut) {
  start(kDynamic);
  want(0, 2);
  want(1, 2);
  push_rows(0, 3, 0);
  want(0, 3);
  push_rows(0, 4, 0, {.held_after = 3, .n_leaves = 1});
  want(0, 4);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "answer with rows 2 of 0, answer with rows 3 of 0");
  push_rows(1, 3, 1);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "") << "what is asked for waits behind the push";
  command(MessageType::cut_given_up, 3);
  EXPECT_EQ(serve(), "no error");
  EXPECT_EQ(heard(0), "answer with rows 4 of 0");
}

}  // namespace
}  // namespace varscope
