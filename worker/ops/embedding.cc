#include <memory>
#include <vector>

#include "worker/ops/op_support.h"
#include "worker/ops/sequence_ops.h"

namespace varscope {
namespace {

using namespace op_support;

class Embedding final : public Op {
 public:
  const char* type() const override { return "embedding"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    context.require_floating(0);
    context.require_rank(0, 2);
    context.require_dtype(1, DType::int32);
    const Shape& table = context.shape(0);
    if (!table.fully_known()) {
      context.fail(fmt::format("needs a table of known shape; \"{}\" has {}", context.name(0), table.str()));
    }
    const auto ids = context.shape(1).dims();
    std::vector<std::int64_t> dims(ids.begin(), ids.end());
    dims.push_back(table[1]);
    return {context.dtype(0), Shape(std::move(dims))};
  }
  bool differentiable(std::size_t input) const override { return input == 0; }
  std::int64_t flops(std::span<const TensorType* const>, std::int64_t) const override { return 0; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::int64_t size = ctx.inputs[0]->shape()[0], width = ctx.inputs[0]->shape()[1];
      const T* table = ctx.inputs[0]->data<T>();
      T* y = ctx.output.data<T>();
      const auto ids = ctx.inputs[1]->as<std::int32_t>();
      for (std::size_t i = 0; i < ids.size(); ++i, y += width) {
        if (ids[i] < 0 || ids[i] >= size) fail_id(*ctx.inputs[1], i, size);
        kernels::copy(y, table + ids[i] * width, width);
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::int64_t width = ctx.inputs[0]->shape()[1];
      T* table = g.gradient->data<T>();
      if (g.contribution == Contribution::first) kernels::fill(table, zero, ctx.inputs[0]->n_elements());
      const T* dy = ctx.output_gradient.data<T>();
      for (const std::int32_t id : ctx.inputs[1]->as<std::int32_t>()) {
        kernels::add(table + id * width, dy, width);
        dy += width;
      }
    });
  }

 private:
  [[noreturn]] static void fail_id(const TensorView& ids, std::size_t i, std::int64_t size) {
    const auto position = static_cast<std::int64_t>(i);
    const std::int64_t per_row = ids.shape().rank() == 0 ? 1 : ids.n_elements() / ids.shape()[0];
    fail(ErrorKind::data,
         "row {} of the batch has id {} at position {}; an embedding table of {} rows has ids 0 .. {}",
         position / per_row, ids.as<std::int32_t>()[i], position % per_row, size, size - 1);
  }
};

}  // namespace

namespace ops {

NodeId embedding(Graph& graph, NodeId table, NodeId ids, const NodeOptions& options) {
  return graph.add(std::make_unique<Embedding>(), {table, ids}, options);
}

}  // namespace ops
}  // namespace varscope
