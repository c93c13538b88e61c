#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/types.h"

namespace varscope {

// The fixed header of every message, 64 bytes, as it lies in memory (all ranks have one byte order: checked
// at start-up).
struct MessageHeader {
  std::uint32_t magic = 0;
  std::uint16_t version = 0;
  std::uint16_t type = 0;       // MessageType
  std::int32_t sender = 0;      // WorkerId or ServerId, by type
  std::int32_t bucket = -1;     // BucketId, or -1
  std::int64_t clock = 0;       // the step this message belongs to
  std::int64_t sequence = 0;    // pushes: a worker's pushes to one server, from 1; cuts: the try, from 0;
                                // norms: how many doubles came before
  std::uint64_t n_bytes = 0;    // of the payload that follows on a data tag
  std::int32_t leaf_begin = 0;  // pushes: the first leaf of the canonical sum that is contributed
  std::int32_t n_contributions = 0;  // pushes: how many follow, interleaved chunk by chunk
  std::uint32_t flags = 0;
  std::uint32_t n_body = 0;    // bytes after this header, in the same message
  std::uint64_t gated_ns = 0;  // values and rows: how long they waited for other workers' pushes (SSP, cuts)
};
static_assert(sizeof(MessageHeader) == 64);

struct Message {
  Rank from;
  MessageHeader header;
  std::string body;
};

struct DataTag {
  int value;
};

// The caller's name for a posted request, given back on completion.
struct RequestKey {
  std::int32_t what = 0;
  std::int32_t bucket = 0;
  std::int32_t contribution = 0;
  std::int32_t chunk = 0;
};

struct Completion {
  RequestKey key;
  std::size_t n_bytes = 0;  // that arrived; for sends, that were sent
};

// Counts of what passed through; for statistics and tests.
struct TransportStats {
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t data_sends = 0;
  std::uint64_t data_receives = 0;
  std::uint64_t bytes_sent = 0;  // data only
  std::uint64_t bytes_received = 0;
};

inline constexpr std::size_t kMaxBodyBytes = std::size_t{64} << 20;

// Point-to-point transport between the ranks of one job. Two kinds of traffic: small self-describing
// messages, which arrive unasked, and data, which goes from given memory into given memory that both sides
// agreed on beforehand.
//
// Contract: messages of one sender to one receiver arrive in order; data of one (sender, tag) matches posted
// receives in order; memory given to post_send or post_receive must stay alive and, for sends, unchanged
// until its completion is polled. Nothing moves unless somebody polls. One thread per endpoint; owns no
// caller memory. Every call throws Error(mpi or protocol) naming the peer.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual Rank rank() const = 0;
  virtual int size() const = 0;

  // Copies header and body; n_body is filled in. Returns at once.
  virtual void send_message(Rank to, MessageHeader header, std::string_view body = {}) = 0;
  virtual void post_send(Rank to, DataTag tag, std::span<const ConstPiece> pieces, RequestKey key) = 0;
  // The sender's data must have exactly the pieces' total length: a shorter one completes with fewer n_bytes,
  // which the caller must check; a longer one throws.
  virtual void post_receive(Rank from, DataTag tag, std::span<const Piece> pieces, RequestKey key) = 0;

  // Takes the next message that has arrived; false when there is none.
  virtual bool poll_message(Message& out) = 0;
  // Appends the requests that have completed since the last call.
  virtual void poll_completions(std::vector<Completion>& out) = 0;
  // One idle moment: call after a poll that brought nothing. Over MPI as Backoff has it; in one process it
  // waits to be woken.
  virtual void idle() = 0;
  // Something was done: the next idle() starts to spin again.
  virtual void busy() = 0;
  // Waits until everything sent has left; up to `timeout_s`.
  virtual void flush(double timeout_s) = 0;

  const TransportStats& stats() const { return stats_; }

 protected:
  TransportStats stats_;
};

}  // namespace varscope
