#include <memory>

#include "worker/kernels/feature_kernels.h"
#include "worker/ops/feature_ops.h"
#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

class FieldPairs final : public Op {
 public:
  const char* type() const override { return "factorization_machine"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    context.require_rank(0, 3);
    const Shape& x = context.shape(0);
    if (x[1] < 1 || x[2] < 1) {
      context.fail(
          fmt::format("needs fields [n, fields, width] of known extents of at least 1 in \"{}\", which "
                      "has shape {}",
                      context.name(0), x.str()));
    }
    return {context.dtype(0), Shape{x[0], 1}};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    return 3 * with_batch(inputs[0]->shape, batch).n_elements();
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Shape& shape = ctx.inputs[0]->shape();
      const T* x = ctx.inputs[0]->data<T>();
      for (std::int64_t row = 0; row < shape[0]; ++row, x += shape[1] * shape[2])
        ctx.output.data<T>()[row] = static_cast<T>(kernels::pair_products(x, shape[1], shape[2]));
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Shape& shape = ctx.inputs[0]->shape();
      const std::int64_t size = shape[1] * shape[2];
      T* dx = g.gradient->data<T>();
      if (g.contribution == Contribution::first) kernels::fill(dx, zero, g.gradient->n_elements());
      for (std::int64_t row = 0; row < shape[0]; ++row) {
        kernels::pair_products_gradient(dx + row * size, ctx.output_gradient.data<T>()[row],
                                        ctx.inputs[0]->data<T>() + row * size, shape[1], shape[2]);
      }
    });
  }
};

}  // namespace

namespace ops {

NodeId factorization_machine(Graph& graph, NodeId fields, const NodeOptions& options) {
  return graph.add(std::make_unique<FieldPairs>(), {fields}, options);
}

NodeId factorization_machine(Graph& graph, NodeId x, NodeId factors, const NodeOptions& options) {
  const std::string name = options.name.empty() ? "factorization_machine" : options.name;
  const auto part = [&](const char* what) { return NodeOptions{name + "/" + what, options.made_at}; };
  const NodeId sums = matmul(graph, x, factors, part("sums"));
  const NodeId squares = matmul(graph, square(graph, x, part("squared_x")),
                                square(graph, factors, part("squared_factors")), part("squares"));
  const NodeId pairs = subtract(graph, square(graph, sums, part("squared_sums")), squares, part("pairs"));
  const NodeId twice = reduce_sum(graph, pairs, ReduceOver::last_axis, part("twice"));
  const Shape rows = graph.node(twice).type.shape;
  const NodeId column = reshape(graph, twice, Shape{rows[0], 1}, part("column"));
  return scale(graph, column, 0.5, {name, options.made_at});
}

}  // namespace ops
}  // namespace varscope
