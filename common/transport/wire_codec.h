#pragma once

#include <cstdint>
#include <span>

#include "common/placement/bucket_plan.h"
#include "common/transport/transport.h"

namespace varscope {

// The two ways that a bucket's data goes: from workers to its server, and back.
enum class Flow : std::int32_t { gradients = 1, values = 2 };

// The form in which a wire chunk travels: the bytes of its elements as they lie in memory, so that nothing is
// staged at either end. Every chunk passes here twice: it leaves by send() and, once its receive has
// completed, enters by arrived(). A form of fewer bytes (bf16, a bit per element) is made in the one and
// undone in the other; nobody else knows that form, nor its length.
//
// Borrows the transport. Not thread-safe.
class WireCodec {
 public:
  explicit WireCodec(Transport& transport) : transport_(transport) {}

  // `elements`: the chunk in the sender's memory, which must stay unchanged until the send has completed.
  // `contribution`: the RequestKey's.
  void send(Flow flow, Rank to, const Bucket& bucket, int chunk, int contribution,
            std::span<const ConstPiece> elements);
  // `elements`: where the chunk goes; they are there after arrived().
  void receive(Flow flow, Rank from, const Bucket& bucket, int chunk, int contribution,
               std::span<const Piece> elements);
  // Throws Error(protocol) for a chunk that is not whole.
  void arrived(const Bucket& bucket, const Completion& received) const;

  static Flow flow_of(const Completion& completion) { return static_cast<Flow>(completion.key.what); }

 private:
  Transport& transport_;
};

}  // namespace varscope
