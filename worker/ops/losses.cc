#include "worker/ops/losses.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "worker/ops/label_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

class Softmax final : public Op {
 public:
  const char* type() const override { return "softmax"; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 1);
    return context.type(0);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      kernels::softmax(ctx.output.data<T>(), ctx.inputs[0]->data<T>(), nullptr, r.rows, r.cols);
    });
  }
  // dx = p * (dp - sum(p * dp)) by rows.
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      T* dp = ctx.output_gradient.data<T>();
      const T* p = ctx.output.data<T>();
      for (std::int64_t row = 0; row < r.rows; ++row) {
        double dot = 0;
        for (std::int64_t c = 0; c < r.cols; ++c)
          dot += static_cast<double>(p[row * r.cols + c] * dp[row * r.cols + c]);
        kernels::add_constant(dp + row * r.cols, static_cast<T>(-dot), r.cols);
      }
      contribute_product(ctx.input_gradients[0], p, dp, r.rows * r.cols);
    });
  }
};

// The workspace keeps softmax(logits) for the backward pass.
class SoftmaxCrossEntropy final : public Op {
 public:
  explicit SoftmaxCrossEntropy(ops::SoftmaxCrossEntropyOptions options) : options_(std::move(options)) {}
  const char* type() const override { return "softmax_cross_entropy"; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2, 1);
    infer_labels(context);
    infer_weights(context, 2);
    check_options(context);
    return {DType::float64, Shape{}};
  }
  bool differentiable(std::size_t input) const override { return input == 0; }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    return *inputs[0];
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.inputs[0]->shape());
      const T* x = ctx.inputs[0]->data<T>();
      const auto labels = ctx.inputs[1]->as<std::int32_t>();
      check_labels(labels, r.cols);
      const SampleWeights weights(ctx.inputs, 2, r.rows);
      double loss = 0;
      constexpr std::int64_t kBlock = 64;  // rows whose log sums fit on the stack
      double log_sums[kBlock];
      for (std::int64_t begin = 0; begin < r.rows; begin += kBlock) {
        const std::int64_t n = std::min(kBlock, r.rows - begin);
        kernels::softmax(ctx.workspace.data<T>() + begin * r.cols, x + begin * r.cols, log_sums, n, r.cols);
        for (std::int64_t i = 0; i < n; ++i) {
          const auto label = static_cast<std::size_t>(labels[static_cast<std::size_t>(begin + i)]);
          const double times = weight(label) * weights.of(begin + i);
          if (times == 0) continue;
          loss += times * (log_sums[i] - expected_logit(x + (begin + i) * r.cols, label, r.cols));
        }
      }
      *ctx.output.data<double>() = loss;
    });
  }
  // dx = (softmax - target) * seed * weight of the label.
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.inputs[0]->shape());
      const double seed = *ctx.output_gradient.data<double>();
      const double smooth = options_.label_smoothing;
      T* p = ctx.workspace.data<T>();
      T* dx = g.gradient->data<T>();
      const SampleWeights weights(ctx.inputs, 2, r.rows);
      std::int64_t row = 0;
      for (const std::int32_t label : ctx.inputs[1]->as<std::int32_t>()) {
        const double times = weight(static_cast<std::size_t>(label)) * weights.of(row++);
        if (smooth > 0)
          kernels::add_constant(p, static_cast<T>(-smooth / static_cast<double>(r.cols)), r.cols);
        p[label] -= static_cast<T>(1 - smooth);
        const T factor = static_cast<T>(seed * times);
        if (times == 0) kernels::fill(p, T(0), r.cols);  // whatever the logits are
        if (g.contribution == Contribution::first) {
          kernels::multiply_constant(dx, p, factor, r.cols);
        } else {
          kernels::multiply_constant(p, p, factor, r.cols);
          kernels::add(dx, p, r.cols);
        }
        p += r.cols;
        dx += r.cols;
      }
    });
  }

 private:
  void check_options(const InferContext& context) const {
    const double smooth = options_.label_smoothing;
    if (!(smooth >= 0 && smooth <= 1)) {
      context.fail(fmt::format("label_smoothing is {}; it must be 0 .. 1", smooth));
    }
    const auto& weights = options_.class_weights;
    const std::int64_t k = context.shape(0)[context.shape(0).rank() - 1];
    if (!weights.empty() && static_cast<std::int64_t>(weights.size()) != k) {
      context.fail(fmt::format("has {} class_weights for the {} classes of \"{}\"", weights.size(), k,
                               context.name(0)));
    }
    for (std::size_t c = 0; c < weights.size(); ++c) {
      if (std::isfinite(weights[c]) && weights[c] >= 0) continue;
      context.fail(fmt::format("class_weights[{}] is {}; it must be finite and not negative", c, weights[c]));
    }
  }
  double weight(std::size_t label) const {
    return options_.class_weights.empty() ? 1.0 : options_.class_weights[label];
  }
  // The mean of the logits under the smoothed target.
  template <class T>
  double expected_logit(const T* x, std::size_t label, std::int64_t k) const {
    const double of_label = static_cast<double>(x[label]);
    if (options_.label_smoothing == 0) return of_label;
    double sum = 0;
    for (std::int64_t c = 0; c < k; ++c) sum += static_cast<double>(x[c]);
    return (1 - options_.label_smoothing) * of_label +
           options_.label_smoothing * sum / static_cast<double>(k);
  }
  ops::SoftmaxCrossEntropyOptions options_;
};

