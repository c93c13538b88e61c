#include "common/transport/peer_monitor.h"

#include <algorithm>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/transport/wire.h"

namespace varscope {

PeerMonitor::PeerMonitor(Transport& transport, std::vector<Peer> peers, int sender, double timeout_s)
    : transport_(transport),
      peers_(std::move(peers)),
      heard_ns_(transport.size(), now_ns()),
      sender_(sender),
      timeout_ns_(ns_of(timeout_s)),
      last_tick_ns_(now_ns()) {}

void PeerMonitor::heard(Rank rank) { heard_ns_[rank] = now_ns(); }

void PeerMonitor::tick(const char* doing) {
  const std::int64_t now = now_ns();
  if (now < next_tick_ns_) return;
  // If it was this rank that did not run for a while (stopped and continued, or a slow step), the peers'
  // messages are still unread: give them the benefit of the doubt.
  if (now - last_tick_ns_ > timeout_ns_ / 2) {
    for (std::int64_t& heard : heard_ns_) heard = std::max(heard, now - timeout_ns_ / 2);
  }
  last_tick_ns_ = now;
  next_tick_ns_ = now + timeout_ns_ / 4;
  for (const Peer& peer : peers_) {
    const std::int64_t silent = now - heard_ns_[peer.rank];
    if (silent > timeout_ns_) {
      fail(ErrorKind::stall,
           "no sign of life from {} (rank {}) for {:.1f} s while {}; it is stopped, cut off or overloaded. "
           "Look at that host (the limit is cluster.stall_timeout_s)",
           peer.name, peer.rank.value, static_cast<double>(silent) * 1e-9, doing);
    }
    transport_.send_message(peer.rank, make_header(MessageType::heartbeat, sender_, Clock(0)));
  }
}

}  // namespace varscope
