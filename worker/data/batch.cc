#include "worker/data/batch.h"

namespace varscope {

Shape batched(const Shape& sample, std::int64_t n) {
  std::vector<std::int64_t> dims{n};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return Shape(std::move(dims));
}

Shape InputSpec::array_shape(std::int64_t n) const {
  if (is_ragged()) return Shape{n == Shape::kUnknown ? Shape::kRagged : n * most};
  if (shape.has(Shape::kBounds)) return Shape{n == Shape::kUnknown ? Shape::kBounds : n + 1};
  return batched(shape, n);
}

double BatchView::total_weight() const {
  double sum = 0;
  if (!weights) return sum;
  for (const double weight : weights->as<double>()) sum += weight;
  return sum;
}

Batch::Batch(const SampleSpec& spec, DType model, std::int64_t most)
    : spec_(spec), y_(spec.label_dtype(model), batched(spec.label_shape, most)) {
  for (const InputSpec& input : spec.inputs)
    inputs_.emplace_back(input.dtype(model), input.array_shape(most));
  if (spec.has_weights) weights_.emplace(DType::float64, Shape{most});
}

BatchView Batch::view(std::int64_t n) const {
  BatchView view{{}, TensorView(y_.dtype(), batched(spec_.label_shape, n), y_.view().bytes())};
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    view.inputs.emplace_back(inputs_[i].dtype(), spec_.inputs[i].array_shape(n), inputs_[i].view().bytes());
  if (weights_) view.weights.emplace(DType::float64, Shape{n}, weights_->view().bytes());
  return view;
}

std::int64_t Batch::n_bytes(const SampleSpec& spec, DType model, std::int64_t n) {
  std::int64_t bytes = spec.has_weights ? 8 : 0;
  bytes += spec.label_shape.n_elements() * static_cast<std::int64_t>(size_of(spec.label_dtype(model)));
  for (const InputSpec& input : spec.inputs)
    bytes += (input.is_ragged()   ? input.most
              : input.is_of_bag() ? 1
                                  : input.shape.n_elements()) *
             static_cast<std::int64_t>(size_of(input.dtype(model)));
  return n * bytes;
}

}  // namespace varscope
