#include <memory>
#include <vector>

#include "worker/ops/blas.h"
#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

// Checks a [n, k] and b [k, m]; returns [n, m].
Shape product_shape(const InferContext& context) {
  context.require_floating(0);
  context.require_same_dtype(0, 1);
  context.require_rank(0, 2);
  context.require_rank(1, 2);
  const Shape& a = context.shape(0);
  const Shape& b = context.shape(1);
  if (a[1] != b[0] || a[1] == Shape::kUnknown) {
    context.fail_shapes(0, 1, "cannot be multiplied: the inner extents differ or are unknown");
  }
  for (const std::int64_t extent : {a[0], a[1], b[1]}) {
    if (extent > INT32_MAX) context.fail_shapes(0, 1, "have an extent beyond 2^31 - 1, more than BLAS takes");
  }
  return Shape{a[0], b[1]};
}

void check_bias(const InferContext& context, std::size_t x, std::size_t bias, std::int64_t columns) {
  context.require_same_dtype(x, bias);
  context.require_rank(bias, 1);
  if (context.shape(bias)[0] != columns) {
    context.fail_shapes(x, bias, fmt::format("do not fit: a bias of {} elements is needed", columns));
  }
}

std::int64_t product_flops(std::span<const TensorType* const> inputs, std::int64_t batch) {
  return 2 * with_batch(inputs[0]->shape, batch).n_elements() * with_batch(inputs[1]->shape, batch)[1];
}

// da = dc * b^T and db = a^T * dc, each if wanted.
template <class T>
void product_gradients(const BackwardContext& ctx, const T* dc) {
  const TensorView& a = *ctx.inputs[0];
  const TensorView& b = *ctx.inputs[1];
  const std::int64_t n = a.shape()[0], k = a.shape()[1], m = b.shape()[1];
  if (const InputGradient& g = ctx.input_gradients[0]; wanted(g)) {
    gemm<T>(Transpose::no, Transpose::yes, n, k, m, dc, b.data<T>(), beta_of<T>(g), g.gradient->data<T>());
  }
  if (const InputGradient& g = ctx.input_gradients[1]; wanted(g)) {
    gemm<T>(Transpose::yes, Transpose::no, k, m, n, a.data<T>(), dc, beta_of<T>(g), g.gradient->data<T>());
  }
}

class Matmul final : public Op {
 public:
  const char* type() const override { return "matmul"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    const Shape shape = product_shape(context);
    return {context.dtype(0), shape};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return product_flops(inputs, batch);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const TensorView& a = *ctx.inputs[0];
      const TensorView& b = *ctx.inputs[1];
      gemm<T>(Transpose::no, Transpose::no, a.shape()[0], b.shape()[1], a.shape()[1], a.data<T>(),
              b.data<T>(), zero, ctx.output.data<T>());
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      product_gradients<T>(ctx, ctx.output_gradient.data<T>());
    });
  }
};

class AddBias final : public Op {
 public:
  const char* type() const override { return "add_bias"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    context.require_floating(0);
    const Shape& x = context.shape(0);
    if (x.rank() < 1) context.fail(fmt::format("needs rank 1 or more for \"{}\"", context.name(0)));
    check_bias(context, 0, 1, x[x.rank() - 1]);
    return context.type(0);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      T* y = ctx.output.data<T>();
      kernels::copy(y, ctx.inputs[0]->data<T>(), r.rows * r.cols);
      kernels::bias_activate(Activation::linear, y, ctx.inputs[1]->data<T>(), static_cast<T*>(nullptr),
                             r.rows, r.cols);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      T* dy = ctx.output_gradient.data<T>();
      contribute(ctx.input_gradients[0], dy, r.rows * r.cols);
      if (const InputGradient& g = ctx.input_gradients[1]; wanted(g)) {
        const T* y = ctx.output.data<T>();
        kernels::activation_gradient(Activation::linear, dy, y, y, g.gradient->data<T>(), sum_of(g), r.rows,
                                     r.cols);
      }
    });
  }
};

// The output's gradient becomes the pre-activation's in place: nobody reads it after this op.
class Dense final : public Op {
 public:
  explicit Dense(Activation f) : f_(f) {}
  const char* type() const override { return "dense"; }
  TensorType infer(const InferContext& context) const override {
    if (context.n_inputs() != 2) context.require_inputs(3);
    const Shape shape = product_shape(context);
    if (context.n_inputs() == 3) check_bias(context, 1, 2, shape[1]);
    return {context.dtype(0), shape};
  }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    if (!needs_preactivation(f_)) return std::nullopt;
    return TensorType{inputs[0]->dtype, Shape{inputs[0]->shape[0], inputs[1]->shape[1]}};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return product_flops(inputs, batch);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const TensorView& x = *ctx.inputs[0];
      const TensorView& w = *ctx.inputs[1];
      const std::int64_t n = x.shape()[0], k = x.shape()[1], m = w.shape()[1];
      T* y = ctx.output.data<T>();
      gemm<T>(Transpose::no, Transpose::no, n, m, k, x.data<T>(), w.data<T>(), zero, y);
      const T* bias = ctx.inputs.size() == 3 ? ctx.inputs[2]->data<T>() : nullptr;
      T* z = ctx.workspace.empty() ? nullptr : ctx.workspace.data<T>();
      kernels::bias_activate(f_, y, bias, z, n, m);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows_of(ctx.output.shape());
      T* dz = ctx.output_gradient.data<T>();
      const T* z = ctx.workspace.empty() ? nullptr : ctx.workspace.data<T>();
      const InputGradient bias = ctx.inputs.size() == 3 ? ctx.input_gradients[2] : InputGradient{};
      T* sums = wanted(bias) ? bias.gradient->data<T>() : nullptr;
      kernels::activation_gradient(f_, dz, ctx.output.data<T>(), z, sums, sum_of(bias), r.rows, r.cols);
      product_gradients<T>(ctx, dz);
    });
  }

 private:
  Activation f_;
};

}  // namespace

namespace ops {

NodeId matmul(Graph& graph, NodeId a, NodeId b, const NodeOptions& options) {
  return graph.add(std::make_unique<Matmul>(), {a, b}, options);
}

NodeId add_bias(Graph& graph, NodeId x, NodeId bias, const NodeOptions& options) {
  return graph.add(std::make_unique<AddBias>(), {x, bias}, options);
}

NodeId dense(Graph& graph, NodeId x, NodeId w, std::optional<NodeId> bias, Activation f,
             const NodeOptions& options) {
  std::vector<NodeId> inputs{x, w};
  if (bias) inputs.push_back(*bias);
  return graph.add(std::make_unique<Dense>(f), std::move(inputs), options);
}

}  // namespace ops
}  // namespace varscope
