#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/compression/compression.h"
#include "common/variables/variable_table.h"

namespace varscope {

// A contiguous run of one variable inside a bucket: one slice.
struct BucketSlice {
  int variable;        // index into the VariableTable
  std::int64_t index;  // of the slice in slice_variable()
  Slice box;
  std::int64_t variable_begin;  // elements, row-major
  std::int64_t bucket_begin;    // elements
  std::int64_t n_elements;
};

// 512 KiB: beyond it messages leave the cache and slow down, below it the cost per message shows
// (docs/performance.md). A multiple of every element's size.
inline constexpr std::int64_t kWireChunkBytes = 512 << 10;

// How buckets are cut into wire chunks. Where a chunk is the unit of an update or of a code, no slice may lie
// in two: runs of whole slices, each of kWireChunkBytes at most or one slice (kMaxSliceBytes).
enum class ChunkRule : std::uint8_t { bytes, whole_slices };

// The part of a bucket that travels as one MPI message: kWireChunkBytes of it, the last one what is left; or
// a run of whole slices (ChunkRule).
struct WireChunk {
  std::int64_t begin;  // bytes of the bucket
  std::int64_t n_bytes;
  std::int64_t first_element;  // of the bucket
  std::int64_t n_elements;
};

// What travels as one push or one value: the slices of one scope's variables (of one dtype, way of updating
// and compression) that one server owns. On the server a bucket is contiguous memory; on a worker it is
// gathered from and scattered into the variables' own memory.
struct Bucket {
  BucketId id;
  std::string scope;
  ServerId server;
  DType dtype = DType::float32;
  bool trainable = true;      // updated by the optimizer
  double average_decay = -1;  // not negative: moving averages, see VariableSpec
  std::int64_t n_elements = 0;
  std::vector<BucketSlice> slices;
  std::vector<WireChunk> runs = {};  // ChunkRule::whole_slices, or compressed; else empty
  Compression compression = {};      // of all its variables

  // False: constants, pulled once.
  bool is_pushed() const { return trainable || average_decay >= 0; }
  std::int64_t n_bytes() const { return n_elements * static_cast<std::int64_t>(size_of(dtype)); }
  int n_wire_chunks() const;
  WireChunk wire_chunk(int index) const;
  // What any of its chunks fits into.
  std::int64_t largest_chunk_bytes() const;
  // The slices of a chunk of whole slices.
  std::span<const BucketSlice> slices_of(const WireChunk& chunk) const;
};

// All buckets of a job, in order of the scopes' first variables: a pure function of (variables, number of
// servers, rule), the same on every rank.
class BucketPlan {
 public:
  static BucketPlan make(const VariableTable& variables, int n_servers, ChunkRule rule = ChunkRule::bytes);

  const IdVector<BucketId, Bucket>& buckets() const { return buckets_; }
  const Bucket& operator[](BucketId id) const { return buckets_[id]; }
  bool has(BucketId id) const { return buckets_.has(id); }
  int size() const { return static_cast<int>(buckets_.size()); }
  std::vector<BucketId> of_server(ServerId server) const;
  std::vector<BucketId> of_variable(int variable) const {
    return by_variable_[static_cast<std::size_t>(variable)];
  }
  std::int64_t server_bytes(ServerId server) const;

 private:
  IdVector<BucketId, Bucket> buckets_;
  std::vector<std::vector<BucketId>> by_variable_;
};

}  // namespace varscope
