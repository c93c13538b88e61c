#include <memory>
#include <vector>

#include "worker/kernels/blas.h"
#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

// Checks a [..., k] and b [k, m], or b [m, k] if it is transposed; returns [..., m].
Shape product_shape(const InferContext& context, Transpose tb) {
  context.require_floating(0);
  context.require_same_dtype(0, 1);
  require_rank_from(context, 0, 2);
  context.require_rank(1, 2);
  const Shape& a = context.shape(0);
  const Shape& b = context.shape(1);
  const std::size_t inner = tb == Transpose::yes ? 1 : 0;
  const std::size_t last = a.rank() - 1;
  if (a[last] != b[inner] || a[last] == Shape::kUnknown) {
    context.fail_shapes(0, 1,
                        fmt::format("cannot be multiplied{}: the inner extents differ or are unknown",
                                    tb == Transpose::yes ? " (the second transposed)" : ""));
  }
  for (const std::int64_t extent : {a[0], a[last], b[1 - inner]}) {
    if (extent > INT32_MAX) context.fail_shapes(0, 1, "have an extent beyond 2^31 - 1, more than BLAS takes");
  }
  return a.with_dim(last, b[1 - inner]);
}

void check_bias(const InferContext& context, std::size_t x, std::size_t bias, std::int64_t columns) {
  context.require_same_dtype(x, bias);
  context.require_rank(bias, 1);
  if (context.shape(bias)[0] != columns) {
    context.fail_shapes(x, bias, fmt::format("do not fit: a bias of {} elements is needed", columns));
  }
}

std::int64_t product_flops(std::span<const TensorType* const> inputs, std::int64_t batch) {
  const Rows a = rows_of(with_batch(inputs[0]->shape, batch));
  return 2 * a.rows * with_batch(inputs[1]->shape, batch).n_elements();
}

// y = a * op(b) over all rows of a.
template <class T>
void product(const ForwardContext& ctx, Transpose tb) {
  const Rows a = rows_of(ctx.inputs[0]->shape());
  const std::int64_t m = ctx.output.shape()[ctx.output.shape().rank() - 1];
  gemm<T>(Transpose::no, tb, a.rows, m, a.cols, ctx.inputs[0]->data<T>(), ctx.inputs[1]->data<T>(), T(0),
          ctx.output.data<T>());
}

// da = dc * op(b)^T, and db = a^T * dc or, where b is transposed, dc^T * a; each if wanted.
template <class T>
void product_gradients(const BackwardContext& ctx, const T* dc, Transpose tb) {
  const TensorView& a = *ctx.inputs[0];
  const TensorView& b = *ctx.inputs[1];
  const auto [n, k] = rows_of(a.shape());
  const std::int64_t m = ctx.output.shape()[ctx.output.shape().rank() - 1];
  if (const InputGradient& g = ctx.input_gradients[0]; wanted(g)) {
    gemm<T>(Transpose::no, tb == Transpose::yes ? Transpose::no : Transpose::yes, n, k, m, dc, b.data<T>(),
            beta_of<T>(g), g.gradient->data<T>());
  }
  if (const InputGradient& g = ctx.input_gradients[1]; wanted(g)) {
    if (tb == Transpose::no) {
      gemm<T>(Transpose::yes, Transpose::no, k, m, n, a.data<T>(), dc, beta_of<T>(g), g.gradient->data<T>());
    } else {
      gemm<T>(Transpose::yes, Transpose::no, m, k, n, dc, a.data<T>(), beta_of<T>(g), g.gradient->data<T>());
    }
  }
}

class Matmul final : public Op {
 public:
  const char* type() const override { return "matmul"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    const Shape shape = product_shape(context, Transpose::no);
    return {context.dtype(0), shape};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return product_flops(inputs, batch);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) { product<decltype(zero)>(ctx, Transpose::no); });
  }
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      product_gradients<T>(ctx, ctx.output_gradient.data<T>(), Transpose::no);
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
  Dense(Transpose transpose, Activation f) : transpose_(transpose), f_(f) {}
  const char* type() const override { return "dense"; }
  TensorType infer(const InferContext& context) const override {
    if (context.n_inputs() != 2) context.require_inputs(3);
    const Shape shape = product_shape(context, transpose_);
    if (context.n_inputs() == 3) check_bias(context, 1, 2, shape[shape.rank() - 1]);
    return {context.dtype(0), shape};
  }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    if (!needs_preactivation(f_)) return std::nullopt;
    const Shape& x = inputs[0]->shape;
    return TensorType{inputs[0]->dtype,
                      x.with_dim(x.rank() - 1, inputs[1]->shape[transpose_ == Transpose::yes ? 0 : 1])};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return product_flops(inputs, batch);
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      product<T>(ctx, transpose_);
      const Rows r = rows_of(ctx.output.shape());
      const T* bias = ctx.inputs.size() == 3 ? ctx.inputs[2]->data<T>() : nullptr;
      T* z = ctx.workspace.empty() ? nullptr : ctx.workspace.data<T>();
      kernels::bias_activate(f_, ctx.output.data<T>(), bias, z, r.rows, r.cols);
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
      product_gradients<T>(ctx, dz, transpose_);
    });
  }

 private:
  Transpose transpose_;
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
  return dense(graph, x, w, Transpose::no, bias, f, options);
}

NodeId dense(Graph& graph, NodeId x, NodeId w, Transpose transpose, std::optional<NodeId> bias, Activation f,
             const NodeOptions& options) {
  std::vector<NodeId> inputs{x, w};
  if (bias) inputs.push_back(*bias);
  return graph.add(std::make_unique<Dense>(transpose, f), std::move(inputs), options);
}

}  // namespace ops
}  // namespace varscope
