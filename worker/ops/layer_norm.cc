#include <memory>

#include "worker/kernels/normalization_kernels.h"
#include "worker/ops/normalization.h"
#include "worker/ops/op_support.h"

namespace varscope {
namespace {

using namespace op_support;

// The workspace, float64 [2, c], has the sums for gamma and beta. Backward computes the rows' moments again:
// two passes over a row that is in the cache.
class LayerNorm final : public Op {
 public:
  explicit LayerNorm(double epsilon) : epsilon_(epsilon) {}
  const char* type() const override { return "layer_norm"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(3);
    context.require_floating(0);
    const Shape& x = context.shape(0);
    if (x.rank() < 1) context.fail(fmt::format("\"{}\" is a scalar; it has no last axis", context.name(0)));
    require_channels(context, x, 1, 3);
    if (!(epsilon_ > 0)) context.fail(fmt::format("has epsilon {}; it must be more than 0", epsilon_));
    return context.type(0);
  }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    return TensorType{DType::float64, Shape{2, inputs[1]->shape[0]}};
  }
  // Two sums, then subtract, multiply twice, add.
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return 8 * with_batch(inputs[0]->shape, batch).n_elements();
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      kernels::normalize_rows(ctx.output.data<T>(), ctx.inputs[0]->data<T>(), ctx.inputs[1]->data<T>(),
                              ctx.inputs[2]->data<T>(), epsilon_, r.rows, r.cols);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      const InputGradient& dx = ctx.input_gradients[0];
      double* gamma_sums = ctx.workspace.data<double>();
      double* beta_sums = gamma_sums + r.cols;
      kernels::row_gradient(sum_of(dx), wanted(dx) ? dx.gradient->data<T>() : nullptr,
                            {gamma_sums, beta_sums}, ctx.output_gradient.data<T>(), ctx.inputs[0]->data<T>(),
                            ctx.inputs[1]->data<T>(), epsilon_, r.rows, r.cols);
      contribute_columns<T>(ctx.input_gradients[1], gamma_sums, r.cols);
      contribute_columns<T>(ctx.input_gradients[2], beta_sums, r.cols);
    });
  }

 private:
  double epsilon_;
};

}  // namespace

NodeId ops::layer_norm(Graph& graph, NodeId x, NodeId gamma, NodeId beta, double epsilon,
                       const NodeOptions& options) {
  return graph.add(std::make_unique<LayerNorm>(epsilon), {x, gamma, beta}, options);
}

}  // namespace varscope
