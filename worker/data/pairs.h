#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/data/dataset.h"

namespace varscope {

// Pairs of samples of another data set, to learn whether two samples are of one class (Bromley et al., NIPS
// 1993): sample i is [2, sample shape ...], the base's sample i and a partner, another sample of its own
// class (label 1) or one of another class (label 0), each with probability 1/2. Only the one sample of a
// class that has no other is its own partner. The partner is a pure function of (seed, i). Throws
// Error(data) if the base has fewer than two classes with samples, or labels that are no classes.
class PairDataset final : public Dataset {
 public:
  PairDataset(std::unique_ptr<Dataset> base, std::uint64_t seed);

  std::int64_t size() const override { return base_->size(); }
  const Shape& sample_shape() const override { return sample_shape_; }
  std::int64_t n_classes() const override { return 2; }
  std::int64_t n_bytes() const override {
    return base_->n_bytes() + size() * static_cast<std::int64_t>(sizeof(std::int64_t) + sizeof(std::int32_t));
  }
  void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const override;
  Digest content() const override;

 private:
  std::unique_ptr<Dataset> base_;
  Shape sample_shape_;
  std::vector<std::int64_t> partner_;
  std::vector<std::int32_t> label_;  // of the pair
};

}  // namespace varscope
