#include "worker/client/variable_memory.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "common/base/sum.h"

namespace varscope {
namespace {

AlignedBytes zeroed(std::int64_t n_bytes) {
  AlignedBytes memory = allocate_aligned(static_cast<std::size_t>(n_bytes));
  std::memset(memory.get(), 0, static_cast<std::size_t>(n_bytes));
  return memory;
}

}  // namespace

VariableMemory::VariableMemory(const VariableTable& variables, int n_gradient_buffers, int n_sets)
    : variables_(variables) {
  for (const VariableSpec& v : variables.variables()) {
    offsets_.push_back(n_bytes_);
    const std::int64_t n = v.shape.n_elements() * static_cast<std::int64_t>(size_of(v.dtype));
    n_bytes_ += (n + static_cast<std::int64_t>(kAlignment) - 1) / static_cast<std::int64_t>(kAlignment) *
                static_cast<std::int64_t>(kAlignment);
  }
  for (int i = 0; i < n_sets; ++i) values_.push_back(zeroed(n_bytes_));
  for (int i = 0; i < n_gradient_buffers * n_sets; ++i) gradients_.push_back(zeroed(n_bytes_));
}

void VariableMemory::spread_values(int set) {
  const AlignedBytes& from = values_[static_cast<std::size_t>(set)];
  for (const AlignedBytes& to : values_) {
    if (&to != &from) std::memcpy(to.get(), from.get(), static_cast<std::size_t>(n_bytes_));
  }
}

TensorView VariableMemory::view(const AlignedBytes& arena, int variable) const {
  const VariableSpec& v = variables_[static_cast<std::size_t>(variable)];
  return {v.dtype, v.shape, arena.get() + offsets_[static_cast<std::size_t>(variable)]};
}

TensorView VariableMemory::gradient(int buffer, int variable) const {
  if (!variables_[static_cast<std::size_t>(variable)].is_pushed()) return {};
  return view(gradients_[static_cast<std::size_t>(buffer)], variable);
}

void VariableMemory::add_gradients(const Bucket& bucket, int into, int from) {
  const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
  for (const BucketSlice& s : bucket.slices) {
    const std::int64_t at = offsets_[static_cast<std::size_t>(s.variable)] + s.variable_begin * item;
    std::byte* a = gradients_[static_cast<std::size_t>(into)].get() + at;
    const std::byte* b = gradients_[static_cast<std::size_t>(from)].get() + at;
    add_into(bucket.dtype, a, b, static_cast<std::size_t>(s.n_elements * item));
  }
}

void VariableMemory::zero_gradients(int buffer) {
  std::memset(gradients_[static_cast<std::size_t>(buffer)].get(), 0, static_cast<std::size_t>(n_bytes_));
}

template <class P>
void VariableMemory::pieces(const Bucket& bucket, std::byte* arena, const WireChunk& chunk,
                            std::vector<P>& out) const {
  const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
  const std::int64_t begin = chunk.begin, end = begin + chunk.n_bytes;
  // The first slice that reaches past `begin`: slices lie in the bucket in order and without gaps.
  auto it = std::partition_point(bucket.slices.begin(), bucket.slices.end(), [&](const BucketSlice& s) {
    return (s.bucket_begin + s.n_elements) * item <= begin;
  });
  for (; it != bucket.slices.end() && it->bucket_begin * item < end; ++it) {
    const std::int64_t from = std::max(begin, it->bucket_begin * item);
    const std::int64_t to = std::min(end, (it->bucket_begin + it->n_elements) * item);
    std::byte* at = arena + offsets_[static_cast<std::size_t>(it->variable)] + it->variable_begin * item +
                    (from - it->bucket_begin * item);
    if (!out.empty() && out.back().data + out.back().n_bytes == at) {
      out.back().n_bytes += static_cast<std::size_t>(to - from);
    } else {
      out.push_back({at, static_cast<std::size_t>(to - from)});
    }
  }
}

void VariableMemory::value_pieces(const Bucket& bucket, int set, const WireChunk& chunk,
                                  std::vector<Piece>& out) const {
  pieces(bucket, values_[static_cast<std::size_t>(set)].get(), chunk, out);
}

void VariableMemory::gradient_pieces(const Bucket& bucket, int buffer, const WireChunk& chunk,
                                     std::vector<ConstPiece>& out) const {
  pieces(bucket, gradients_[static_cast<std::size_t>(buffer)].get(), chunk, out);
}

}  // namespace varscope
