#include "common/transport/loopback_transport.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "common/base/error.h"
#include "common/base/philox.h"

namespace varscope {
namespace {

template <class P>
std::size_t total(const std::vector<P>& pieces) {
  std::size_t n = 0;
  for (const P& p : pieces) n += p.n_bytes;
  return n;
}

// Copies scattered memory into scattered memory; the target is at least as long as the source.
void copy_pieces(const std::vector<ConstPiece>& source, const std::vector<Piece>& target) {
  std::size_t t = 0, t_used = 0;
  for (const ConstPiece& s : source) {
    for (std::size_t s_used = 0; s_used < s.n_bytes;) {
      if (t_used == target[t].n_bytes) {
        ++t;
        t_used = 0;
        continue;
      }
      const std::size_t n = std::min(s.n_bytes - s_used, target[t].n_bytes - t_used);
      std::memcpy(target[t].data + t_used, s.data + s_used, n);
      s_used += n;
      t_used += n;
    }
  }
}

}  // namespace

// One rank's end of a hub. Every call locks the hub: ranks of one process share memory, not wires.
class LoopbackTransport : public Transport {
 public:
  LoopbackTransport(LoopbackHub& hub, Rank rank) : hub_(hub), rank_(rank) {}
  Rank rank() const override { return rank_; }
  int size() const override { return static_cast<int>(hub_.endpoints_.size()); }

  void send_message(Rank to, MessageHeader header, std::string_view body) override {
    check_peer(to);
    if (body.size() > kMaxBodyBytes) {
      fail(ErrorKind::protocol, "a message of {} bytes to rank {} is over the limit of {}", body.size(),
           to.value, kMaxBodyBytes);
    }
    header.n_body = static_cast<std::uint32_t>(body.size());
    const std::lock_guard lock(hub_.mutex_);
    hub_.check_alive();
    ++stats_.messages_sent;
    if (hub_.is_silent(rank_, to)) return;
    auto& end = hub_.endpoints_[to];
    end.inbox.push_back({{rank_, header, std::string(body)}, hub_.draw_delay()});
    end.wake.notify_one();
  }

  void post_send(Rank to, DataTag tag, std::span<const ConstPiece> pieces, RequestKey key) override {
    check_peer(to);
    const std::lock_guard lock(hub_.mutex_);
    hub_.check_alive();
    ++stats_.data_sends;
    for (const ConstPiece& piece : pieces) stats_.bytes_sent += piece.n_bytes;
    const LoopbackHub::Channel channel{{rank_, to}, tag.value};
    hub_.sends_[channel].push_back({{pieces.begin(), pieces.end()}, {}, key, to});
    hub_.match(channel);
  }

  void post_receive(Rank from, DataTag tag, std::span<const Piece> pieces, RequestKey key) override {
    check_peer(from);
    const std::lock_guard lock(hub_.mutex_);
    hub_.check_alive();
    ++stats_.data_receives;
    const LoopbackHub::Channel channel{{from, rank_}, tag.value};
    hub_.receives_[channel].push_back({{}, {pieces.begin(), pieces.end()}, key, from});
    hub_.match(channel);
  }

  // The first message whose delay has passed, except that one sender's messages keep their order.
  bool poll_message(Message& out) override {
    const std::lock_guard lock(hub_.mutex_);
    hub_.check_alive();
    auto& inbox = mine().inbox;
    std::vector<int> held;
    for (auto it = inbox.begin(); it != inbox.end(); ++it) {
      const int from = it->message.from.value;
      const bool blocked = std::find(held.begin(), held.end(), from) != held.end();
      if (!blocked && it->delay-- <= 0) {
        out = std::move(it->message);
        inbox.erase(it);
        ++stats_.messages_received;
        return true;
      }
      if (!blocked) held.push_back(from);
    }
    return false;
  }

  void poll_completions(std::vector<Completion>& out) override {
    const std::lock_guard lock(hub_.mutex_);
    hub_.check_alive();
    auto& done = mine().completions;
    for (auto it = done.begin(); it != done.end();) {
      if (it->delay-- > 0) {
        ++it;
        continue;
      }
      out.push_back(it->completion);
      it = done.erase(it);
    }
  }

  void idle() override {
    std::unique_lock lock(hub_.mutex_);
    hub_.check_alive();
    auto& end = mine();
    if (end.inbox.empty() && end.completions.empty()) end.wake.wait_for(lock, wait_time());
    hub_.check_alive();
  }
  void busy() override { n_idle_ = 0; }
  void flush(double) override {}

 private:
  // What arrives wakes; other work of this rank is looked for less often, the longer there is none.
  std::chrono::milliseconds wait_time() {
    constexpr int kLeastMs = 2, kMostMs = 20, kTurnsPerMs = 50;
    n_idle_ = std::min(n_idle_ + 1, kMostMs * kTurnsPerMs);
    return std::chrono::milliseconds(std::clamp(n_idle_ / kTurnsPerMs, kLeastMs, kMostMs));
  }
  LoopbackHub::Endpoint& mine() { return hub_.endpoints_[rank_]; }
  void check_peer(Rank peer) const {
    if (!hub_.endpoints_.has(peer)) fail(ErrorKind::protocol, "there is no rank {}", peer.value);
  }
  LoopbackHub& hub_;
  Rank rank_;
  int n_idle_ = 0;  // turns since there was something to do
};

LoopbackHub::LoopbackHub(int n_ranks, LoopbackFaults faults) : faults_(faults), endpoints_(n_ranks) {}

LoopbackHub::~LoopbackHub() = default;

std::unique_ptr<Transport> LoopbackHub::endpoint(Rank rank) {
  return std::make_unique<LoopbackTransport>(*this, rank);
}

void LoopbackHub::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  for (Endpoint& e : endpoints_) e.wake.notify_all();
}

void LoopbackHub::check_alive() const {
  if (aborted_) throw Aborted();
}

bool LoopbackHub::is_silent(Rank a, Rank b) const {
  return faults_.silent_rank && (*faults_.silent_rank == a || *faults_.silent_rank == b);
}

int LoopbackHub::draw_delay() {
  if (faults_.max_delay_polls == 0) return 0;
  const RandomStream stream(faults_.seed, RandomPurpose::test, 0);
  return static_cast<int>(stream.below(draws_++, static_cast<std::uint64_t>(faults_.max_delay_polls) + 1));
}

void LoopbackHub::match(const Channel& channel) {
  auto& sends = sends_[channel];
  auto& receives = receives_[channel];
  const auto [from, to] = channel.first;
  if (is_silent(from, to)) return;
  while (!sends.empty() && !receives.empty()) {
    const Pending send = std::move(sends.front());
    const Pending receive = std::move(receives.front());
    sends.pop_front();
    receives.pop_front();
    const std::size_t n = total(send.source), room = total(receive.target);
    if (n > room) {
      fail(ErrorKind::protocol, "rank {} sent {} bytes on tag {} where rank {} expects at most {}",
           from.value, n, channel.second, to.value, room);
    }
    copy_pieces(send.source, receive.target);
    for (const auto& [rank, key] : {std::pair(from, send.key), std::pair(to, receive.key)}) {
      auto& end = endpoints_[rank];
      end.completions.push_back({{key, n}, draw_delay()});
      end.wake.notify_one();
    }
  }
}

}  // namespace varscope
