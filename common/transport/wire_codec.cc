#include "common/transport/wire_codec.h"

#include <utility>

#include "common/base/error.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

DataTag tag_of(Flow flow, BucketId bucket) {
  return flow == Flow::gradients ? push_tag(bucket) : value_tag(bucket);
}

RequestKey request(Flow flow, const Bucket& bucket, int chunk, int contribution) {
  return {static_cast<std::int32_t>(flow), bucket.id.value, contribution, chunk};
}

std::size_t slice_bytes(const Codec& codec, const BucketSlice& slice) {
  return encoded_bytes(codec.type, static_cast<std::size_t>(slice.n_elements), codec.ratio);
}

void require_whole(const Bucket& bucket, const Completion& received, std::int64_t expected) {
  if (static_cast<std::int64_t>(received.n_bytes) == expected) return;
  fail(ErrorKind::protocol, "wire chunk {} of bucket {} ({}, of server {}) has {} bytes instead of {}",
       received.key.chunk, bucket.id.value, bucket.scope, bucket.server.value, received.n_bytes, expected);
}

}  // namespace

std::optional<Codec> codec_of(const Bucket& bucket, Flow flow) {
  if (flow == Flow::gradients)
    return bucket.compression.type ? std::optional(bucket.compression.codec()) : std::nullopt;
  if (bucket.compression.values == ValueForm::full) return std::nullopt;
  return Codec{CodecType::bf16};
}

WireForm form_of_values(const Bucket& bucket) {
  return codec_of(bucket, Flow::values) ? WireForm::encoded : WireForm::full;
}

std::int64_t wire_bytes(const Bucket& bucket, Flow flow, WireForm form, const WireChunk& chunk) {
  if (form == WireForm::full) return chunk.n_bytes;
  const Codec codec = codec_of(bucket, flow).value();
  std::size_t n = 0;
  for (const BucketSlice& s : bucket.slices_of(chunk)) n += slice_bytes(codec, s);
  return static_cast<std::int64_t>(n);
}

std::int64_t wire_bytes(const Bucket& bucket, Flow flow, WireForm form) {
  if (form == WireForm::full) return bucket.n_bytes();
  std::int64_t n = 0;
  for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk)
    n += wire_bytes(bucket, flow, form, bucket.wire_chunk(chunk));
  return n;
}

void encode_chunk(const Bucket& bucket, const WireChunk& chunk, std::span<const std::byte> elements,
                  std::span<std::byte> to) {
  const Codec codec = codec_of(bucket, Flow::values).value();
  const auto* values = reinterpret_cast<const float*>(elements.data());
  for (const BucketSlice& s : bucket.slices_of(chunk)) {
    const std::size_t n = slice_bytes(codec, s);
    encode_values({values, static_cast<std::size_t>(s.n_elements)}, to.first(n));
    values += s.n_elements;
    to = to.subspan(n);
  }
}

void WireCodec::send(Flow flow, Rank to, const Bucket& bucket, int chunk, int contribution,
                     std::span<const ConstPiece> elements) {
  transport_.post_send(to, tag_of(flow, bucket.id), elements, request(flow, bucket, chunk, contribution));
}

void WireCodec::send_encoded_values(Rank to, const Bucket& bucket, int chunk, int contribution,
                                    std::span<const std::byte> elements) {
  const RequestKey key = request(Flow::values, bucket, chunk, contribution);
  const WireChunk part = bucket.wire_chunk(chunk);
  const auto n_bytes = static_cast<std::size_t>(wire_bytes(bucket, Flow::values, WireForm::encoded, part));
  const auto [at, is_new] = sending_.try_emplace(key_of(key));
  if (!is_new) {
    fail(ErrorKind::argument, "wire chunk {} of bucket {} is sent twice as contribution {}", chunk,
         bucket.id.value, contribution);
  }
  at->second = {pool_.take(n_bytes), n_bytes};
  encode_chunk(bucket, part, elements, {at->second.bytes.get(), n_bytes});
  const ConstPiece piece{at->second.bytes.get(), n_bytes};
  transport_.post_send(to, tag_of(Flow::values, bucket.id), std::span(&piece, 1), key);
}

void WireCodec::send_as_is(Flow flow, Rank to, const Bucket& bucket, int chunk, int contribution,
                           std::span<const std::byte> bytes) {
  const ConstPiece piece{bytes.data(), bytes.size()};
  transport_.post_send(to, tag_of(flow, bucket.id), std::span(&piece, 1),
                       request(flow, bucket, chunk, contribution));
}

void WireCodec::receive(Flow flow, Rank from, const Bucket& bucket, int chunk, int contribution,
                        std::span<const Piece> elements, WireForm form) {
  const RequestKey key = request(flow, bucket, chunk, contribution);
  if (form == WireForm::full) return transport_.post_receive(from, tag_of(flow, bucket.id), elements, key);
  const auto n_bytes = static_cast<std::size_t>(wire_bytes(bucket, flow, form, bucket.wire_chunk(chunk)));
  Staged& staged = receiving_[key_of(key)];
  staged = {pool_.take(n_bytes), n_bytes, {elements.begin(), elements.end()}};
  const Piece piece{staged.bytes.get(), n_bytes};
  transport_.post_receive(from, tag_of(flow, bucket.id), std::span(&piece, 1), key);
}

void WireCodec::arrived(const Bucket& bucket, const Completion& received) {
  const WireChunk part = bucket.wire_chunk(received.key.chunk);
  const auto found = receiving_.find(key_of(received.key));
  if (found == receiving_.end()) return require_whole(bucket, received, part.n_bytes);
  Staged staged = std::move(found->second);
  receiving_.erase(found);
  require_whole(bucket, received, static_cast<std::int64_t>(staged.n_bytes));
  const Codec codec = codec_of(bucket, flow_of(received)).value();
  std::span<const std::byte> bytes(staged.bytes.get(), staged.n_bytes);
  auto piece = staged.elements.begin();
  for (const BucketSlice& s : bucket.slices_of(part)) {
    const auto n_elements = static_cast<std::size_t>(s.n_elements);
    while (piece != staged.elements.end() && piece->n_bytes == 0) ++piece;
    if (piece == staged.elements.end() || piece->n_bytes < n_elements * sizeof(float))
      fail(ErrorKind::argument, "bucket {} has no room for a slice of {} elements", bucket.id.value,
           n_elements);
    const std::size_t n = slice_bytes(codec, s);
    decode_gradient(codec, bytes.first(n), {reinterpret_cast<float*>(piece->data), n_elements});
    bytes = bytes.subspan(n);
    piece->data += n_elements * sizeof(float);
    piece->n_bytes -= n_elements * sizeof(float);
  }
  pool_.give(std::move(staged.bytes), staged.n_bytes);
}

void WireCodec::sent(const Completion& completion) {
  const auto found = sending_.find(key_of(completion.key));
  if (found == sending_.end()) return;
  pool_.give(std::move(found->second.bytes), found->second.n_bytes);
  sending_.erase(found);
}

}  // namespace varscope
