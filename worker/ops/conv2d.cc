#include <algorithm>
#include <memory>
#include <vector>

#include "worker/kernels/blas.h"
#include "worker/kernels/im2col.h"
#include "worker/ops/image_ops.h"
#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"
#include "worker/ops/window_support.h"

namespace varscope {
namespace {

using namespace op_support;
using kernels::PixelRange;

// How one convolution is cut into GEMMs.
struct Blocks {
  Window2d window;
  std::int64_t filters = 0;
  std::int64_t rows = 0;  // output pixels of a block

  Blocks(const Shape& x, const Shape& filter, const ops::Conv2dOptions& o, DType dtype)
      : window(make_window(x, {filter[0], filter[1], o.stride_h, o.stride_w}, o.padding)),
        filters(filter[3]),
        rows(kernels::column_block_rows(window, dtype)) {}

  // The workspace: the sums of one block for the bias, then its columns.
  std::int64_t column_begin() const { return (filters + 15) / 16 * 16; }
  std::int64_t workspace() const {
    return column_begin() + (window.is_pointwise() ? 0 : rows * window.cells() + kernels::kColumnSlack);
  }
  // Calls body(pixels) for all pixels of n images, block by block.
  template <class Body>
  void for_each(std::int64_t n, Body&& body) const {
    const std::int64_t pixels = n * window.outputs();
    for (std::int64_t begin = 0; begin < pixels; begin += rows) {
      body(PixelRange{begin, std::min(pixels, begin + rows)});
    }
  }
};

// The rows `pixels` of the column matrix: made in `buffer`, or the images themselves.
template <class T>
const T* columns_of(const TensorView& x, const Blocks& b, T* buffer, PixelRange pixels) {
  if (b.window.is_pointwise()) return x.data<T>() + pixels.begin * b.window.cells();
  kernels::im2col(buffer, x.data<T>(), x.shape()[0], b.window, pixels);
  return buffer;
}

class Conv2d final : public Op {
 public:
  Conv2d(Activation f, const ops::Conv2dOptions& options) : f_(f), options_(options) {}
  const char* type() const override { return "conv2d"; }

