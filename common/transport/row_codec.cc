#include "common/transport/row_codec.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/placement/bucket_plan.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

constexpr auto kChunk = static_cast<std::size_t>(kWireChunkBytes);

// Calls f(chunk, begin, n_bytes) for each message of a run; returns how many there are.
template <class F>
int for_each_chunk(std::size_t n_bytes, const F& f) {
  int chunk = 0;
  for (std::size_t begin = 0; begin < n_bytes; begin += kChunk)
    f(chunk++, begin, std::min(kChunk, n_bytes - begin));
  return chunk;
}

RequestKey key_of(RowFlow flow, TableId table, int peer, int chunk) {
  return {static_cast<std::int32_t>(flow), table.value, peer, chunk};
}

}  // namespace

DataTag RowCodec::tag_of(RowFlow flow, TableId table) const {
  switch (flow) {
    case RowFlow::ids:
      return row_ids_tag(n_buckets_, table);
    case RowFlow::gradients:
      return row_gradients_tag(n_buckets_, table);
    case RowFlow::values:
      break;
  }
  return row_values_tag(n_buckets_, table);
}

int RowCodec::send(RowFlow flow, Rank to, TableId table, int peer, std::span<const std::byte> bytes) {
  return for_each_chunk(bytes.size(), [&](int chunk, std::size_t begin, std::size_t n) {
    const ConstPiece piece{bytes.data() + begin, n};
    transport_.post_send(to, tag_of(flow, table), std::span(&piece, 1), key_of(flow, table, peer, chunk));
  });
}

int RowCodec::receive(RowFlow flow, Rank from, TableId table, int peer, std::span<std::byte> bytes) {
  return for_each_chunk(bytes.size(), [&](int chunk, std::size_t begin, std::size_t n) {
    const Piece piece{bytes.data() + begin, n};
    transport_.post_receive(from, tag_of(flow, table), std::span(&piece, 1),
                            key_of(flow, table, peer, chunk));
  });
}

void RowCodec::arrived(const Completion& received, std::size_t n_bytes) {
  const std::size_t begin = static_cast<std::size_t>(received.key.chunk) * kChunk;
  const std::size_t expected = std::min(kChunk, n_bytes - begin);
  if (received.n_bytes == expected) return;
  fail(ErrorKind::protocol, "message {} of the rows of table {} has {} bytes instead of {}",
       received.key.chunk, received.key.bucket, received.n_bytes, expected);
}

RowsPushLayout::RowsPushLayout(std::span<const std::uint32_t> n_rows, std::size_t row_bytes, bool has_counts)
    : n_numbers_(has_counts ? 2 : 1), at_{0} {
  for (const std::uint32_t n : n_rows) {
    n_rows_.push_back(n);
    at_.push_back(at_.back() + numbers_bytes(n) + padded(n * row_bytes));
  }
}

}  // namespace varscope
