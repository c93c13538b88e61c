#pragma once

#include <vector>

#include "common/base/tensor.h"
#include "common/placement/bucket_plan.h"

namespace varscope {

// A worker's memory for the variables that live on servers: one arena of values, into which pulls land and
// from which ops read, and `n_gradient_buffers` arenas of gradients with the same layout, into which backward
// writes and from which pushes are sent. With cluster.delay several sets of these: values after step v land
// in set v mod n_sets, and gradients of step t are in the buffers of set t mod n_sets. A buffer is called by
// its number among those of all sets. Each variable starts on a 64-byte boundary. Owns its memory; not
// thread-safe.
class VariableMemory {
 public:
  VariableMemory(const VariableTable& variables, int n_gradient_buffers, int n_sets = 1);

  int n_sets() const { return static_cast<int>(values_.size()); }
  int set_of(Clock clock) const { return static_cast<int>(clock.value % n_sets()); }
  // Buffer i of those that gradients of step `clock` are in.
  int buffer_of(int i, Clock clock) const { return set_of(clock) * n_gradient_buffers() + i; }
  TensorView value(int variable, int set = 0) const {
    return view(values_[static_cast<std::size_t>(set)], variable);
  }
  // Empty for a variable that is not pushed.
  TensorView gradient(int buffer, int variable) const;
  const VariableTable& variables() const { return variables_; }
  // Of each set.
  int n_gradient_buffers() const { return static_cast<int>(gradients_.size() / values_.size()); }
  // Copies a set's values into all others.
  void spread_values(int set);
  // Adds gradient buffer `from` to `into`, for the elements of one bucket only.
  void add_gradients(const Bucket& bucket, int into, int from);
  void zero_gradients(int buffer);

  // The memory of one wire chunk of a bucket, in order; adjacent runs are joined.
  void value_pieces(const Bucket& bucket, int set, const WireChunk& chunk, std::vector<Piece>& out) const;
  void gradient_pieces(const Bucket& bucket, int buffer, const WireChunk& chunk,
                       std::vector<ConstPiece>& out) const;
  std::int64_t n_bytes() const { return n_bytes_ * (1 + n_gradient_buffers()) * n_sets(); }

 private:
  TensorView view(const AlignedBytes& arena, int variable) const;
  template <class P>
  void pieces(const Bucket& bucket, std::byte* arena, const WireChunk& chunk, std::vector<P>& out) const;

  const VariableTable& variables_;
  std::vector<std::int64_t> offsets_;  // bytes, by variable
  std::int64_t n_bytes_ = 0;
  std::vector<AlignedBytes> values_;  // by set
  std::vector<AlignedBytes> gradients_;
};

}  // namespace varscope
