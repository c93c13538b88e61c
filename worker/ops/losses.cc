#include <algorithm>
#include <cmath>
#include <memory>

#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"
#include "worker/ops/vector_math.h"

namespace varscope {
namespace {

using namespace op_support;

[[noreturn]] void fail_label(std::int64_t row, std::int32_t label, std::int64_t n_classes) {
  fail(ErrorKind::data, "row {} of the batch has label {}; with {} classes labels are 0 .. {}", row, label,
       n_classes, n_classes - 1);
}

// Input 0 is [n, k] and floating, input 1 is int32 [n].
void infer_labels(const InferContext& context) {
  context.require_dtype(1, DType::int32);
  context.require_rank(1, 1);
  if (context.shape(0)[0] != context.shape(1)[0])
    context.fail_shapes(0, 1, "do not fit: one label per row is needed");
}

void infer_outputs(const InferContext& context, std::size_t n_inputs) {
  context.require_inputs(n_inputs);
  context.require_floating(0);
  context.require_rank(0, 2);
  if (context.shape(0)[1] < 1) {
    context.fail(
        fmt::format("\"{}\" of shape {} needs at least one column", context.name(0), context.shape(0).str()));
  }
}

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
  const char* type() const override { return "softmax_cross_entropy"; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2);
    infer_labels(context);
    return {DType::float64, Shape{}};
  }
  bool differentiable(std::size_t input) const override { return input == 0; }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    const Shape& logits = inputs[0]->shape;
    return TensorType{inputs[0]->dtype, Shape{logits[0], logits[1]}};
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.inputs[0]->shape());
      const T* x = ctx.inputs[0]->data<T>();
      const std::int32_t* labels = ctx.inputs[1]->data<std::int32_t>();
      double loss = 0;
      constexpr std::int64_t kBlock = 64;  // rows whose log sums fit on the stack
      double log_sums[kBlock];
      for (std::int64_t begin = 0; begin < r.rows; begin += kBlock) {
        const std::int64_t n = std::min(kBlock, r.rows - begin);
        kernels::softmax(ctx.workspace.data<T>() + begin * r.cols, x + begin * r.cols, log_sums, n, r.cols);
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int32_t label = labels[begin + i];
          if (label < 0 || label >= r.cols) fail_label(begin + i, label, r.cols);
          loss += log_sums[i] - static_cast<double>(x[(begin + i) * r.cols + label]);
        }
      }
      *ctx.output.data<double>() = loss;
    });
  }
  // dx = (softmax - one_hot) * seed.
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.inputs[0]->shape());
      const T seed = static_cast<T>(*ctx.output_gradient.data<double>());
      T* p = ctx.workspace.data<T>();
      const std::int32_t* labels = ctx.inputs[1]->data<std::int32_t>();
      for (std::int64_t row = 0; row < r.rows; ++row) p[row * r.cols + labels[row]] -= T(1);
      if (g.contribution == Contribution::first) {
        kernels::multiply_constant(g.gradient->data<T>(), p, seed, r.rows * r.cols);
      } else {
        kernels::multiply_constant(p, p, seed, r.rows * r.cols);
        kernels::add(g.gradient->data<T>(), p, r.rows * r.cols);
      }
    });
  }
};

// Targets of the outputs' type, or int32 [n].
void infer_targets(const InferContext& context) {
  if (context.dtype(1) == DType::int32) return infer_labels(context);
  context.require_same_dtype(0, 1);
  if (!(context.shape(0) == context.shape(1)))
    context.fail_shapes(0, 1, "differ; outputs and targets must agree");
}

// The target of output (row, c), from float targets, from labels that are numbers, or from one-hot labels.
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

