#include <algorithm>
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

class Reduce final : public Op {
 public:
  enum class Kind : std::uint8_t { sum, mean };
  Reduce(Kind kind, ops::ReduceOver over) : kind_(kind), over_(over) {}
  const char* type() const override { return kind_ == Kind::sum ? "reduce_sum" : "reduce_mean"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    if (over_ == ops::ReduceOver::all) return {context.dtype(0), Shape{}};
    const auto dims = context.shape(0).dims();
    if (dims.empty()) context.fail(fmt::format("\"{}\" is a scalar; it has no last axis", context.name(0)));
    return {context.dtype(0), Shape(std::vector<std::int64_t>(dims.begin(), dims.end() - 1))};
  }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = extent(*ctx.inputs[0]);
      const T* x = ctx.inputs[0]->data<T>();
      T* y = ctx.output.data<T>();
      for (std::int64_t row = 0; row < r.rows; ++row) {
        double sum = 0;
        for (std::int64_t c = 0; c < r.cols; ++c) sum += static_cast<double>(x[row * r.cols + c]);
        y[row] = static_cast<T>(sum / divisor(r));
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = extent(*ctx.inputs[0]);
      const T* dy = ctx.output_gradient.data<T>();
      T* dx = g.gradient->data<T>();
      for (std::int64_t row = 0; row < r.rows; ++row) {
        const T value = static_cast<T>(static_cast<double>(dy[row]) / divisor(r));
        if (g.contribution == Contribution::first) {
          kernels::fill(dx + row * r.cols, value, r.cols);
        } else {
          kernels::add_constant(dx + row * r.cols, value, r.cols);
        }
      }
    });
  }

 private:
  Rows extent(const TensorView& x) const {
    return over_ == ops::ReduceOver::all ? Rows{1, x.n_elements()} : rows_of(x.shape());
  }
  // The mean of nothing is 0, as the sum is.
  double divisor(const Rows& r) const {
    return kind_ == Kind::sum ? 1.0 : static_cast<double>(std::max<std::int64_t>(1, r.cols));
  }
  Kind kind_;
  ops::ReduceOver over_;
};

}  // namespace

namespace ops {

NodeId reshape(Graph& graph, NodeId x, Shape shape, const NodeOptions& options) {
  return graph.add(std::make_unique<Reshape>(std::move(shape)), {x}, options);
}

NodeId flatten(Graph& graph, NodeId x, const NodeOptions& options) {
  return graph.add(std::make_unique<Reshape>(std::nullopt), {x}, options);
}

NodeId reduce_sum(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce>(Reduce::Kind::sum, over), {x}, options);
}

NodeId reduce_mean(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce>(Reduce::Kind::mean, over), {x}, options);
}

}  // namespace ops
}  // namespace varscope
