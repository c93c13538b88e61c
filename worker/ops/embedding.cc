#include <memory>
#include <vector>

#include "worker/ops/feature_ops.h"
#include "worker/ops/id_support.h"
#include "worker/ops/sequence_ops.h"

namespace varscope {
namespace {

using namespace op_support;

class Embedding final : public Op {
 public:
  const char* type() const override { return "embedding"; }
  bool reads_tables() const override { return true; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(2);
    context.require_floating(0);
    require_table(context, 0);
    require_ids(context, 1);
    const auto ids = context.shape(1).dims();
    std::vector<std::int64_t> dims(ids.begin(), ids.end());
    dims.push_back(context.shape(0)[1]);
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
      with_ids(*ctx.inputs[1], [&](const auto* ids) {
        check_ids(ids, ctx.inputs[1]->shape(), size, "an embedding table of", "rows");
        const std::int64_t n = ctx.inputs[1]->n_elements();
        for (std::int64_t i = 0; i < n; ++i) kernels::copy(y + i * width, table + ids[i] * width, width);
      });
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
      with_ids(*ctx.inputs[1], [&](const auto* ids) {
        const std::int64_t n = ctx.inputs[1]->n_elements();
        for (std::int64_t i = 0; i < n; ++i) kernels::add(table + ids[i] * width, dy + i * width, width);
      });
    });
  }
};

class OneHot final : public Op {
 public:
  OneHot(std::int64_t depth, DType dtype) : depth_(depth), dtype_(dtype) {}
  const char* type() const override { return "one_hot"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    require_ids(context, 0);
    if (depth_ < 1) context.fail(fmt::format("has depth {}; it must be at least 1", depth_));
    if (dtype_ != DType::float32 && dtype_ != DType::float64)
      context.fail(fmt::format("yields float32 or float64, not {}", to_string(dtype_)));
    const auto ids = context.shape(0).dims();
    std::vector<std::int64_t> dims(ids.begin(), ids.end());
    dims.push_back(depth_);
    return {dtype_, Shape(std::move(dims))};
  }
  bool differentiable(std::size_t) const override { return false; }
  std::int64_t flops(std::span<const TensorType* const>, std::int64_t) const override { return 0; }
  void forward(const ForwardContext& ctx) const override {
    with_floating(dtype_, [&](auto zero) {
      using T = decltype(zero);
      with_ids(*ctx.inputs[0], [&](const auto* ids) {
        check_ids(ids, ctx.inputs[0]->shape(), depth_, "a one_hot of", "columns");
        T* y = ctx.output.data<T>();
        kernels::fill(y, zero, ctx.output.n_elements());
        const std::int64_t n = ctx.inputs[0]->n_elements();
        for (std::int64_t i = 0; i < n; ++i) y[i * depth_ + ids[i]] = T(1);
      });
    });
  }
  void backward(const BackwardContext&) const override {}

 private:
  std::int64_t depth_;
  DType dtype_;
};

}  // namespace

namespace ops {

NodeId embedding(Graph& graph, NodeId table, NodeId ids, const NodeOptions& options) {
  return graph.add(std::make_unique<Embedding>(), {table, ids}, options);
}

NodeId one_hot(Graph& graph, NodeId ids, std::int64_t depth, DType dtype, const NodeOptions& options) {
  return graph.add(std::make_unique<OneHot>(depth, dtype), {ids}, options);
}

}  // namespace ops
}  // namespace varscope