  TensorType infer(const InferContext& context) const override {
    if (context.n_inputs() != 2) context.require_inputs(3);
    context.require_same_dtype(0, 1);
    context.require_rank(1, 4);
    const Shape& filter = context.shape(1);
    check_window(context, {filter[0], filter[1], options_.stride_h, options_.stride_w}, options_.padding);
    const Shape& x = context.shape(0);
    if (filter[2] != x[3] || filter[3] < 1) {
      context.fail_shapes(0, 1,
                          fmt::format("cannot be convolved: a filter [height, width, {}, filters] is needed, "
                                      "of at least 1 filter",
                                      x[3]));
    }
    const Blocks b(x, filter, options_, context.dtype(0));
    if (b.window.cells() > INT32_MAX) {
      context.fail_shapes(0, 1, "have windows of more than 2^31 - 1 elements, more than BLAS takes");
    }
    if (context.n_inputs() == 3) check_bias(context, filter[3]);
    return {context.dtype(0), Shape{x[0], b.window.y.output, b.window.x.output, filter[3]}};
  }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    const Blocks b(inputs[0]->shape, inputs[1]->shape, options_, inputs[0]->dtype);
    return TensorType{inputs[0]->dtype, Shape{b.workspace()}};
  }
  std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const override {
    const Blocks b(inputs[0]->shape, inputs[1]->shape, options_, inputs[0]->dtype);
    const std::int64_t images = with_batch(inputs[0]->shape, batch)[0];
    return 2 * images * b.window.outputs() * b.window.cells() * b.filters;
  }

  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const TensorView& x = *ctx.inputs[0];
      const Blocks b(x.shape(), ctx.inputs[1]->shape(), options_, x.dtype());
      const T* filter = ctx.inputs[1]->data<T>();
      const T* bias = ctx.inputs.size() == 3 ? ctx.inputs[2]->data<T>() : nullptr;
      T* buffer = ctx.workspace.data<T>() + b.column_begin();
      b.for_each(x.shape()[0], [&](PixelRange pixels) {
        const std::int64_t rows = pixels.end - pixels.begin;
        T* y = ctx.output.data<T>() + pixels.begin * b.filters;
        gemm<T>(Transpose::no, Transpose::no, rows, b.filters, b.window.cells(),
                columns_of(x, b, buffer, pixels), filter, zero, y);
        kernels::bias_activate(f_, y, bias, static_cast<T*>(nullptr), rows, b.filters);
      });
    });
  }

  void backward(const BackwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) { backward_of<decltype(zero)>(ctx); });
  }

 private:
  static void check_bias(const InferContext& context, std::int64_t filters) {
    context.require_same_dtype(0, 2);
    context.require_rank(2, 1);
    if (context.shape(2)[0] == filters) return;
    context.fail_shapes(1, 2, fmt::format("do not fit: a bias of {} elements is needed", filters));
  }

  // Blocks add to the gradients one after another.
  template <class T>
  static void zero_if_first(const InputGradient& g) {
    if (g.contribution == Contribution::first) {
      kernels::fill(g.gradient->data<T>(), T(0), g.gradient->n_elements());
    }
  }

  template <class T>
  void backward_of(const BackwardContext& ctx) const {
    const TensorView& x = *ctx.inputs[0];
    const Blocks b(x.shape(), ctx.inputs[1]->shape(), options_, x.dtype());
    InputGradient dx = ctx.input_gradients[0];
    const InputGradient& dw = ctx.input_gradients[1];
    const InputGradient bias = ctx.inputs.size() == 3 ? ctx.input_gradients[2] : InputGradient{};
    // One variable can be the images and the filter: then all of it is zero before the first block adds.
    if (wanted(dx) && wanted(dw) && dx.gradient->bytes() == dw.gradient->bytes()) {
      zero_if_first<T>(dx);
      dx.contribution = Contribution::later;
    }
    zero_if_first<T>(dw);
    zero_if_first<T>(bias);
    b.for_each(x.shape()[0], [&](PixelRange pixels) {
      T* dz = preactivation_gradient<T>(ctx, b, bias, pixels);
      const std::int64_t rows = pixels.end - pixels.begin, cells = b.window.cells();
      T* buffer = ctx.workspace.data<T>() + b.column_begin();
      if (wanted(dw)) {
        gemm<T>(Transpose::yes, Transpose::no, cells, b.filters, rows, columns_of(x, b, buffer, pixels), dz,
                T(1), dw.gradient->data<T>());
      }
      if (wanted(dx)) add_image_gradient<T>(b, ctx.inputs[1]->data<T>(), dz, buffer, pixels, dx);
    });
  }

  // The output's gradient becomes the pre-activation's in place; its sum is added to the bias's gradient.
  template <class T>
  T* preactivation_gradient(const BackwardContext& ctx, const Blocks& b, const InputGradient& bias,
                            PixelRange pixels) const {
    T* dz = ctx.output_gradient.data<T>() + pixels.begin * b.filters;
    const T* y = ctx.output.data<T>() + pixels.begin * b.filters;
    T* sums = wanted(bias) ? ctx.workspace.data<T>() : nullptr;
    kernels::activation_gradient(f_, dz, y, static_cast<const T*>(nullptr), sums, kernels::Sum::overwrite,
                                 pixels.end - pixels.begin, b.filters);
    if (sums != nullptr) kernels::add(bias.gradient->data<T>(), sums, b.filters);
    return dz;
  }

  // The first contribution makes an image's gradient zero when it comes to its first pixel.
  template <class T>
  static void add_image_gradient(const Blocks& b, const T* filter, const T* dz, T* buffer, PixelRange pixels,
                                 const InputGradient& g) {
    T* dx = g.gradient->data<T>();
    const std::int64_t rows = pixels.end - pixels.begin, cells = b.window.cells();
    if (b.window.is_pointwise()) {
      gemm<T>(Transpose::no, Transpose::yes, rows, cells, b.filters, dz, filter, beta_of<T>(g),
              dx + pixels.begin * cells);
      return;
    }
    gemm<T>(Transpose::no, Transpose::yes, rows, cells, b.filters, dz, filter, T(0), buffer);
    const std::int64_t outputs = b.window.outputs(), size = b.window.image_size();
    if (g.contribution == Contribution::first) {
      std::int64_t image = (pixels.begin + outputs - 1) / outputs;
      for (; image * outputs < pixels.end; ++image) kernels::fill(dx + image * size, T(0), size);
    }
    kernels::col2im(dx, buffer, b.window, pixels);
  }

  Activation f_;
  ops::Conv2dOptions options_;
};

}  // namespace

namespace ops {

NodeId conv2d(Graph& graph, NodeId x, NodeId filter, std::optional<NodeId> bias, Activation f,
              const Conv2dOptions& conv, const NodeOptions& options) {
  const bool separate = needs_preactivation(f);
  std::vector<NodeId> inputs{x, filter};
  if (bias) inputs.push_back(*bias);
  const NodeId y = graph.add(std::make_unique<Conv2d>(separate ? Activation::linear : f, conv),
                             std::move(inputs), options);
  if (!separate) return y;
  return activation(graph, f, y, {fmt::format("{}/{}", graph.node(y).name, to_string(f)), options.made_at});
}

}  // namespace ops
}  // namespace varscope
