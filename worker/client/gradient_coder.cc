#include "worker/client/gradient_coder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "common/base/norm_kernels.h"
#include "common/transport/wire_codec.h"

namespace varscope {

GradientCoder::GradientCoder(const BucketPlan& plan, VariableMemory& memory, int n_leaves)
    : memory_(memory), n_leaves_(static_cast<std::size_t>(n_leaves)), buckets_(plan.size()) {
  const auto n_sets = static_cast<std::size_t>(memory.n_sets());
  for (const Bucket& bucket : plan.buckets()) {
    if (!codec_of(bucket, Flow::gradients)) continue;
    Coded& coded = buckets_[bucket.id];
    for (int i = 0; i < bucket.n_wire_chunks(); ++i) {
      coded.chunk_at.push_back(coded.n_encoded);
      coded.n_encoded += static_cast<std::size_t>(
          wire_bytes(bucket, Flow::gradients, WireForm::encoded, bucket.wire_chunk(i)));
    }
    coded.chunk_at.push_back(coded.n_encoded);
    coded.encoded = allocate_aligned(n_sets * n_leaves_ * coded.n_encoded);
    if (!bucket.compression.has_residual()) continue;
    const std::size_t n_bytes = n_leaves_ * static_cast<std::size_t>(bucket.n_bytes());
    coded.residuals = allocate_aligned(n_bytes);
    std::memset(coded.residuals.get(), 0, n_bytes);
  }
}

std::size_t GradientCoder::encoded_at(const Coded& coded, std::size_t leaf, Clock clock) const {
  return (static_cast<std::size_t>(memory_.set_of(clock)) * n_leaves_ + leaf) * coded.n_encoded;
}

std::int64_t GradientCoder::n_bytes(const BucketPlan& plan, int n_leaves, int n_sets) {
  std::int64_t n = 0;
  for (const Bucket& bucket : plan.buckets()) {
    if (!codec_of(bucket, Flow::gradients)) continue;
    n += n_sets * wire_bytes(bucket, Flow::gradients, WireForm::encoded);
    if (bucket.compression.has_residual()) n += bucket.n_bytes();
  }
  return n * n_leaves;
}

float* GradientCoder::gradient(const BucketSlice& slice, int buffer) const {
  return memory_.gradient(buffer, slice.variable).as<float>().data() + slice.variable_begin;
}

std::span<const float> GradientCoder::residual(const Bucket& bucket, std::size_t leaf) const {
  if (!bucket.compression.has_residual()) return {};
  const auto n = static_cast<std::size_t>(bucket.n_elements);
  return {reinterpret_cast<const float*>(buckets_[bucket.id].residuals.get()) + leaf * n, n};
}

std::span<float> GradientCoder::residual(const Bucket& bucket, std::size_t leaf) {
  const std::span<const float> r = std::as_const(*this).residual(bucket, leaf);
  return {const_cast<float*>(r.data()), r.size()};
}

bool GradientCoder::set_share(const Bucket& bucket, double share) {
  Coded& coded = buckets_[bucket.id];
  const std::span<float> r = residual(bucket, 0);
  if (coded.share > share * kMostGrowth) return false;
  if (coded.share > 0 && coded.share != share)
    kernels::scale(r.data(), static_cast<float>(coded.share / share), static_cast<std::int64_t>(r.size()));
  if (coded.share > 0) coded.share = share;
  coded.next_share = share;
  return true;
}

void GradientCoder::clear_residual(const Bucket& bucket) {
  const std::span<float> r = residual(bucket, 0);
  std::ranges::fill(r, 0.0F);
  buckets_[bucket.id].share = 0;
}

void GradientCoder::encode(const Bucket& bucket, std::size_t leaf, int buffer, Clock clock) {
  Coded& coded = buckets_[bucket.id];
  const Codec codec = codec_of(bucket, Flow::gradients).value();
  std::byte* to = coded.encoded.get() + encoded_at(coded, leaf, clock);
  const std::span<float> residuals = residual(bucket, leaf);
  for (const BucketSlice& s : bucket.slices) {
    const auto n = static_cast<std::size_t>(s.n_elements);
    const std::size_t n_encoded = encoded_bytes(codec.type, n, codec.ratio);
    const std::span<float> r =
        residuals.empty() ? residuals : residuals.subspan(static_cast<std::size_t>(s.bucket_begin), n);
    const auto bad = encode_gradient(codec, {gradient(s, buffer), n}, r, {to, n_encoded});
    if (bad) {
      fail(ErrorKind::not_finite,
           "step {}: the gradient of variable \"{}\" is {} at element {}, so that it cannot be compressed",
           clock.value, memory_.variables()[static_cast<std::size_t>(s.variable)].name, bad->what,
           s.variable_begin + bad->element);
    }
    to += n_encoded;
  }
  if (residuals.empty()) return;
  coded.share = coded.next_share;
  if (measures_) measure(bucket, leaf, buffer);
}

void GradientCoder::measure(const Bucket& bucket, std::size_t leaf, int buffer) {
  const std::span<const float> r = std::as_const(*this).residual(bucket, leaf);
  double gradients = 0;
  for (const BucketSlice& s : bucket.slices)
    gradients += kernels::sum_of_squares(gradient(s, buffer), s.n_elements);
  measured_.add(bucket.scope, kernels::sum_of_squares(r.data(), static_cast<std::int64_t>(r.size())),
                gradients);
}

std::vector<CompressionReport::Residual> GradientCoder::take_norms() {
  measures_ = false;
  return std::exchange(measured_, {}).residuals;
}

void GradientCoder::add_residual(const Bucket& bucket, std::size_t leaf, int buffer, double part) {
  const std::span<float> residuals = residual(bucket, leaf);
  if (residuals.empty()) return;
  const auto factor = static_cast<float>(part);
  for (const BucketSlice& s : bucket.slices) {
    float* g = gradient(s, buffer);
    float* r = residuals.data() + s.bucket_begin;
    for (std::int64_t i = 0; i < s.n_elements; ++i) {
      const float sent = factor * r[i];
      g[i] += sent;
      r[i] -= sent;
    }
  }
  if (part == 1) buckets_[bucket.id].share = 0;
}

std::span<const std::byte> GradientCoder::encoded(const Bucket& bucket, std::size_t leaf, int chunk,
                                                  Clock clock) const {
  const Coded& coded = buckets_[bucket.id];
  const auto at = static_cast<std::size_t>(chunk);
  return {coded.encoded.get() + encoded_at(coded, leaf, clock) + coded.chunk_at[at],
          coded.chunk_at[at + 1] - coded.chunk_at[at]};
}

}  // namespace varscope