class Penalty final : public Op {
 public:
  Penalty(double l1, double l2, ops::PenaltyTimes times) : l1_(l1), l2_(l2), times_(times) {}
  const char* type() const override { return "regularization_loss"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    context.require_floating(0);
    require_rank_from(context, 1, 1);
    if (times_ == ops::PenaltyTimes::sum) context.require_dtype(1, DType::float64);
    for (const double factor : {l1_, l2_}) {
      if (std::isfinite(factor) && factor >= 0) continue;
      context.fail(
          fmt::format("has factors l1 {} and l2 {}; they must be finite and not negative", l1_, l2_));
    }
    return {DType::float64, Shape{}};
  }
  bool differentiable(std::size_t input) const override { return input == 0; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      double sum = 0, squares = 0;
      for (const T v : ctx.inputs[0]->as<T>()) {
        const double w = static_cast<double>(v);
        sum += std::abs(w);
        squares += w * w;
      }
      *ctx.output.data<double>() = (l1_ * sum + l2_ * squares) * times(*ctx.inputs[1]);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const double seed = *ctx.output_gradient.data<double>() * times(*ctx.inputs[1]);
      const T l1 = static_cast<T>(seed * l1_), l2 = static_cast<T>(2 * seed * l2_);
      const T* w = ctx.inputs[0]->data<T>();
      T* dw = g.gradient->data<T>();
      const bool first = g.contribution == Contribution::first;
      for (std::int64_t i = 0; i < ctx.inputs[0]->n_elements(); ++i) {
        const T sign = static_cast<T>((w[i] > T(0) ? 1 : 0) - (w[i] < T(0) ? 1 : 0));
        const T d = l1 * sign + l2 * w[i];
        dw[i] = first ? d : dw[i] + d;
      }
    });
  }

 private:
  double times(const TensorView& rows) const {
    if (times_ == ops::PenaltyTimes::extent) return static_cast<double>(rows.shape()[0]);
    double sum = 0;
    for (const double weight : rows.as<double>()) sum += weight;
    return sum;
  }
  double l1_, l2_;
  ops::PenaltyTimes times_;
};

}  // namespace

namespace ops {

NodeId softmax(Graph& graph, NodeId logits, const NodeOptions& options) {
  return graph.add(std::make_unique<Softmax>(), {logits}, options);
}

NodeId softmax_cross_entropy(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options) {
  return softmax_cross_entropy(graph, logits, labels, SoftmaxCrossEntropyOptions(), options);
}

NodeId softmax_cross_entropy(Graph& graph, NodeId logits, NodeId labels, SoftmaxCrossEntropyOptions loss,
                             const NodeOptions& options, WeightsOf weights) {
  return graph.add(std::make_unique<SoftmaxCrossEntropy>(std::move(loss)),
                   with_weights({logits, labels}, weights), options);
}

NodeId regularization_loss(Graph& graph, NodeId w, double l1, double l2, NodeId rows,
                           const NodeOptions& options, PenaltyTimes times) {
  return graph.add(std::make_unique<Penalty>(l1, l2, times), {w, rows}, options);
}

}  // namespace ops
}  // namespace varscope
