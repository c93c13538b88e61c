#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "worker/ops/op_support.h"

// Checks of outputs and labels that losses and metrics share; private to worker/ops.
namespace varscope::op_support {

[[noreturn]] inline void fail_label(std::int64_t row, std::int32_t label, std::int64_t n_classes) {
  fail(ErrorKind::data, "row {} of the batch has label {}; with {} classes labels are 0 .. {}", row, label,
       n_classes, n_classes - 1);
}

// Rows count over all axes but the last.
inline void check_labels(std::span<const std::int32_t> labels, std::int64_t n_classes) {
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= n_classes) {
      fail_label(static_cast<std::int64_t>(i), labels[i], n_classes);
    }
  }
}

// Input 1 is int32, of the shape of input 0 without its last axis.
inline void infer_labels(const InferContext& context) {
  context.require_dtype(1, DType::int32);
  const auto outputs = context.shape(0).dims();
  const auto labels = context.shape(1).dims();
  if (!std::equal(outputs.begin(), outputs.end() - 1, labels.begin(), labels.end()))
    context.fail_shapes(0, 1, "do not fit: one label per row is needed");
}

// Input 0 is floating and has rows of at least one column. There are n_inputs, or `optional` more.
inline void infer_outputs(const InferContext& context, std::size_t n_inputs, std::size_t optional = 0) {
  if (context.n_inputs() != n_inputs + optional) context.require_inputs(n_inputs);
  context.require_floating(0);
  require_rank_from(context, 0, 2);
  const Shape& shape = context.shape(0);
  if (shape[shape.rank() - 1] < 1) {
    context.fail(fmt::format("\"{}\" of shape {} needs at least one column", context.name(0), shape.str()));
  }
}

// Targets of the outputs' type, or labels.
inline void infer_targets(const InferContext& context) {
  if (context.dtype(1) == DType::int32) return infer_labels(context);
  context.require_same_dtype(0, 1);
  if (!(context.shape(0) == context.shape(1)))
    context.fail_shapes(0, 1, "differ; outputs and targets must agree");
}

// Of an optional last input: how often each sample counts, all of whose rows are alike.
inline void infer_weights(const InferContext& context, std::size_t input) {
  if (context.n_inputs() == input) return;
  context.require_dtype(input, DType::float64);
  context.require_rank(input, 1);
  if (context.shape(input)[0] != context.shape(0)[0])
    context.fail_shapes(0, input, "do not fit: one weight per sample is needed");
}

class SampleWeights {
 public:
  SampleWeights(std::span<const TensorView* const> inputs, std::size_t input, std::int64_t rows) {
    if (inputs.size() <= input) return;
    values_ = inputs[input]->data<double>();
    const std::int64_t samples = inputs[input]->shape()[0];
    if (samples > 0) rows_per_sample_ = rows / samples;
  }
  bool exist() const { return values_ != nullptr; }
  double of(std::int64_t row) const { return values_ == nullptr ? 1.0 : values_[row / rows_per_sample_]; }

 private:
  const double* values_ = nullptr;
  std::int64_t rows_per_sample_ = 1;
};

// One row for each label, or for each sample when the targets have the outputs' shape.
inline Rows target_rows(const Shape& outputs, DType targets) {
  if (targets == DType::int32) return rows_of(outputs);
  std::int64_t elements = 1;
  for (std::size_t axis = 1; axis < outputs.rank(); ++axis) elements *= outputs[axis];
  return {outputs[0], elements};
}

// The target of element (row, c), from float targets, from labels that are numbers, or from one-hot labels.
template <class T>
class Targets {
 public:
  Targets(const TensorView& view, std::int64_t cols) : cols_(cols) {
    if (view.dtype() == DType::int32) {
      labels_ = view.data<std::int32_t>();
    } else {
      values_ = view.data<T>();
    }
  }
  T at(std::int64_t row, std::int64_t c) const {
    if (values_ != nullptr) return values_[row * cols_ + c];
    if (cols_ == 1) return static_cast<T>(labels_[row]);
    return labels_[row] == c ? T(1) : T(0);
  }

 private:
  std::int64_t cols_;
  const T* values_ = nullptr;
  const std::int32_t* labels_ = nullptr;
};

}  // namespace varscope::op_support
