#include "worker/ops/metric_ops.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "worker/kernels/vector_math.h"
#include "worker/ops/label_support.h"

namespace varscope {
namespace {

using namespace op_support;

// Logits [..., 1] tell two classes apart.
std::int64_t n_classes(std::int64_t cols) { return cols == 1 ? 2 : cols; }

template <class T>
std::int64_t answer(const T* x, std::int64_t cols) {
  return cols == 1 ? (x[0] > T(0) ? 1 : 0) : std::max_element(x, x + cols) - x;
}

// A metric of logits and labels, row by row. Rule has the type of the result, which starts at zero, and
// add(result, x, cols, label, times), which counts one row so many times: once, or with weights, when the
// result is float64 of any rule, as often as its sample's weight says.
template <class Rule>
class RowMetric final : public Op {
 public:
  explicit RowMetric(Rule rule = {}) : rule_(rule) {}
  const char* type() const override { return Rule::kName; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2, 1);
    infer_labels(context);
    infer_weights(context, 2);
    const Shape& logits = context.shape(0);
    const std::int64_t cols = logits[logits.rank() - 1];
    rule_.check(context, cols);
    const bool weighted = context.n_inputs() == 3;
    return {weighted ? DType::float64 : dtype_of<typename Rule::Result>(), Rule::shape(cols)};
  }
  bool differentiable(std::size_t) const override { return false; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      if (ctx.inputs.size() == 3) {
        count<T, double>(ctx);
      } else {
        count<T, typename Rule::Result>(ctx);
      }
    });
  }
  void backward(const BackwardContext&) const override {}

 private:
  template <class T, class Result>
  void count(const ForwardContext& ctx) const {
    const Rows r = rows_of(ctx.inputs[0]->shape());
    const auto labels = ctx.inputs[1]->as<std::int32_t>();
    if (Rule::kChecksLabels) check_labels(labels, n_classes(r.cols));
    const SampleWeights weights(ctx.inputs, 2, r.rows);
    const auto result = ctx.output.as<Result>();
    std::fill(result.begin(), result.end(), Result(0));
    const T* x = ctx.inputs[0]->data<T>();
    for (std::int64_t row = 0; row < r.rows; ++row, x += r.cols) {
      const double weight = weights.of(row);
      if (weight == 0) continue;
      rule_.add(result.data(), x, r.cols, labels[static_cast<std::size_t>(row)], static_cast<Result>(weight));
    }
  }
  Rule rule_;
};

struct CorrectRule {
  static constexpr const char* kName = "correct_count";
  static constexpr bool kChecksLabels = false;
  using Result = std::int64_t;
  static Shape shape(std::int64_t) { return {}; }
  static void check(const InferContext&, std::int64_t) {}
  template <class T, class R>
  static void add(R* count, const T* x, std::int64_t cols, std::int32_t label, R times) {
    *count += answer(x, cols) == label ? times : R(0);
  }
};

struct TopRule {
  static constexpr const char* kName = "top_k_count";
  static constexpr bool kChecksLabels = true;
  using Result = std::int64_t;
  std::int64_t k = 1;
  static Shape shape(std::int64_t) { return {}; }
  void check(const InferContext& context, std::int64_t cols) const {
    if (cols < 2)
      context.fail(fmt::format("\"{}\" has one column; top-k needs one per class", context.name(0)));
    if (k < 1 || k > cols) context.fail(fmt::format("k is {}; with {} classes it is 1 .. {}", k, cols, cols));
  }
  template <class T, class R>
  void add(R* count, const T* x, std::int64_t cols, std::int32_t label, R times) const {
    std::int64_t before = 0;
    for (std::int64_t c = 0; c < cols; ++c) {
      if (c == label) continue;
      const bool behind = c < label ? x[c] < x[label] : x[c] <= x[label];
      before += behind ? 0 : 1;
    }
    *count += before < k ? times : R(0);
  }
};

struct ConfusionRule {
  static constexpr const char* kName = "confusion_matrix";
  static constexpr bool kChecksLabels = true;
  using Result = std::int64_t;
  static Shape shape(std::int64_t cols) { return {n_classes(cols), n_classes(cols)}; }
  static void check(const InferContext&, std::int64_t) {}
  template <class T, class R>
  static void add(R* counts, const T* x, std::int64_t cols, std::int32_t label, R times) {
    counts[label * n_classes(cols) + answer(x, cols)] += times;
  }
};

struct LogLossRule {
  static constexpr const char* kName = "log_loss_sum";
  static constexpr bool kChecksLabels = true;
  using Result = double;
  static Shape shape(std::int64_t) { return {}; }
  static void check(const InferContext&, std::int64_t) {}
  template <class T>
  static void add(Result* loss, const T* x, std::int64_t cols, std::int32_t label, Result times) {
    if (cols == 1) {
      const double margin = static_cast<double>(x[0]) * (label == 1 ? 1 : -1);
      *loss += times * (std::max(-margin, 0.0) + std::log1p(std::exp(-std::abs(margin))));
      return;
    }
    const double largest = static_cast<double>(*std::max_element(x, x + cols));
    double sum = 0;
    for (std::int64_t c = 0; c < cols; ++c) sum += vector_math::exp(static_cast<double>(x[c]) - largest);
    *loss += times * (largest - static_cast<double>(x[label]) + std::log(sum));
  }
};

