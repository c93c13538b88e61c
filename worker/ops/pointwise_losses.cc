#include <algorithm>
#include <cmath>
#include <memory>

#include "worker/kernels/vector_math.h"
#include "worker/ops/label_support.h"
#include "worker/ops/losses.h"

namespace varscope {
namespace {

using namespace op_support;

// A loss of terms of one output and one target, reduced over each row. Rule gives value and derivative of a
// term; with kLogTerms the value is given log(1 + exp(-|output|)).
template <class Rule>
class PointwiseLoss final : public Op {
 public:
  explicit PointwiseLoss(Reduction reduction, Rule rule = {}) : reduction_(reduction), rule_(rule) {}
  const char* type() const override { return Rule::kName; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2, 1);
    infer_targets(context);
    infer_weights(context, 2);
    const Shape& outputs = context.shape(0);
    if (Rule::kBinary && context.dtype(1) == DType::int32 && outputs[outputs.rank() - 1] != 1) {
      context.fail_shapes(0, 1, "do not fit: with int32 targets the logits must be [..., 1]");
    }
    rule_.check(context);
    return {DType::float64, Shape{}};
  }
  bool differentiable(std::size_t input) const override { return input == 0; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = target_rows(ctx.inputs[0]->shape(), ctx.inputs[1]->dtype());
      const T* x = ctx.inputs[0]->data<T>();
      const Targets<T> targets(*ctx.inputs[1], r.cols);
      if (ctx.inputs[1]->dtype() == DType::int32 &&
          (Rule::kBinary || r.cols > 1)) {  // else a number to predict
        check_labels(ctx.inputs[1]->as<std::int32_t>(), Rule::kBinary ? 2 : r.cols);
      }
      const SampleWeights weights(ctx.inputs, 2, r.rows);
      double loss = 0;
      for (std::int64_t row = 0; row < r.rows; ++row) {
        const double weight = weights.of(row);
        if (weight == 0) continue;
        loss += weight * (row_sum(x + row * r.cols, targets, row, r.cols) * scale(r.cols));
      }
      *ctx.output.data<double>() = loss;
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = target_rows(ctx.inputs[0]->shape(), ctx.inputs[1]->dtype());
      const T* x = ctx.inputs[0]->data<T>();
      T* dx = g.gradient->data<T>();
      const Targets<T> targets(*ctx.inputs[1], r.cols);
      const double of_all = *ctx.output_gradient.data<double>() * scale(r.cols);
      const SampleWeights weights(ctx.inputs, 2, r.rows);
      for (std::int64_t row = 0; row < r.rows; ++row) {
        const double weight = weights.of(row);
        const T seed = static_cast<T>(of_all * weight);
        for (std::int64_t c = 0; c < r.cols; ++c) {
          const std::int64_t i = row * r.cols + c;
          const T d = weight == 0 ? T(0) : seed * rule_.derivative(x[i], targets.at(row, c));
          dx[i] = g.contribution == Contribution::first ? d : dx[i] + d;
        }
      }
    });
  }

 private:
  template <class T>
  double row_sum(const T* x, const Targets<T>& targets, std::int64_t row, std::int64_t cols) const {
    constexpr std::int64_t kBlock = 256;  // elements whose log terms fit on the stack
    double log_terms[kBlock];
    double sum = 0;
    for (std::int64_t begin = 0; begin < cols; begin += kBlock) {
      const std::int64_t n = std::min(kBlock, cols - begin);
      if (Rule::kLogTerms) kernels::log_term(log_terms, x + begin, n);
      for (std::int64_t i = 0; i < n; ++i) {
        const double target = static_cast<double>(targets.at(row, begin + i));
        if constexpr (requires { Rule::check_target(row, target); }) Rule::check_target(row, target);
        sum += rule_.value(static_cast<double>(x[begin + i]), target, Rule::kLogTerms ? log_terms[i] : 0.0);
      }
    }
    return sum;
  }
  double scale(std::int64_t cols) const {
    return reduction_ == Reduction::mean ? 1.0 / static_cast<double>(std::max<std::int64_t>(1, cols)) : 1.0;
  }
  Reduction reduction_;
  Rule rule_;
};

struct SigmoidRule {
  static constexpr const char* kName = "sigmoid_cross_entropy";
  static constexpr bool kBinary = true, kLogTerms = true;
  ops::SigmoidCrossEntropyOptions options = {};
  void check(const InferContext& context) const {
    if (!(options.label_smoothing >= 0 && options.label_smoothing <= 1)) {
      context.fail(fmt::format("label_smoothing is {}; it must be 0 .. 1", options.label_smoothing));
    }
    if (!std::isfinite(options.positive_weight) || options.positive_weight < 0) {
      context.fail(
          fmt::format("positive_weight is {}; it must be finite and not negative", options.positive_weight));
    }
  }
  // t' = (1 - s) t + s / 2, and what log(1 - sigmoid(x)) is multiplied by when a positive's whole loss, the
  // part that smoothing gives to the other class too, counts positive_weight times.
  template <class T>
  T smoothed(T t) const {
    return t * static_cast<T>(1 - options.label_smoothing) + static_cast<T>(options.label_smoothing / 2);
  }
  template <class T>
  T negative_weight(T t) const {
    const double half = options.label_smoothing / 2;
    return static_cast<T>(options.positive_weight * half) * t + static_cast<T>(1 - half) * (T(1) - t);
  }
  // With u = 1 + (positive_weight - 1) t, the weight of the sample, and n its part of log(1 - sigmoid(x)):
  // n x + u (max(-x, 0) + log(1 + exp(-|x|))), which does not overflow; for u = 1 the usual
  // max(x, 0) - x t' + ..., which does not cancel either.
  double value(double x, double t, double log_term) const {
    if (options.positive_weight == 1) return std::max(x, 0.0) - x * smoothed(t) + log_term;
    return negative_weight(t) * x + (1 + (options.positive_weight - 1) * t) * (std::max(-x, 0.0) + log_term);
  }
  template <class T>
  T derivative(T x, T t) const {
    if (options.positive_weight == 1) return vector_math::sigmoid(x) - smoothed(t);
    const T u = T(1) + static_cast<T>(options.positive_weight - 1) * t;
    return negative_weight(t) - u * vector_math::sigmoid(-x);
  }
};