// A loss that is a sum of terms of one output and one target. Rule gives value and derivative of a term.
template <class Rule>
class PointwiseLoss final : public Op {
 public:
  const char* type() const override { return Rule::kName; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2);
    infer_targets(context);
    if (Rule::kBinary && context.dtype(1) == DType::int32 && context.shape(0)[1] != 1) {
      context.fail_shapes(0, 1, "do not fit: with int32 targets the logits must be [n, 1]");
    }
    return {DType::float64, Shape{}};
  }
  bool differentiable(std::size_t input) const override { return input == 0; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.inputs[0]->shape());
      const T* x = ctx.inputs[0]->data<T>();
      const Targets<T> targets(*ctx.inputs[1], r.cols);
      if (ctx.inputs[1]->dtype() == DType::int32) check_labels(ctx.inputs[1]->as<std::int32_t>(), r.cols);
      double loss = 0;
      for (std::int64_t row = 0; row < r.rows; ++row) {
        double sum = 0;
        for (std::int64_t c = 0; c < r.cols; ++c) {
          sum +=
              Rule::value(static_cast<double>(x[row * r.cols + c]), static_cast<double>(targets.at(row, c)));
        }
        loss += sum * Rule::scale(r.cols);
      }
      *ctx.output.data<double>() = loss;
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.inputs[0]->shape());
      const T* x = ctx.inputs[0]->data<T>();
      T* dx = g.gradient->data<T>();
      const Targets<T> targets(*ctx.inputs[1], r.cols);
      const T seed = static_cast<T>(*ctx.output_gradient.data<double>() * Rule::scale(r.cols));
      for (std::int64_t row = 0; row < r.rows; ++row) {
        for (std::int64_t c = 0; c < r.cols; ++c) {
          const std::int64_t i = row * r.cols + c;
          const T d = seed * Rule::derivative(x[i], targets.at(row, c));
          dx[i] = g.contribution == Contribution::first ? d : dx[i] + d;
        }
      }
    });
  }

 private:
  static void check_labels(std::span<const std::int32_t> labels, std::int64_t cols) {
    const std::int64_t n_classes = Rule::kBinary ? 2 : cols;
    if (!Rule::kBinary && cols == 1) return;  // a number to predict
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] < 0 || labels[i] >= n_classes)
        fail_label(static_cast<std::int64_t>(i), labels[i], n_classes);
    }
  }
};

struct SigmoidRule {
  static constexpr const char* kName = "sigmoid_cross_entropy";
  static constexpr bool kBinary = true;
  static double scale(std::int64_t) { return 1.0; }
  // max(x, 0) - x t + log(1 + exp(-|x|)), which neither overflows nor cancels.
  static double value(double x, double t) {
    return std::max(x, 0.0) - x * t + std::log1p(std::exp(-std::abs(x)));
  }
  template <class T>
  static T derivative(T x, T t) {
    return vector_math::sigmoid(x) - t;
  }
};

struct SquaredRule {
  static constexpr const char* kName = "mean_squared_error";
  static constexpr bool kBinary = false;
  static double scale(std::int64_t cols) { return 1.0 / static_cast<double>(cols); }
  static double value(double x, double t) { return (x - t) * (x - t); }
  template <class T>
  static T derivative(T x, T t) {
    return T(2) * (x - t);
  }
};

class CorrectCount final : public Op {
 public:
  const char* type() const override { return "correct_count"; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2);
    infer_labels(context);
    return {DType::int64, Shape{}};
  }
  bool differentiable(std::size_t) const override { return false; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.inputs[0]->shape());
      const std::int32_t* labels = ctx.inputs[1]->data<std::int32_t>();
      std::int64_t count = 0;
      for (std::int64_t row = 0; row < r.rows; ++row) {
        const T* x = ctx.inputs[0]->data<T>() + row * r.cols;
        const std::int64_t answer = r.cols == 1 ? (x[0] > T(0) ? 1 : 0) : std::max_element(x, x + r.cols) - x;
        count += answer == labels[row] ? 1 : 0;
      }
      *ctx.output.data<std::int64_t>() = count;
    });
  }
  void backward(const BackwardContext&) const override {}
};

}  // namespace

namespace ops {

NodeId softmax(Graph& graph, NodeId logits, const NodeOptions& options) {
  return graph.add(std::make_unique<Softmax>(), {logits}, options);
}

NodeId softmax_cross_entropy(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options) {
  return graph.add(std::make_unique<SoftmaxCrossEntropy>(), {logits, labels}, options);
}

NodeId sigmoid_cross_entropy(Graph& graph, NodeId logits, NodeId targets, const NodeOptions& options) {
  return graph.add(std::make_unique<PointwiseLoss<SigmoidRule>>(), {logits, targets}, options);
}

NodeId mean_squared_error(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options) {
  return graph.add(std::make_unique<PointwiseLoss<SquaredRule>>(), {predictions, targets}, options);
}

NodeId correct_count(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options) {
  return graph.add(std::make_unique<CorrectCount>(), {logits, labels}, options);
}

}  // namespace ops
}  // namespace varscope