// Each row's logit and label, side by side, and its weight where there are weights.
class ScoredLabels final : public Op {
 public:
  const char* type() const override { return "scored_labels"; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2, 1);
    infer_labels(context);
    infer_weights(context, 2);
    const Shape& logits = context.shape(0);
    if (logits[logits.rank() - 1] != 1) {
      context.fail(fmt::format("needs logits [..., 1]; \"{}\" has shape {}", context.name(0), logits.str()));
    }
    std::vector<std::int64_t> dims(context.shape(1).dims().begin(), context.shape(1).dims().end());
    dims.push_back(static_cast<std::int64_t>(context.n_inputs()));
    return {DType::float64, Shape(std::move(dims))};
  }
  bool differentiable(std::size_t) const override { return false; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const auto labels = ctx.inputs[1]->as<std::int32_t>();
      check_labels(labels, 2);
      const T* x = ctx.inputs[0]->data<T>();
      double* to = ctx.output.data<double>();
      const SampleWeights weights(ctx.inputs, 2, std::ssize(labels));
      for (std::size_t row = 0; row < labels.size(); ++row) {
        *to++ = static_cast<double>(*x++);
        *to++ = labels[row];
        if (weights.exist()) *to++ = weights.of(static_cast<std::int64_t>(row));
      }
    });
  }
  void backward(const BackwardContext&) const override {}
};

class SquaredErrorSum final : public Op {
 public:
  const char* type() const override { return "squared_error_sum"; }
  TensorType infer(const InferContext& context) const override {
    if (context.n_inputs() != 3) context.require_inputs(2);
    context.require_floating(0);
    require_rank_from(context, 0, 1);
    context.require_same_dtype(0, 1);
    infer_weights(context, 2);
    if (!(context.shape(0) == context.shape(1)))
      context.fail_shapes(0, 1, "differ; predictions and targets must agree");
    return {DType::float64, Shape{}};
  }
  bool differentiable(std::size_t) const override { return false; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* t = ctx.inputs[1]->data<T>();
      const T* p = ctx.inputs[0]->data<T>();
      const std::int64_t n = ctx.inputs[0]->n_elements();
      const SampleWeights weights(ctx.inputs, 2, n);
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const double error = static_cast<double>(p[i]) - static_cast<double>(t[i]);
        const double weight = weights.of(i);
        if (weight != 0) sum += weight * (error * error);
      }
      *ctx.output.data<double>() = sum;
    });
  }
  void backward(const BackwardContext&) const override {}
};

class R2 final : public Op {
 public:
  const char* type() const override { return "r2_sums"; }
  TensorType infer(const InferContext& context) const override {
    infer_outputs(context, 2, 1);
    infer_targets(context);
    infer_weights(context, 2);
    const Rows r = target_rows(with_batch(context.shape(0), 1), context.dtype(1));
    return {DType::float64, Shape{r.cols, kR2Sums}};
  }
  bool differentiable(std::size_t) const override { return false; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.inputs[0]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = target_rows(ctx.inputs[0]->shape(), ctx.inputs[1]->dtype());
      const T* x = ctx.inputs[0]->data<T>();
      const Targets<T> targets(*ctx.inputs[1], r.cols);
      const SampleWeights weights(ctx.inputs, 2, r.rows);
      for (std::int64_t c = 0; c < r.cols; ++c) {
        // Distances from the first target, so that the sums do not cancel where all are far from 0.
        double n = 0, sum = 0, squares = 0, errors = 0;
        const double first = r.rows == 0 ? 0 : static_cast<double>(targets.at(0, c));
        for (std::int64_t row = 0; row < r.rows; ++row) {
          const double weight = weights.of(row);
          if (weight == 0) continue;
          const double t = static_cast<double>(targets.at(row, c)), d = t - first;
          const double error = static_cast<double>(x[row * r.cols + c]) - t;
          n += weight;
          sum += weight * d;
          squares += weight * (d * d);
          errors += weight * (error * error);
        }
        double* to = ctx.output.data<double>() + c * kR2Sums;
        to[0] = n;
        to[1] = n == 0 ? 0 : first + sum / n;
        to[2] = n == 0 ? 0 : std::max(0.0, squares - sum * sum / n);
        to[3] = errors;
      }
    });
  }
  void backward(const BackwardContext&) const override {}
};

}  // namespace

namespace ops {

NodeId correct_count(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options,
                     WeightsOf weights) {
  return graph.add(std::make_unique<RowMetric<CorrectRule>>(), with_weights({logits, labels}, weights),
                   options);
}

NodeId top_k_count(Graph& graph, NodeId logits, NodeId labels, std::int64_t k, const NodeOptions& options,
                   WeightsOf weights) {
  return graph.add(std::make_unique<RowMetric<TopRule>>(TopRule{k}), with_weights({logits, labels}, weights),
                   options);
}

NodeId confusion_matrix(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options,
                        WeightsOf weights) {
  return graph.add(std::make_unique<RowMetric<ConfusionRule>>(), with_weights({logits, labels}, weights),
                   options);
}

NodeId scored_labels(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options,
                     WeightsOf weights) {
  return graph.add(std::make_unique<ScoredLabels>(), with_weights({logits, labels}, weights), options);
}

NodeId squared_error_sum(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options,
                         WeightsOf weights) {
  return graph.add(std::make_unique<SquaredErrorSum>(), with_weights({predictions, targets}, weights),
                   options);
}

NodeId r2_sums(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options,
               WeightsOf weights) {
  return graph.add(std::make_unique<R2>(), with_weights({predictions, targets}, weights), options);
}

NodeId log_loss_sum(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options,
                    WeightsOf weights) {
  return graph.add(std::make_unique<RowMetric<LogLossRule>>(), with_weights({logits, labels}, weights),
                   options);
}

}  // namespace ops
}  // namespace varscope
