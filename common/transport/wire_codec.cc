#include "common/transport/wire_codec.h"

#include "common/base/error.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

DataTag tag_of(Flow flow, BucketId bucket) {
  return flow == Flow::gradients ? push_tag(bucket) : value_tag(bucket);
}

RequestKey key_of(Flow flow, const Bucket& bucket, int chunk, int contribution) {
  return {static_cast<std::int32_t>(flow), bucket.id.value, contribution, chunk};
}

}  // namespace

void WireCodec::send(Flow flow, Rank to, const Bucket& bucket, int chunk, int contribution,
                     std::span<const ConstPiece> elements) {
  transport_.post_send(to, tag_of(flow, bucket.id), elements, key_of(flow, bucket, chunk, contribution));
}

void WireCodec::receive(Flow flow, Rank from, const Bucket& bucket, int chunk, int contribution,
                        std::span<const Piece> elements) {
  transport_.post_receive(from, tag_of(flow, bucket.id), elements, key_of(flow, bucket, chunk, contribution));
}

void WireCodec::arrived(const Bucket& bucket, const Completion& received) const {
  const auto expected = static_cast<std::size_t>(bucket.wire_chunk(received.key.chunk).n_bytes);
  if (received.n_bytes == expected) return;
  fail(ErrorKind::protocol, "wire chunk {} of bucket {} ({}, of server {}) has {} bytes instead of {}",
       received.key.chunk, bucket.id.value, bucket.scope, bucket.server.value, received.n_bytes, expected);
}

}  // namespace varscope
