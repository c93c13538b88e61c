#include "common/transport/peer_monitor.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/base/clock.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/wire.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

constexpr double kTimeoutS = 0.08;
constexpr std::int64_t kTimeoutNs = 80'000'000;

struct Fixture {
  LoopbackHub hub{3};
  std::unique_ptr<Transport> mine = hub.endpoint(Rank(0));
  std::unique_ptr<Transport> other = hub.endpoint(Rank(1));
  std::unique_ptr<Transport> third = hub.endpoint(Rank(2));
  PeerMonitor monitor{
      *mine, {{Rank(1), "worker 0 on host n1"}, {Rank(2), "worker 1 on host n2"}}, 7, kTimeoutS};
};

int count_messages(Transport& t, Message& last) {
  int n = 0;
  while (t.poll_message(last)) ++n;
  return n;
}

TEST(PeerMonitor, FirstTickSendsAHeartbeatToEachPeer) {
  Fixture f;
  f.monitor.tick("testing");
  f.monitor.tick("testing");  // at once again: nothing
  for (Transport* peer : {f.other.get(), f.third.get()}) {
    Message m;
    ASSERT_EQ(count_messages(*peer, m), 1);
    EXPECT_EQ(type_of(m.header), MessageType::heartbeat);
    EXPECT_EQ(m.header.sender, 7);
    EXPECT_EQ(m.from, Rank(0));
    EXPECT_EQ(thrown([&] { check_header(m.header, m.body.size(), m.from); }), "no error");
  }
}

TEST(PeerMonitor, WaitsForEverWithoutALimit) {
  for (const double limit : {time_limit(0), 1e10, 1e300}) {
    LoopbackHub hub(2);
    const auto mine = hub.endpoint(Rank(0)), other = hub.endpoint(Rank(1));
    PeerMonitor monitor(*mine, {{Rank(1), "worker 0"}}, 7, limit);
    const std::int64_t end = now_ns() + 2 * kTimeoutNs;
    while (now_ns() < end) monitor.tick("testing");
    Message m;
    EXPECT_EQ(count_messages(*other, m), 1) << limit;
  }
}

TEST(PeerMonitor, SendsFourHeartbeatsPerTimeOut) {
  Fixture f;
  const std::int64_t end = now_ns() + 3 * kTimeoutNs;
  int ticks = 0;
  for (; now_ns() < end; ++ticks) {
    f.monitor.heard(Rank(1));
    f.monitor.heard(Rank(2));
    f.monitor.tick("testing");
    std::this_thread::yield();
  }
  Message m;
  const int n = count_messages(*f.other, m);
  EXPECT_LE(n, 13);  // never more, however often it ticks
  EXPECT_GE(n, 2);   // fewer when this machine stalls
  EXPECT_GT(ticks, n);
}

TEST(PeerMonitor, NamesTheSilentPeer) {
  Fixture f;
  const std::int64_t started = now_ns();
  const std::string error = thrown([&] {
    while (now_ns() < started + 10'000'000'000) {
      f.monitor.heard(Rank(1));
      f.monitor.tick("waiting for values");
      std::this_thread::yield();
    }
  });
  EXPECT_TRUE(error.starts_with("stall: no sign of life from worker 1 on host n2 (rank 2) for ")) << error;
  EXPECT_NE(error.find("while waiting for values"), std::string::npos) << error;
  EXPECT_NE(error.find("cluster.stall_timeout_s"), std::string::npos) << error;
  EXPECT_GE(now_ns() - started, kTimeoutNs);
}

// A rank that was stopped and goes on finds old clocks, but its peers' messages are still unread.
TEST(PeerMonitor, ForgivesPeersWhenItWasAwayItself) {
  Fixture f;
  f.monitor.tick("testing");
  const std::int64_t away = now_ns() + 3 * kTimeoutNs;
  while (now_ns() < away) std::this_thread::yield();
  EXPECT_EQ(thrown([&] { f.monitor.tick("testing"); }), "no error");
}

TEST(PeerMonitor, WithoutPeersNothingHappens) {
  LoopbackHub hub(1);
  const auto t = hub.endpoint(Rank(0));
  PeerMonitor monitor(*t, {}, 0, 0.001);
  const std::int64_t end = now_ns() + 5'000'000;
  while (now_ns() < end) monitor.tick("testing");
  EXPECT_EQ(t->stats().messages_sent, 0U);
}

}  // namespace
}  // namespace varscope
