#include <memory>

#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

// Elements of one row of the batch, and whether there is a batch axis.
struct RowSize {
  bool batched;
  std::int64_t elements;
};
RowSize row_size(const InferContext& context, const Shape& shape) {
  const bool batched = shape.rank() > 0 && shape[0] == Shape::kUnknown;
  for (std::size_t axis = 1; axis < shape.rank(); ++axis) {
    if (shape[axis] == Shape::kUnknown) {
      context.fail(fmt::format("shape {} has an unknown extent on an axis other than 0", shape.str()));
    }
  }
  return {batched, with_batch(shape, 1).n_elements()};
}

class Reshape final : public Op {
 public:
  // Without a shape it flattens all but axis 0.
  explicit Reshape(std::optional<Shape> shape) : shape_(std::move(shape)) {}
  const char* type() const override { return shape_ ? "reshape" : "flatten"; }
  bool is_reshape() const override { return true; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    const Shape& from = context.shape(0);
    const RowSize source = row_size(context, from);
    if (!shape_) {
      if (from.rank() < 1)
        context.fail(fmt::format("\"{}\" is a scalar; there is nothing to flatten", context.name(0)));
      const std::int64_t columns =
          source.batched || from[0] == 0 ? source.elements : source.elements / from[0];
      return {context.dtype(0), Shape{from[0], columns}};
    }
    const RowSize target = row_size(context, *shape_);
    if (source.batched != target.batched || source.elements != target.elements) {
      context.fail(fmt::format("shape {} of \"{}\" has {} elements{}, the new shape {} has {}{}", from.str(),
                               context.name(0), source.elements, source.batched ? " a row" : "",
                               shape_->str(), target.elements, target.batched ? " a row" : ""));
    }
    return {context.dtype(0), *shape_};
  }
  std::int64_t flops(std::span<const TensorType* const>, std::int64_t) const override { return 0; }
  void forward(const ForwardContext&) const override {}  // the executor shares the memory
  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      contribute(ctx.input_gradients[0], ctx.output_gradient.data<T>(), ctx.output.n_elements());
    });
  }

 private:
  std::optional<Shape> shape_;
};

}  // namespace

namespace ops {

NodeId reshape(Graph& graph, NodeId x, Shape shape, const NodeOptions& options) {
  return graph.add(std::make_unique<Reshape>(std::move(shape)), {x}, options);
}

NodeId flatten(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<Reshape>(std::nullopt), {x}, options);
}

}  // namespace ops
}  // namespace varscope
