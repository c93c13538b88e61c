#include "common/placement/bucket_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace varscope {

namespace {

WireChunk chunk_of(std::int64_t first_element, std::int64_t n_elements, DType dtype) {
  const auto item = static_cast<std::int64_t>(size_of(dtype));
  return {first_element * item, n_elements * item, first_element, n_elements};
}

// As many slices as fit, and one at least.
std::vector<WireChunk> runs_of_slices(const Bucket& bucket) {
  std::vector<WireChunk> runs;
  for (const BucketSlice& slice : bucket.slices) {
    const std::int64_t n_bytes = slice.n_elements * static_cast<std::int64_t>(size_of(bucket.dtype));
    if (runs.empty() || runs.back().n_bytes + n_bytes > kWireChunkBytes) {
      runs.push_back(chunk_of(slice.bucket_begin, slice.n_elements, bucket.dtype));
    } else {
      runs.back() =
          chunk_of(runs.back().first_element, runs.back().n_elements + slice.n_elements, bucket.dtype);
    }
  }
  return runs;
}

}  // namespace

int Bucket::n_wire_chunks() const {
  if (!runs.empty()) return static_cast<int>(runs.size());
  return static_cast<int>((n_bytes() + kWireChunkBytes - 1) / kWireChunkBytes);
}

WireChunk Bucket::wire_chunk(int index) const {
  if (!runs.empty()) return runs[static_cast<std::size_t>(index)];
  const std::int64_t begin = index * kWireChunkBytes, n = std::min(kWireChunkBytes, n_bytes() - begin);
  const auto item = static_cast<std::int64_t>(size_of(dtype));
  return chunk_of(begin / item, n / item, dtype);
}

std::int64_t Bucket::largest_chunk_bytes() const {
  std::int64_t most = runs.empty() ? std::min(kWireChunkBytes, n_bytes()) : 0;
  for (const WireChunk& run : runs) most = std::max(most, run.n_bytes);
  return most;
}

std::span<const BucketSlice> Bucket::slices_of(const WireChunk& chunk) const {
  const auto begins_before = [](std::int64_t at) {
    return [at](const BucketSlice& s) { return s.bucket_begin < at; };
  };
  const auto first = std::partition_point(slices.begin(), slices.end(), begins_before(chunk.first_element));
  const auto last =
      std::partition_point(first, slices.end(), begins_before(chunk.first_element + chunk.n_elements));
  return {first, last};
}

BucketPlan BucketPlan::make(const VariableTable& variables, int n_servers, ChunkRule rule) {
  BucketPlan plan;
  plan.by_variable_.resize(variables.size());
  using How = decltype(Compression().key());
  std::map<std::tuple<std::string, ServerId, DType, bool, double, How>, BucketId> index;
  for (std::size_t v = 0; v < variables.size(); ++v) {
    const VariableSpec& spec = variables[v];
    const std::vector<Slice> slices = slice_variable(spec.shape, spec.dtype);
    for (std::size_t i = 0; i < slices.size(); ++i) {
      const ServerId server = spec.owner(static_cast<std::int64_t>(i), n_servers);
      const auto key = std::tuple(spec.scope, server, spec.dtype, spec.trainable, spec.average_decay,
                                  spec.compression.key());
      const auto [it, is_new] = index.try_emplace(key, plan.buckets_.next_id());
      if (is_new) {
        plan.buckets_.push_back(
            {it->second, spec.scope, server, spec.dtype, spec.trainable, spec.average_decay, 0, {}});
        plan.buckets_[it->second].compression = spec.compression;
      }
      Bucket& bucket = plan.buckets_[it->second];
      bucket.slices.push_back({static_cast<int>(v), static_cast<std::int64_t>(i), slices[i],
                               slices[i].linear_begin(), bucket.n_elements, slices[i].n_elements()});
      bucket.n_elements += slices[i].n_elements();
      auto& mine = plan.by_variable_[v];
      if (std::find(mine.begin(), mine.end(), bucket.id) == mine.end()) mine.push_back(bucket.id);
    }
  }
  for (Bucket& bucket : plan.buckets_) {
    if (rule == ChunkRule::whole_slices || bucket.compression.exists()) bucket.runs = runs_of_slices(bucket);
  }
  return plan;
}

std::vector<BucketId> BucketPlan::of_server(ServerId server) const {
  std::vector<BucketId> ids;
  for (const Bucket& b : buckets_) {
    if (b.server == server) ids.push_back(b.id);
  }
  return ids;
}

std::int64_t BucketPlan::server_bytes(ServerId server) const {
  std::int64_t n = 0;
  for (const Bucket& b : buckets_) {
    if (b.server == server) n += b.n_bytes();
  }
  return n;
}

}  // namespace varscope