struct SquaredRule {
  static constexpr const char* kName = "mean_squared_error";
  static constexpr bool kBinary = false, kLogTerms = false;
  static void check(const InferContext&) {}
  static double value(double x, double t, double) { return (x - t) * (x - t); }
  template <class T>
  static T derivative(T x, T t) {
    return T(2) * (x - t);
  }
};

struct AbsoluteRule {
  static constexpr const char* kName = "absolute_error";
  static constexpr bool kBinary = false, kLogTerms = false;
  static void check(const InferContext&) {}
  static double value(double x, double t, double) { return std::abs(x - t); }
  template <class T>
  static T derivative(T x, T t) {
    return static_cast<T>((x > t ? 1 : 0) - (x < t ? 1 : 0));
  }
};

struct HuberRule {
  static constexpr const char* kName = "huber";
  static constexpr bool kBinary = false, kLogTerms = false;
  double delta = 1;
  void check(const InferContext& context) const {
    if (std::isfinite(delta) && delta > 0) return;
    context.fail(fmt::format("delta is {}; it must be finite and above 0", delta));
  }
  double value(double x, double t, double) const {
    const double e = std::abs(x - t);
    return e <= delta ? e * e / 2 : delta * (e - delta / 2);
  }
  template <class T>
  T derivative(T x, T t) const {
    const T e = x - t, limit = static_cast<T>(delta);
    return e > limit ? limit : e < -limit ? -limit : e;
  }
};

struct PoissonRule {
  static constexpr const char* kName = "poisson";
  static constexpr bool kBinary = false, kLogTerms = false;
  static void check(const InferContext& context) {
    const Shape& outputs = context.shape(0);
    if (context.dtype(1) != DType::int32 || outputs[outputs.rank() - 1] == 1) return;
    context.fail_shapes(0, 1,
                        "do not fit: with int32 targets, which are counts, the outputs must be [..., 1]");
  }
  static void check_target(std::int64_t row, double t) {
    if (std::isfinite(t) && t >= 0) return;
    fail(ErrorKind::data,
         "row {} of the batch has target {}; loss poisson is for counts, which are 0 or more", row, t);
  }
  static double value(double x, double t, double) { return std::exp(x) - t * x; }
  template <class T>
  static T derivative(T x, T t) {
    return vector_math::exp(x) - t;
  }
};

}  // namespace

namespace ops {

NodeId sigmoid_cross_entropy(Graph& graph, NodeId logits, NodeId targets, const NodeOptions& options) {
  return sigmoid_cross_entropy(graph, logits, targets, SigmoidCrossEntropyOptions(), options);
}

NodeId sigmoid_cross_entropy(Graph& graph, NodeId logits, NodeId targets, SigmoidCrossEntropyOptions loss,
                             const NodeOptions& options, WeightsOf weights) {
  return graph.add(std::make_unique<PointwiseLoss<SigmoidRule>>(loss.reduction, SigmoidRule{loss}),
                   with_weights({logits, targets}, weights), options);
}

NodeId mean_squared_error(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options) {
  return mean_squared_error(graph, predictions, targets, Reduction::mean, options);
}

NodeId mean_squared_error(Graph& graph, NodeId predictions, NodeId targets, Reduction reduction,
                          const NodeOptions& options, WeightsOf weights) {
  return graph.add(std::make_unique<PointwiseLoss<SquaredRule>>(reduction),
                   with_weights({predictions, targets}, weights), options);
}

NodeId absolute_error(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options) {
  return absolute_error(graph, predictions, targets, Reduction::mean, options);
}

NodeId absolute_error(Graph& graph, NodeId predictions, NodeId targets, Reduction reduction,
                      const NodeOptions& options, WeightsOf weights) {
  return graph.add(std::make_unique<PointwiseLoss<AbsoluteRule>>(reduction),
                   with_weights({predictions, targets}, weights), options);
}

NodeId huber(Graph& graph, NodeId predictions, NodeId targets, HuberOptions loss, const NodeOptions& options,
             WeightsOf weights) {
  return graph.add(std::make_unique<PointwiseLoss<HuberRule>>(loss.reduction, HuberRule{loss.delta}),
                   with_weights({predictions, targets}, weights), options);
}

NodeId poisson(Graph& graph, NodeId predictions, NodeId targets, Reduction reduction,
               const NodeOptions& options, WeightsOf weights) {
  return graph.add(std::make_unique<PointwiseLoss<PoissonRule>>(reduction),
                   with_weights({predictions, targets}, weights), options);
}

}  // namespace ops
}  // namespace varscope
