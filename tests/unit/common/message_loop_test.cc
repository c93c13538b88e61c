#include "common/transport/message_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <utility>

#include "common/base/clock.h"
#include "common/transport/wire.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::thrown;

// Brings what the test puts in, and writes down what the loop does.
class ScriptedTransport final : public Transport {
 public:
  std::deque<MessageType> inbox;
  std::vector<Completion> completions;
  std::vector<std::string> log;

  Rank rank() const override { return Rank(0); }
  int size() const override { return 2; }
  void send_message(Rank to, MessageHeader header, std::string_view) override {
    log.push_back(fmt::format("{} to {}", to_string(type_of(header)), to.value));
  }
  void post_send(Rank, DataTag, std::span<const ConstPiece>, RequestKey) override {}
  void post_receive(Rank, DataTag, std::span<const Piece>, RequestKey) override {}
  bool poll_message(Message& out) override {
    if (inbox.empty()) return false;
    out = {Rank(1), make_header(inbox.front(), 0, Clock(0)), ""};
    inbox.pop_front();
    return true;
  }
  void poll_completions(std::vector<Completion>& out) override { out = std::exchange(completions, {}); }
  void idle() override { log.push_back("idle"); }
  void busy() override { log.push_back("busy"); }
  void flush(double) override {}
};

class Handler final : public MessageHandler {
 public:
  explicit Handler(ScriptedTransport& transport) : transport_(transport) {}
  MessageLoop* loop = nullptr;  // is told to end the poll by a shutdown
  void on_message(const Message& message) override {
    transport_.log.emplace_back(to_string(type_of(message.header)));
    if (loop != nullptr && type_of(message.header) == MessageType::shutdown) loop->end_poll();
  }
  void on_completion(const Completion& c) override {
    transport_.log.push_back(fmt::format("chunk {}", c.key.chunk));
  }

 private:
  ScriptedTransport& transport_;
};

class MessageLoopTest : public ::testing::Test {
 protected:
  std::vector<std::string> turn(bool works = false) {
    loop.turn("waiting", [&] {
      transport.log.emplace_back("work");
      return works;
    });
    return std::exchange(transport.log, {});
  }
  ScriptedTransport transport;
  Handler handler{transport};
  MessageLoop loop{transport, handler, {}, 0, 60};
};

TEST_F(MessageLoopTest, MessagesComeBeforeCompletions) {
  transport.inbox = {MessageType::go, MessageType::value};
  transport.completions = {{{1, 0, 0, 7}, 4}, {{1, 0, 0, 8}, 4}};
  EXPECT_TRUE(loop.poll());
  EXPECT_THAT(transport.log, ElementsAre("go", "value", "chunk 7", "chunk 8"));
  transport.log.clear();
  EXPECT_FALSE(loop.poll());
  EXPECT_THAT(transport.log, IsEmpty());
}

TEST_F(MessageLoopTest, PausesOnlyWhenThereWasNothingAtAll) {
  EXPECT_THAT(turn(), ElementsAre("work", "idle"));
  EXPECT_THAT(turn(true), ElementsAre("work", "busy"));
  transport.inbox = {MessageType::go};
  EXPECT_THAT(turn(), ElementsAre("go", "work", "busy"));
  transport.completions = {{{1, 0, 0, 7}, 4}};
  EXPECT_THAT(turn(), ElementsAre("chunk 7", "work", "busy"));
  loop.begin_turns();
  EXPECT_THAT(transport.log, ElementsAre("busy"));
}

TEST_F(MessageLoopTest, WhatComesAfterTheEndIsForTheNextPoll) {
  handler.loop = &loop;
  transport.inbox = {MessageType::shutdown, MessageType::pull, MessageType::push};
  transport.completions = {{{1, 0, 0, 7}, 4}};
  EXPECT_TRUE(loop.poll());
  EXPECT_THAT(std::exchange(transport.log, {}), ElementsAre("shutdown", "chunk 7"));
  EXPECT_TRUE(loop.poll());
  EXPECT_THAT(transport.log, ElementsAre("pull", "push"));
}

TEST_F(MessageLoopTest, EveryTurnMayShowLife) {
  MessageLoop peered(transport, handler, {{Rank(1), "worker 0"}}, 0, 60);
  peered.turn("waiting", [] { return false; });
  EXPECT_THAT(std::exchange(transport.log, {}), ElementsAre("idle", "heartbeat to 1"));
  peered.turn("waiting", [] { return false; });
  EXPECT_THAT(transport.log, ElementsAre("idle")) << "not yet due again";
}

TEST_F(MessageLoopTest, NamesASilentPeerAndWhatWasWaitedFor) {
  MessageLoop peered(transport, handler, {{Rank(1), "worker 0 on host n3"}}, 0, 0.2);
  const std::string error = thrown([&] {
    for (;;) peered.turn("waiting for values", [] { return false; });
  });
  EXPECT_THAT(error, HasSubstr("stall: no sign of life from worker 0 on host n3 (rank 1) for "));
  EXPECT_THAT(error, HasSubstr(" s while waiting for values; "));
}

TEST_F(MessageLoopTest, AMessageIsASignOfLife) {
  MessageLoop peered(transport, handler, {{Rank(1), "worker 0"}}, 0, 0.02);
  EXPECT_EQ(thrown([&] {
              const std::int64_t end = now_ns() + 60'000'000;
              while (now_ns() < end) {
                transport.inbox.push_back(MessageType::heartbeat);
                peered.turn("waiting", [] { return false; });
              }
            }),
            "no error");
}

}  // namespace
}  // namespace varscope
