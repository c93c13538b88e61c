#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/transport/transport.h"
#include "common/transport/wire.h"

// What every Transport must do, written for one rank: run each function on all ranks at once, on fresh
// endpoints. The peers of a rank are all ranks, itself included.
namespace varscope::testing {

inline constexpr double kContractDeadlineS = 20;

// Polls until `done`. `on_message` may be empty where no message may come.
inline void poll_until(Transport& t, const std::function<bool()>& done, std::vector<Completion>* completions,
                       const std::function<void(Message&&)>& on_message = {}) {
  const std::int64_t deadline = now_ns() + static_cast<std::int64_t>(kContractDeadlineS * 1e9);
  while (!done()) {
    if (now_ns() > deadline) throw std::runtime_error("the transport brought nothing more");
    bool worked = false;
    Message message;
    while (t.poll_message(message)) {
      worked = true;
      if (!on_message) throw std::runtime_error("a message nobody sent");
      on_message(std::move(message));
    }
    std::vector<Completion> now;
    t.poll_completions(now);
    if (completions != nullptr) {
      completions->insert(completions->end(), now.begin(), now.end());
    } else if (!now.empty()) {
      throw std::runtime_error("a completion nobody asked for");
    }
    worked |= !now.empty();
    worked ? t.busy() : t.idle();
  }
}

inline std::byte pattern(int from, int to, int tag, int n, std::size_t i) {
  return static_cast<std::byte>(
      (static_cast<std::size_t>(from * 31 + to * 7 + tag * 3 + n * 5) + i * 11 + (i >> 8)) & 0xff);
}

inline std::vector<std::byte> patterned(int from, int to, int tag, int n, std::size_t n_bytes) {
  std::vector<std::byte> all(n_bytes);
  for (std::size_t i = 0; i < n_bytes; ++i) all[i] = pattern(from, to, tag, n, i);
  return all;
}

inline constexpr DataTag kTagA{kTagFirstData};
inline constexpr DataTag kTagB{kTagFirstData + 1};
inline constexpr std::int32_t kSent = 1, kReceived = 2;

// Messages of one sender arrive in order, whole, with their header and body; bodies may be empty.
inline void contract_messages(Transport& t) {
  constexpr int kN = 100;
  const std::size_t sizes[] = {0, 1, 63, 64, 4096, 70'000};
  const auto body_of = [&](int from, int i) {
    return std::string(sizes[static_cast<std::size_t>(i) % std::size(sizes)],
                       static_cast<char>('a' + (from + i) % 26));
  };
  for (int i = 0; i < kN; ++i) {
    for (int to = 0; to < t.size(); ++to) {
      MessageHeader h = make_header(MessageType::step_report, t.rank().value, Clock(i));
      h.bucket = to;
      h.n_bytes = 77;
      t.send_message(Rank(to), h, body_of(t.rank().value, i));
    }
  }
  std::vector<int> next(static_cast<std::size_t>(t.size()), 0);
  int n = 0;
  std::vector<Completion> none;
  poll_until(
      t, [&] { return n == kN * t.size(); }, &none,
      [&](Message&& m) {
        const int from = m.from.value;
        const int i = next[static_cast<std::size_t>(from)]++;
        EXPECT_EQ(m.header.clock, i) << "from rank " << from;
        EXPECT_EQ(m.header.sender, from);
        EXPECT_EQ(m.header.bucket, t.rank().value);
        EXPECT_EQ(m.header.n_bytes, 77U);
        EXPECT_EQ(m.header.n_body, m.body.size());
        EXPECT_EQ(m.body, body_of(from, i));
        ++n;
      });
  EXPECT_TRUE(none.empty());  // messages complete silently
  EXPECT_EQ(t.stats().messages_sent, static_cast<std::uint64_t>(kN * t.size()));
  EXPECT_EQ(t.stats().messages_received, static_cast<std::uint64_t>(kN * t.size()));
  t.flush(10);
}

// Data of one (sender, tag) matches the posted receives in order, many at once, whichever side is first.
inline void contract_data_in_order(Transport& t) {
  constexpr int kN = 60;
  const int me = t.rank().value;
  const auto size_of_nth = [](int n) { return static_cast<std::size_t>((n % 7) * 1000 + n); };
  std::map<std::tuple<int, int, int>, std::vector<std::byte>> sent, received;
  const auto post_sends = [&](DataTag tag) {
    for (int n = 0; n < kN; ++n) {
      for (int to = 0; to < t.size(); ++to) {
        auto& memory = sent[{to, tag.value, n}] = patterned(me, to, tag.value, n, size_of_nth(n));
        const ConstPiece piece{memory.data(), memory.size()};
        t.post_send(Rank(to), tag, std::span(&piece, 1), {kSent, tag.value, to, n});
      }
    }
  };
  const auto post_receives = [&](DataTag tag) {
    for (int n = 0; n < kN; ++n) {
      for (int from = 0; from < t.size(); ++from) {
        auto& memory = received[{from, tag.value, n}];
        memory.assign(size_of_nth(n), std::byte{0});
        const Piece piece{memory.data(), memory.size()};
        t.post_receive(Rank(from), tag, std::span(&piece, 1), {kReceived, tag.value, from, n});
      }
    }
  };
  post_receives(kTagA);  // here receives are first, on the other tag sends
  post_sends(kTagA);
  post_sends(kTagB);
  post_receives(kTagB);
  std::vector<Completion> done;
  poll_until(
      t, [&] { return done.size() == static_cast<std::size_t>(4 * kN * t.size()); }, &done);
  for (const Completion& c : done) EXPECT_EQ(c.n_bytes, size_of_nth(c.key.chunk));
  for (const auto& [key, memory] : received) {
    const auto& [from, tag, n] = key;
    EXPECT_EQ(memory, patterned(from, me, tag, n, memory.size()))
        << "from " << from << " tag " << tag << " nth " << n;
  }
  t.flush(10);
}

// Sends gather and receives scatter, with pieces cut differently on both sides, and a gap of 3 bytes after
// every `gap_every` of them (0: none; the send is one piece and the receive is its neighbours); memory beside
// the pieces stays as it is.
inline void contract_scatter_gather(Transport& t, std::size_t n_bytes, std::size_t gap_every = 1) {
  const int me = t.rank().value;
  const auto is_before_gap = [&](std::size_t piece) {
    return gap_every > 0 && piece % gap_every == gap_every - 1;
  };
  const auto cut_into = [&](std::byte* memory, std::size_t step) {
    std::vector<Piece> pieces;
    std::size_t at = 0;
    for (std::size_t left = n_bytes; left > 0;) {
      const std::size_t n = std::min(step, left);
      pieces.push_back({memory + at, n});
      at += n + (is_before_gap(pieces.size() - 1) ? 3 : 0);
      left -= n;
    }
    return pieces;
  };
  constexpr std::size_t kReceiveStep = 333;
  const std::size_t send_step = gap_every == 0 ? n_bytes : 1000;
  std::vector<std::vector<std::byte>> sent, received;
  std::vector<std::vector<Piece>> targets;
  for (int peer = 0; peer < t.size(); ++peer) {
    const auto whole = patterned(me, peer, 0, 0, n_bytes);
    sent.emplace_back(n_bytes + 3 * (n_bytes / send_step + 1), std::byte{0xee});
    std::vector<ConstPiece> sources;
    std::size_t at = 0;
    for (const Piece& p : cut_into(sent.back().data(), send_step)) {
      std::memcpy(p.data, whole.data() + at, p.n_bytes);
      at += p.n_bytes;
      sources.push_back({p.data, p.n_bytes});
    }
    t.post_send(Rank(peer), kTagA, sources, {kSent, 0, peer, 0});
    received.emplace_back(n_bytes + 3 * (n_bytes / kReceiveStep + 1), std::byte{0xdd});
    targets.push_back(cut_into(received.back().data(), kReceiveStep));
    t.post_receive(Rank(peer), kTagA, targets.back(), {kReceived, 0, peer, 0});
  }
  std::vector<Completion> done;
  poll_until(
      t, [&] { return done.size() == static_cast<std::size_t>(2 * t.size()); }, &done);
  for (const Completion& c : done) EXPECT_EQ(c.n_bytes, n_bytes);
  for (int peer = 0; peer < t.size(); ++peer) {
    const auto p = static_cast<std::size_t>(peer);
    std::vector<std::byte> got;
    for (std::size_t i = 0; i < targets[p].size(); ++i) {
      const Piece& piece = targets[p][i];
      got.insert(got.end(), piece.data, piece.data + piece.n_bytes);
      if ((is_before_gap(i) || i + 1 == targets[p].size()) &&
          piece.data + piece.n_bytes < received[p].data() + received[p].size()) {
        EXPECT_EQ(piece.data[piece.n_bytes], std::byte{0xdd}) << "written beside a piece";
      }
    }
    EXPECT_TRUE(got == patterned(peer, me, 0, 0, n_bytes)) << "from rank " << peer;
  }
  t.flush(10);
}

// One piece of n_bytes to everyone at once; also nothing at all.
inline void contract_block(Transport& t, std::size_t n_bytes) {
  const int me = t.rank().value;
  std::vector<std::vector<std::byte>> sent, received;
  for (int peer = 0; peer < t.size(); ++peer) {
    sent.push_back(patterned(me, peer, 1, 0, n_bytes));
    received.emplace_back(n_bytes, std::byte{0});
    const ConstPiece source{sent.back().data(), n_bytes};
    const Piece target{received.back().data(), n_bytes};
    t.post_send(Rank(peer), kTagA, std::span(&source, 1), {kSent, 0, peer, 0});
    t.post_receive(Rank(peer), kTagA, std::span(&target, 1), {kReceived, 0, peer, 0});
  }
  std::vector<Completion> done;
  poll_until(
      t, [&] { return done.size() == static_cast<std::size_t>(2 * t.size()); }, &done);
  for (int peer = 0; peer < t.size(); ++peer) {
    EXPECT_TRUE(received[static_cast<std::size_t>(peer)] == patterned(peer, me, 1, 0, n_bytes))
        << "from rank " << peer;
  }
  for (const Completion& c : done) EXPECT_EQ(c.n_bytes, n_bytes);
  t.flush(10);
}

// A shorter send completes the receive with fewer bytes, also with several pieces and with none.
inline void contract_short_send(Transport& t) {
  const int me = t.rank().value, to = (me + 1) % t.size(), from = (me + t.size() - 1) % t.size();
  const auto memory = patterned(me, to, 2, 0, 10);
  std::vector<std::byte> one(16, std::byte{0xdd}), other(16, std::byte{0xdd}), third(16, std::byte{0xdd});
  const Piece whole{one.data(), 16};
  const Piece parts[] = {{other.data(), 4}, {other.data() + 8, 8}};
  const Piece last{third.data(), 16};
  t.post_receive(Rank(from), kTagA, std::span(&whole, 1), {kReceived, 0, 0, 0});
  t.post_receive(Rank(from), kTagA, parts, {kReceived, 0, 0, 1});
  t.post_receive(Rank(from), kTagA, std::span(&last, 1), {kReceived, 0, 0, 2});
  const ConstPiece source{memory.data(), 10};
  t.post_send(Rank(to), kTagA, std::span(&source, 1), {kSent, 0, 0, 0});
  t.post_send(Rank(to), kTagA, std::span(&source, 1), {kSent, 0, 0, 1});
  t.post_send(Rank(to), kTagA, {}, {kSent, 0, 0, 2});
  std::vector<Completion> done;
  poll_until(
      t, [&] { return done.size() == 6; }, &done);
  for (const Completion& c : done) EXPECT_EQ(c.n_bytes, c.key.chunk == 2 ? 0U : 10U) << c.key.what;
  const auto expected = patterned(from, me, 2, 0, 10);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), one.begin()));
  EXPECT_EQ(one[10], std::byte{0xdd});
  EXPECT_TRUE(std::equal(expected.begin(), expected.begin() + 4, other.begin()));
  EXPECT_TRUE(std::equal(expected.begin() + 4, expected.end(), other.begin() + 8));
  EXPECT_EQ(third[0], std::byte{0xdd});
  t.flush(10);
}

}  // namespace varscope::testing
