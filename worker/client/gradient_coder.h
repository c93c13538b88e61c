#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"
#include "common/base/tensor.h"
#include "common/placement/bucket_plan.h"
#include "common/transport/compression_report.h"
#include "worker/client/variable_memory.h"

namespace varscope {

// A worker's gradients of compressed variables, between backward and push: of each of its leaves the encoded
// slices, which are sent from here, and what they have lost, where the codec has a residual. Encoding is by
// leaf and slice, so that the bits depend on neither the number of workers nor that of servers. Where each
// push is applied by itself, a worker has one leaf: that of whatever ticket it has, as tickets wander.
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
  // Adds a part of what earlier gradients have lost, in (0, 1], to the one in the buffer, which goes up in
  // full; the rest is left.
  void add_residual(const Bucket& bucket, std::size_t leaf, int buffer, double part = 1);
  // Where each push is applied by itself, before encode() and add_residual(): the gradient counts for `share`
  // of a step. What is kept back counts for the share that it was made with, so it is multiplied to count for
  // as much as before. False, and nothing changes, where the share is so small that this would be by more
  // than kMostGrowth: this push goes up in full, by itself, and what is kept back waits. REQUIRES: share > 0.
  static constexpr double kMostGrowth = 16;
  bool set_share(const Bucket& bucket, double share);
  // The share that what is kept back counts for; 0: nothing is. Only where set_share() is called.
  double share(const Bucket& bucket) const { return buckets_[bucket.id].share; }
  // Nothing is kept back any more: it has been pushed.
  void clear_residual(const Bucket& bucket);
  // The encoded bytes of one wire chunk, of step `clock`.
  std::span<const std::byte> encoded(const Bucket& bucket, std::size_t leaf, int chunk, Clock clock) const;
  // What a leaf's gradients have lost, in the order of the bucket's elements; empty without residuals.
  std::span<float> residual(const Bucket& bucket, std::size_t leaf);
  std::span<const float> residual(const Bucket& bucket, std::size_t leaf) const;
  // Adds up, until take_norms(), the norms of gradients that are encoded and of what each leaves behind, by
  // scope. Costs a read of both.
  void start_norms() { measures_ = true; }
  std::vector<CompressionReport::Residual> take_norms();
  // Of both, for `n_leaves` leaves.
  static std::int64_t n_bytes(const BucketPlan& plan, int n_leaves, int n_sets = 1);

 private:
  struct Coded {
    std::size_t n_encoded = 0;          // bytes of one leaf
    std::vector<std::size_t> chunk_at;  // in these; and the end
    AlignedBytes encoded;
    AlignedBytes residuals;
    double share = 0;       // of the residuals; 0: there are none
    double next_share = 0;  // of what is encoded next
  };
  // Where the encoded bytes of a leaf begin.
  std::size_t encoded_at(const Coded& coded, std::size_t leaf, Clock clock) const;
  float* gradient(const BucketSlice& slice, int buffer) const;

  void measure(const Bucket& bucket, std::size_t leaf, int buffer);

  VariableMemory& memory_;
  std::size_t n_leaves_;
  bool measures_ = false;
  CompressionReport measured_;  // its norms
  IdVector<BucketId, Coded> buckets_;
};

}  // namespace varscope
