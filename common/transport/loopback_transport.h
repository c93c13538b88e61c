#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/transport/transport.h"

namespace varscope {

// What a LoopbackHub does to the traffic, for tests. All of it is drawn from `seed`.
struct LoopbackFaults {
  std::uint64_t seed = 0;
  int max_delay_polls = 0;  // a delivery waits for up to this many polls; the order contract still holds
  // Messages from this rank vanish, and data to or from it never moves: as if it were stopped.
  std::optional<Rank> silent_rank;
};

// Thrown out of every endpoint's calls once abort() was called: another rank has failed and reports it.
class Aborted : public std::exception {
 public:
  const char* what() const noexcept override { return "another rank has failed"; }
};

// Connects the ranks of a job that are threads of one process. Data is copied once, from the sender's memory
// into the receiver's. Thread-safe; outlives its endpoints.
class LoopbackHub {
 public:
  explicit LoopbackHub(int n_ranks, LoopbackFaults faults = {});
  ~LoopbackHub();
  // The endpoint of one rank; each is used by one thread.
  std::unique_ptr<Transport> endpoint(Rank rank);
  // Every endpoint throws Aborted from now on.
  void abort();

 private:
  friend class LoopbackTransport;
  struct Pending {
    std::vector<ConstPiece> source;
    std::vector<Piece> target;
    RequestKey key;
    Rank peer;
  };
  struct Delivery {
    Message message;
    int delay;
  };
  struct Done {
    Completion completion;
    int delay;
  };
  struct Endpoint {
    std::deque<Delivery> inbox;
    std::deque<Done> completions;
    std::condition_variable wake;
  };
  using Channel = std::pair<std::pair<Rank, Rank>, int>;  // (from, to), tag

  void match(const Channel& channel);
  int draw_delay();
  bool is_silent(Rank a, Rank b) const;
  void check_alive() const;

  mutable std::mutex mutex_;
  LoopbackFaults faults_;
  std::uint64_t draws_ = 0;
  bool aborted_ = false;
  IdVector<Rank, Endpoint> endpoints_;
  std::map<Channel, std::deque<Pending>> sends_, receives_;
};

}  // namespace varscope
