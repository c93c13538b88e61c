#include "worker/data/dataset.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

template <class T>
std::array<T, 256> make_table() {
  std::array<T, 256> table{};
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<T>(static_cast<double>(i) / 255.0);
  return table;
}

template <class T>
void convert(std::span<const std::uint8_t> from, T* to) {
  static const std::array<T, 256> table = make_table<T>();
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = table[from[i]];
}

bool has_row_shape(const Shape& shape, std::int64_t n, const Shape& row) {
  if (shape.rank() != row.rank() + 1 || shape[0] != n) return false;
  for (std::size_t axis = 0; axis < row.rank(); ++axis) {
    if (shape[axis + 1] != row[axis]) return false;
  }
  return true;
}

}  // namespace

std::span<const std::uint8_t> ByteImages::pixels(std::int64_t i) const {
  const auto n = static_cast<std::size_t>(sample_shape_.n_elements());
  return {pixels_.data() + static_cast<std::size_t>(i) * n, n};
}

void LeftOut::add(std::string text) {
  ++n;
  if (first.size() < kMostTold) first.push_back(std::move(text));
}

void LeftOut::check(double max_share) const {
  if (n == 0 || static_cast<double>(n) <= max_share * static_cast<double>(of)) return;
  fail(ErrorKind::data, "{} of {} records are bad, more than max_bad_share {}; the first: {}", n, of,
       max_share, first.front());
}

std::string LeftOut::text() const {
  if (n == 0) return "";
  return fmt::format("{} of {} records are left out (bad_records: skip); the first: {}", n, of,
                     first.front());
}

const LeftOut& Dataset::left_out() const {
  static const LeftOut none;
  return none;
}

std::optional<std::int64_t> ByteImages::only_class() const {
  if (labels_.size() < 2 || std::ranges::adjacent_find(labels_, std::not_equal_to()) != labels_.end())
    return std::nullopt;
  return labels_.front();
}

std::vector<InputSpec> Dataset::inputs() const {
  return {{.shape = sample_shape(),
           .features = features(),
           .n_ids = features() == Features::ids ? n_classes() : 0}};
}

void Dataset::read(std::span<const std::int64_t> indices, const BatchView& batch) const {
  fill(indices, batch.inputs.front(), batch.y);
}

void Dataset::read_weighted(std::span<const std::int64_t> indices, const BatchView& batch) const {
  read(indices, batch);
  if (!batch.weights) return;
  double* to = batch.weights->data<double>();
  for (const std::int64_t i : indices)
    *to++ = weights().empty() ? 1.0 : weights()[static_cast<std::size_t>(i)];
}

void Dataset::fill(std::span<const std::int64_t>, const TensorView&, const TensorView&) const {
  fail(ErrorKind::argument, "samples with several inputs are read by Dataset::read");
}

DataIdentity Dataset::identity() const {
  const auto dims = sample_shape().dims();
  return {size(), {dims.begin(), dims.end()}, n_classes(), vocabulary_digest(), content()};
}

Digest ByteImages::content() const {
  Digester digester;
  digester.update(std::as_bytes(std::span(pixels_)));
  digester.update(std::as_bytes(std::span(labels_)));
  return digester.finish();
}

void ByteImages::fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const {
  const auto n = static_cast<std::int64_t>(indices.size());
  const bool x_fits = (x.dtype() == DType::float32 || x.dtype() == DType::float64) &&
                      has_row_shape(x.shape(), n, sample_shape_);
  if (!x_fits || y.dtype() != kLabelDType || y.shape().rank() != 1 || y.shape()[0] != n) {
    fail(ErrorKind::argument, "{} samples of shape {} do not fit into x {} {} and y {} {}", n,
         sample_shape_.str(), to_string(x.dtype()), x.shape().str(), to_string(y.dtype()), y.shape().str());
  }
  const std::int64_t stride = sample_shape_.n_elements();
  std::int32_t* labels = y.data<std::int32_t>();
  for (std::int64_t row = 0; row < n; ++row) {
    const std::int64_t i = indices[static_cast<std::size_t>(row)];
    if (i < 0 || i >= size_) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, size_);
    labels[row] = label(i);
    if (x.dtype() == DType::float32) {
      convert(pixels(i), x.data<float>() + row * stride);
    } else {
      convert(pixels(i), x.data<double>() + row * stride);
    }
  }
}

}  // namespace varscope
