#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/transport/transport.h"

namespace varscope {

// Notices a peer that has gone silent (stopped, cut off, stuck): every rank sends a heartbeat to each of its
// peers four times per time-out, from the loop that also does its work, and throws Error(stall) that names
// the first peer it has not heard of for the whole time-out. Not thread-safe.
class PeerMonitor {
 public:
  struct Peer {
    Rank rank;
    std::string name;  // "worker 1 on host n3"
  };
  // `sender` goes into the heartbeats' header. An infinite time-out is none.
  PeerMonitor(Transport& transport, std::vector<Peer> peers, int sender, double timeout_s);

  // A message or data of this rank has arrived.
  void heard(Rank rank);
  // Call often; cheap. `doing` says what this rank waits for, for the message.
  void tick(const char* doing);

 private:
  Transport& transport_;
  std::vector<Peer> peers_;
  IdVector<Rank, std::int64_t> heard_ns_;
  int sender_;
  std::int64_t timeout_ns_;
  std::int64_t next_tick_ns_ = 0;
  std::int64_t last_tick_ns_;
};

}  // namespace varscope
