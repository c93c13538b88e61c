#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "common/base/buffer_pool.h"
#include "common/compression/codec.h"
#include "common/placement/bucket_plan.h"
#include "common/transport/transport.h"

namespace varscope {

// The two ways that a bucket's data goes: from workers to its server, and back.
enum class Flow : std::int32_t { gradients = 1, values = 2 };

// How a wire chunk travels: as its elements lie in memory; or each of its slices encoded (codec.h), one after
// the other. Both ends know which before the data come.
enum class WireForm : std::uint8_t { full, encoded };

// By what a bucket's slices are encoded that way; nothing: they travel in full always.
std::optional<Codec> codec_of(const Bucket& bucket, Flow flow);
// The form of values that nobody needs in full.
WireForm form_of_values(const Bucket& bucket);
// The bytes of a chunk, and of all chunks. REQUIRES codec_of() where the form is encoded.
std::int64_t wire_bytes(const Bucket& bucket, Flow flow, WireForm form, const WireChunk& chunk);
std::int64_t wire_bytes(const Bucket& bucket, Flow flow, WireForm form);

// Encodes a chunk's values, as they lie in memory, into wire_bytes() bytes. REQUIRES codec_of() of values.
void encode_chunk(const Bucket& bucket, const WireChunk& chunk, std::span<const std::byte> elements,
                  std::span<std::byte> to);

// What wire chunks are while they travel. In full they are the bytes of their elements as they lie in memory,
// so that nothing is staged at either end. Codes are staged: of values they are made by encode_chunk(), of
// gradients by whoever keeps the residuals (send_as_is()); both are decoded by arrived(). Nobody else knows
// that form.
//
// Borrows the transport; owns what is staged. Not thread-safe.
class WireCodec {
 public:
  explicit WireCodec(Transport& transport) : transport_(transport) {}

  // `elements`: the chunk in the sender's memory, which must stay unchanged until the send has completed.
  // `contribution`: the RequestKey's.
  void send(Flow flow, Rank to, const Bucket& bucket, int chunk, int contribution,
            std::span<const ConstPiece> elements);
  // Values, encoded; the elements are free at once. sent() takes the completion. Several sends of a chunk
  // that are under way at a time have contributions of their own.
  void send_encoded_values(Rank to, const Bucket& bucket, int chunk, int contribution,
                           std::span<const std::byte> elements);
  // A chunk that has the form in which it travels already; `bytes` must stay unchanged until the send has
  // completed.
  void send_as_is(Flow flow, Rank to, const Bucket& bucket, int chunk, int contribution,
                  std::span<const std::byte> bytes);
  // `elements`: where the chunk goes; they are there after arrived(). Encoded, a slice lies in one piece.
  void receive(Flow flow, Rank from, const Bucket& bucket, int chunk, int contribution,
               std::span<const Piece> elements, WireForm form = WireForm::full);
  // Throws Error(protocol) for a chunk that is not whole, or that no encoder has made.
  void arrived(const Bucket& bucket, const Completion& received);
  void sent(const Completion& completion);

  static Flow flow_of(const Completion& completion) { return static_cast<Flow>(completion.key.what); }

 private:
  struct Staged {
    AlignedBytes bytes;
    std::size_t n_bytes = 0;
    std::vector<Piece> elements = {};  // of a receive
  };
  using Key = std::tuple<std::int32_t, std::int32_t, std::int32_t, std::int32_t>;
  static Key key_of(const RequestKey& k) { return {k.what, k.bucket, k.contribution, k.chunk}; }

  Transport& transport_;
  std::map<Key, Staged> receiving_, sending_;
  BufferPool pool_;
};

}  // namespace varscope
