#include "worker/data/pairs.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/base/philox.h"

namespace varscope {
namespace {

Shape pair_shape(const Shape& sample) {
  std::vector<std::int64_t> dims{2};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return Shape(std::move(dims));
}

Shape rows_of(std::int64_t n, const Shape& sample) {
  std::vector<std::int64_t> dims{n};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return Shape(std::move(dims));
}

std::vector<std::int32_t> labels_of(const Dataset& data) {
  std::vector<std::int32_t> labels;
  Tensor x(DType::float32, rows_of(1, data.sample_shape()));
  Tensor y(Dataset::kLabelDType, Shape{1});
  for (std::int64_t i = 0; i < data.size(); ++i) {
    data.fill(std::span(&i, 1), x.view(), y.view());
    labels.push_back(y.as<std::int32_t>()[0]);
  }
  return labels;
}

}  // namespace

PairDataset::PairDataset(std::unique_ptr<Dataset> base, std::uint64_t seed)
    : base_(std::move(base)), sample_shape_(pair_shape(base_->sample_shape())) {
  if (base_->features() != Features::real || base_->label_shape().rank() != 0)
    fail(ErrorKind::data, "pairs can be made of samples with one label each only");
  const std::vector<std::int32_t> labels = labels_of(*base_);
  std::vector<std::vector<std::int64_t>> of_class(static_cast<std::size_t>(base_->n_classes()));
  for (std::size_t i = 0; i < labels.size(); ++i)
    of_class.at(static_cast<std::size_t>(labels[i])).push_back(static_cast<std::int64_t>(i));
  const auto n = static_cast<std::int64_t>(labels.size());
  const RandomStream same(seed, RandomPurpose::pairs, 0), choice(seed, RandomPurpose::pairs, 1);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    const std::int32_t label = labels[static_cast<std::size_t>(i)];
    const auto& mine = of_class[static_cast<std::size_t>(label)];
    const auto n_mine = static_cast<std::int64_t>(mine.size());
    if (n_mine == n)
      fail(ErrorKind::data, "pairs need samples of two classes; all {} are of class {}", n, label);
    const bool alike = same.uniform(at) < 0.5;
    const std::int64_t n_choices = alike ? std::max<std::int64_t>(1, n_mine - 1) : n - n_mine;
    auto pick = static_cast<std::int64_t>(choice.below(at, static_cast<std::uint64_t>(n_choices)));
    label_.push_back(alike ? 1 : 0);
    if (alike) {  // the pick-th of the class without sample i
      if (n_mine > 1 && mine[static_cast<std::size_t>(pick)] >= i) ++pick;
      partner_.push_back(mine[static_cast<std::size_t>(pick)]);
      continue;
    }
    for (std::size_t c = 0; c < of_class.size(); ++c) {  // the pick-th sample of the other classes
      if (static_cast<std::int32_t>(c) == label) continue;
      const auto n_there = static_cast<std::int64_t>(of_class[c].size());
      if (pick < n_there) {
        partner_.push_back(of_class[c][static_cast<std::size_t>(pick)]);
        break;
      }
      pick -= n_there;
    }
  }
}

Digest PairDataset::content() const {
  const Digest base = base_->content();
  Digester digester;
  digester.update(std::as_bytes(std::span(base.bytes)));
  digester.update(std::as_bytes(std::span(partner_)));
  digester.update(std::as_bytes(std::span(label_)));
  return digester.finish();
}

void PairDataset::fill(std::span<const std::int64_t> indices, const TensorView& x,
                       const TensorView& y) const {
  const auto n = static_cast<std::int64_t>(indices.size());
  if (x.shape() != rows_of(n, sample_shape_) || y.shape() != Shape{n} || y.dtype() != kLabelDType) {
    fail(ErrorKind::argument, "{} pairs of shape {} do not fit into x {} and y {} {}", n, sample_shape_.str(),
         x.shape().str(), to_string(y.dtype()), y.shape().str());
  }
  const auto half = static_cast<std::size_t>(base_->sample_shape().n_elements()) * size_of(x.dtype());
  const Shape one = rows_of(1, base_->sample_shape());
  std::array<std::int32_t, 1> unused{};
  const TensorView label(kLabelDType, Shape{1}, reinterpret_cast<std::byte*>(unused.data()));
  for (std::int64_t row = 0; row < n; ++row) {
    const std::int64_t i = indices[static_cast<std::size_t>(row)];
    if (i < 0 || i >= size()) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, size());
    std::byte* to = x.bytes() + static_cast<std::size_t>(row) * 2 * half;
    const std::int64_t partner = partner_[static_cast<std::size_t>(i)];
    base_->fill(std::span(&i, 1), TensorView(x.dtype(), one, to), label);
    base_->fill(std::span(&partner, 1), TensorView(x.dtype(), one, to + half), label);
    y.data<std::int32_t>()[row] = label_[static_cast<std::size_t>(i)];
  }
}

}  // namespace varscope
