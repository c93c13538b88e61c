#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"
#include "common/base/tensor.h"
#include "common/placement/bucket_plan.h"
#include "worker/client/variable_memory.h"

namespace varscope {

// A worker's gradients of compressed variables, between backward and push: of each of its leaves the encoded
// slices, which are sent from here, and what they have lost, where the codec has a residual. Encoding is by
// leaf and slice, so that the bits depend on neither the number of workers nor that of servers.
//
// Memory: for each leaf the encoded bytes, in as many sets as the variables' memory has, and with residuals
// that of the gradients. Owns it; borrows the
// variables' memory. One thread.
class GradientCoder {
 public:
  GradientCoder(const BucketPlan& plan, VariableMemory& memory, int n_leaves);

  // Whether the bucket's gradients are compressed at all.
  bool handles(const Bucket& bucket) const { return buckets_[bucket.id].n_encoded > 0; }
  // Encodes the gradient of a leaf, in gradient buffer `buffer`, with what earlier ones have lost. The buffer
  // is free at once; the bytes stay until the next encode() into the clock's set: REQUIRES that they have
  // been sent. Leaves are encoded in the order of their steps. Throws Error(not_finite), naming the variable,
  // for one that is not finite: some encodings would hide it.
  void encode(const Bucket& bucket, std::size_t leaf, int buffer, Clock clock);
  // Adds what earlier gradients have lost to the one in the buffer, which goes up in full; nothing is left.
  void add_residual(const Bucket& bucket, std::size_t leaf, int buffer);
  // The encoded bytes of one wire chunk, of step `clock`.
  std::span<const std::byte> encoded(const Bucket& bucket, std::size_t leaf, int chunk, Clock clock) const;
  // What a leaf's gradients have lost, in the order of the bucket's elements; empty without residuals.
  std::span<float> residual(const Bucket& bucket, std::size_t leaf);
  // Of both, for `n_leaves` leaves.
  static std::int64_t n_bytes(const BucketPlan& plan, int n_leaves, int n_sets = 1);

 private:
  struct Coded {
    std::size_t n_encoded = 0;          // bytes of one leaf
    std::vector<std::size_t> chunk_at;  // in these; and the end
    AlignedBytes encoded;
    AlignedBytes residuals;
  };
  // Where the encoded bytes of a leaf begin.
  std::size_t encoded_at(const Coded& coded, std::size_t leaf, Clock clock) const;
  float* gradient(const BucketSlice& slice, int buffer) const;

  VariableMemory& memory_;
  std::size_t n_leaves_;
  IdVector<BucketId, Coded> buckets_;
};

}  // namespace varscope
