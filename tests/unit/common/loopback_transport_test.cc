#include "common/transport/loopback_transport.h"

#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <thread>

#include "tests/support/references/transport_contract.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::kReceived;
using testing::kSent;
using testing::kTagA;
using testing::thrown;

// Runs `body` on every rank at once; an exception of one rank aborts the others and comes out here.
void on_ranks(LoopbackHub& hub, int n, const std::function<void(Transport&)>& body) {
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(n));
  for (int r = 0; r < n; ++r) {
    threads.emplace_back([&, r] {
      try {
        const auto endpoint = hub.endpoint(Rank(r));
        body(*endpoint);
      } catch (const Aborted&) {
        // The exception of another rank is being reported.
      } catch (...) {
        errors[static_cast<std::size_t>(r)] = std::current_exception();
        hub.abort();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (const std::exception_ptr& e : errors) {
    if (e) std::rethrow_exception(e);
  }
}

class Contract : public ::testing::TestWithParam<std::tuple<int, int>> {
 protected:
  void run(const std::function<void(Transport&)>& body) {
    const auto [n_ranks, max_delay] = GetParam();
    for (std::uint64_t seed : {1, 2}) {
      LoopbackHub hub(n_ranks, {.seed = seed, .max_delay_polls = max_delay, .silent_rank = {}});
      on_ranks(hub, n_ranks, body);
    }
  }
};

TEST_P(Contract, MessagesOfOneSenderStayInOrder) { run(testing::contract_messages); }
TEST_P(Contract, DataMatchesReceivesInOrder) { run(testing::contract_data_in_order); }
TEST_P(Contract, ScattersAndGathers) {
  for (const std::size_t gap_every : {0, 1, 7})
    run([gap_every](Transport& t) { testing::contract_scatter_gather(t, 10'000, gap_every); });
}
TEST_P(Contract, OnePieceOfNothing) {
  run([](Transport& t) { testing::contract_block(t, 0); });
}
TEST_P(Contract, LargeBlocks) {
  run([](Transport& t) { testing::contract_block(t, (512 << 10) + 1); });
}
TEST_P(Contract, AShortSendIsSeen) { run(testing::contract_short_send); }

INSTANTIATE_TEST_SUITE_P(Loopback, Contract,
                         ::testing::Combine(::testing::Values(1, 2, 3), ::testing::Values(0, 9)));

ConstPiece source(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
Piece target(std::string& text) { return {reinterpret_cast<std::byte*>(text.data()), text.size()}; }

TEST(LoopbackTransport, ALongerSendIsAnErrorThatNamesBoth) {
  LoopbackHub hub(2);
  const auto a = hub.endpoint(Rank(0)), b = hub.endpoint(Rank(1));
  std::string memory(4, ' ');
  const Piece room = target(memory);
  b->post_receive(Rank(0), kTagA, std::span(&room, 1), {});
  const std::string text = "12345";
  const ConstPiece piece = source(text);
  EXPECT_EQ(thrown([&] { a->post_send(Rank(1), kTagA, std::span(&piece, 1), {}); }),
            "protocol: rank 0 sent 5 bytes on tag 16 where rank 1 expects at most 4");
}

TEST(LoopbackTransport, RefusesRanksThatDoNotExist) {
  LoopbackHub hub(2);
  const auto a = hub.endpoint(Rank(0));
  EXPECT_EQ(thrown([&] { a->send_message(Rank(2), make_header(MessageType::go, 0, Clock(0)), {}); }),
            "protocol: there is no rank 2");
  EXPECT_EQ(thrown([&] { a->post_receive(Rank(-1), kTagA, {}, {}); }), "protocol: there is no rank -1");
}

TEST(LoopbackTransport, RefusesBodiesOverTheLimit) {
  LoopbackHub hub(1);
  const auto a = hub.endpoint(Rank(0));
  const std::string_view huge("x", kMaxBodyBytes + 1);  // never read: the length alone is over the limit
  EXPECT_NE(thrown([&] {
              a->send_message(Rank(0), make_header(MessageType::go, 0, Clock(0)), huge);
            }).find("over the limit"),
            std::string::npos);
}

TEST(LoopbackTransport, MemoryIsTheSendersUntilReceived) {
  LoopbackHub hub(2);
  const auto a = hub.endpoint(Rank(0)), b = hub.endpoint(Rank(1));
  std::string text = "first", memory(5, ' ');
  const ConstPiece piece = source(text);
  a->post_send(Rank(1), kTagA, std::span(&piece, 1), {kSent, 0, 0, 0});
  std::vector<Completion> done;
  a->poll_completions(done);
  EXPECT_TRUE(done.empty());  // nobody has received it: not complete, not copied
  text = "other";
  const Piece room = target(memory);
  b->post_receive(Rank(0), kTagA, std::span(&room, 1), {kReceived, 0, 0, 0});
  a->poll_completions(done);
  EXPECT_EQ(done.size(), 1U);
  EXPECT_EQ(memory, "other");
}

TEST(LoopbackTransport, DelaysReorderDifferentSenders) {
  bool overtaken = false;
  for (std::uint64_t seed = 0; seed < 50 && !overtaken; ++seed) {
    LoopbackHub hub(3, {.seed = seed, .max_delay_polls = 5, .silent_rank = {}});
    const auto a = hub.endpoint(Rank(0)), b = hub.endpoint(Rank(1)), c = hub.endpoint(Rank(2));
    a->send_message(Rank(2), make_header(MessageType::go, 0, Clock(0)), {});
    b->send_message(Rank(2), make_header(MessageType::go, 1, Clock(0)), {});
    Message m;
    while (!c->poll_message(m)) {
    }
    overtaken = m.from == Rank(1);
  }
  EXPECT_TRUE(overtaken);
}

TEST(LoopbackTransport, ASilentRankHearsAndSaysNothing) {
  LoopbackHub hub(3, {.seed = 0, .max_delay_polls = 0, .silent_rank = Rank(1)});
  const auto a = hub.endpoint(Rank(0)), b = hub.endpoint(Rank(1)), c = hub.endpoint(Rank(2));
  const MessageHeader h = make_header(MessageType::go, 0, Clock(0));
  a->send_message(Rank(1), h, {});
  b->send_message(Rank(2), h, {});
  a->send_message(Rank(2), h, {});
  std::string text = "data", memory(4, ' ');
  const ConstPiece piece = source(text);
  const Piece room = target(memory);
  a->post_send(Rank(1), kTagA, std::span(&piece, 1), {});
  b->post_receive(Rank(0), kTagA, std::span(&room, 1), {});
  Message m;
  EXPECT_FALSE(b->poll_message(m));
  ASSERT_TRUE(c->poll_message(m));
  EXPECT_EQ(m.from, Rank(0));
  EXPECT_FALSE(c->poll_message(m));
  std::vector<Completion> done;
  a->poll_completions(done);
  b->poll_completions(done);
  EXPECT_TRUE(done.empty());
}

TEST(LoopbackHub, AbortReachesEveryCall) {
  LoopbackHub hub(2);
  const auto a = hub.endpoint(Rank(0)), b = hub.endpoint(Rank(1));
  hub.abort();
  Message m;
  std::vector<Completion> done;
  EXPECT_THROW(a->poll_message(m), Aborted);
  EXPECT_THROW(b->poll_completions(done), Aborted);
  EXPECT_THROW(a->send_message(Rank(1), make_header(MessageType::go, 0, Clock(0)), {}), Aborted);
  EXPECT_THROW(b->post_receive(Rank(0), kTagA, {}, {}), Aborted);
  EXPECT_THROW(a->idle(), Aborted);
}

TEST(LoopbackHub, AbortWakesAnIdleRank) {
  LoopbackHub hub(2);
  const auto a = hub.endpoint(Rank(0));
  std::thread waiter([&] { EXPECT_THROW(for (;;) a->idle(), Aborted); });
  hub.abort();
  waiter.join();
}

}  // namespace
}  // namespace varscope
