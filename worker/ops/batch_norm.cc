#include <algorithm>
#include <cmath>
#include <memory>

#include "worker/kernels/normalization_kernels.h"
#include "worker/ops/normalization.h"
#include "worker/ops/op_support.h"

namespace varscope {
namespace {

using namespace op_support;
using ops::BatchNormMode;

enum Input : std::size_t { kX, kGamma, kBeta, kMovingMean, kMovingVariance, kInputs };

// The rows of the workspace, float64 [kRows, c].
struct Columns {
  enum Row { kMean, kVariance, kInverse, kScale, kConstant, kSlope, kRows };
  double *mean, *variance;
  double* inverse;  // 1 / sqrt(variance + epsilon)
  double* scale;    // gamma * inverse
  double *constant, *slope;

  Columns(double* memory, std::int64_t c)
      : mean(memory + kMean * c),
        variance(memory + kVariance * c),
        inverse(memory + kInverse * c),
        scale(memory + kScale * c),
        constant(memory + kConstant * c),
        slope(memory + kSlope * c) {}
};

class BatchNorm final : public Op {
 public:
  BatchNorm(double epsilon, BatchNormMode mode) : epsilon_(epsilon), mode_(mode) {}
  const char* type() const override { return "batch_norm"; }
  bool is_statistic(std::size_t input) const override {
    return mode_ == BatchNormMode::train && input >= kMovingMean;
  }
  bool differentiable(std::size_t input) const override {
    return mode_ == BatchNormMode::train || input < kMovingMean;
  }

  TensorType infer(const InferContext& context) const override {
    context.require_inputs(kInputs);
    context.require_floating(kX);
    const Shape& x = context.shape(kX);
    if (x.rank() < 2) {
      context.fail(
          fmt::format("needs rank 2 or more for \"{}\", which has shape {}", context.name(kX), x.str()));
    }
    require_channels(context, x, kGamma, kInputs);
    if (!(epsilon_ > 0)) context.fail(fmt::format("has epsilon {}; it must be more than 0", epsilon_));
    return context.type(kX);
  }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    return TensorType{DType::float64, Shape{Columns::kRows, inputs[kGamma]->shape[0]}};
  }
  // Subtract, multiply, add; in train mode also the two sums of the moments.
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return (mode_ == BatchNormMode::train ? 7 : 3) * with_batch(inputs[kX]->shape, batch).n_elements();
  }

  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      const Columns w(ctx.workspace.data<double>(), r.cols);
      const T* x = ctx.inputs[kX]->data<T>();
      if (has_statistics(r)) {
        kernels::column_moments({w.mean, w.variance}, x, r.rows, r.cols);
      } else {
        std::copy_n(ctx.inputs[kMovingMean]->data<T>(), r.cols, w.mean);
        std::copy_n(ctx.inputs[kMovingVariance]->data<T>(), r.cols, w.variance);
      }
      const T* gamma = ctx.inputs[kGamma]->data<T>();
      for (std::int64_t c = 0; c < r.cols; ++c) {
        w.inverse[c] = 1 / std::sqrt(w.variance[c] + epsilon_);
        w.scale[c] = static_cast<double>(gamma[c]) * w.inverse[c];
      }
      kernels::normalize_columns(ctx.output.data<T>(), x, w.mean, w.scale, ctx.inputs[kBeta]->data<T>(),
                                 r.rows, r.cols);
    });
  }

  // With z = (x - mean) * inverse and n rows: d beta = sum dy, d gamma = sum dy z, and where mean and
  // variance are those of x, d x = scale * (dy - d beta / n - z * d gamma / n).
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      const Columns w(ctx.workspace.data<double>(), r.cols);
      const T* x = ctx.inputs[kX]->data<T>();
      const T* dy = ctx.output_gradient.data<T>();
      kernels::column_sums({w.constant, w.slope}, dy, x, w.mean, r.rows, r.cols);
      // The gradient of x comes last, since it uses the sums up; x has more axes than the other inputs, so
      // that it is none of them.
      for (std::int64_t c = 0; c < r.cols; ++c) w.slope[c] *= w.inverse[c];
      contribute_columns<T>(ctx.input_gradients[kGamma], w.slope, r.cols);
      contribute_columns<T>(ctx.input_gradients[kBeta], w.constant, r.cols);
      if (wanted(ctx.input_gradients[kX])) input_gradient<T>(ctx, r, w);
      if (mode_ == BatchNormMode::train) write_statistics<T>(ctx, r, w);
    });
  }

 private:
  // One row has no variance; the moving values stand in for its own.
  bool has_statistics(const Rows& r) const {
    return mode_ == BatchNormMode::train && r.rows >= ops::kLeastBatchNormRows;
  }
  template <class T>
  void input_gradient(const BackwardContext& ctx, const Rows& r, const Columns& w) const {
    const double n = static_cast<double>(std::max<std::int64_t>(1, r.rows));
    const bool train = has_statistics(r);
    for (std::int64_t c = 0; c < r.cols; ++c) {
      w.constant[c] = train ? w.scale[c] * w.constant[c] / n : 0;
      w.slope[c] = train ? w.scale[c] * w.inverse[c] * w.slope[c] / n : 0;
    }
    const InputGradient& g = ctx.input_gradients[kX];
    kernels::column_gradient(sum_of(g), g.gradient->data<T>(), ctx.output_gradient.data<T>(),
                             ctx.inputs[kX]->data<T>(), {w.mean, w.scale, w.constant, w.slope}, r.rows,
                             r.cols);
  }
  // Without statistics of its own the part brings the moving values themselves, which leaves them as they
  // are.
  template <class T>
  void write_statistics(const BackwardContext& ctx, const Rows& r, const Columns& w) const {
    const double unbiased =
        has_statistics(r) ? static_cast<double>(r.rows) / static_cast<double>(r.rows - 1) : 1.0;
    for (std::int64_t c = 0; c < r.cols; ++c) {
      w.constant[c] = w.mean[c] * ctx.run.weight;
      w.slope[c] = w.variance[c] * unbiased * ctx.run.weight;
    }
    contribute_columns<T>(ctx.input_gradients[kMovingMean], w.constant, r.cols);
    contribute_columns<T>(ctx.input_gradients[kMovingVariance], w.slope, r.cols);
  }

  double epsilon_;
  BatchNormMode mode_;
};

}  // namespace

NodeId ops::batch_norm(Graph& graph, NodeId x, NodeId gamma, NodeId beta, NodeId moving_mean,
                       NodeId moving_variance, double epsilon, BatchNormMode mode,
                       const NodeOptions& options) {
  return graph.add(std::make_unique<BatchNorm>(epsilon, mode), {x, gamma, beta, moving_mean, moving_variance},
                   options);
}

}  // namespace varscope
