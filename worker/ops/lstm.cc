#include <memory>

#include "worker/kernels/recurrent_kernels.h"
#include "worker/ops/recurrent_support.h"
#include "worker/ops/sequence_ops.h"

namespace varscope {
namespace {

using namespace recurrent;

enum Input : std::size_t { kX, kWeights, kBias, kH0, kC0, kInputs };

class Lstm final : public RecurrentOp<Lstm> {
 public:
  static constexpr std::size_t kState = kH0;
  static constexpr std::int64_t kProducts = 4;

  // The workspace, time-major; backward turns the gates into their gradients in place.
  template <class T>
  struct Workspace {
    T* xh;     // [T, n, d + units]: x_t and h_t-1 side by side
    T* gates;  // [T, n, 4 units]
    T* cells;  // [T, n, units]: c_t
    T* dh;     // [n, units]: what step t + 1 leaves of the gradient of h_t
    T* dc;     // [n, units]
    Workspace(T* memory, const Extents& e)
        : xh(memory),
          gates(xh + e.rows() * (e.inputs + e.units)),
          cells(gates + e.rows() * 4 * e.units),
          dh(cells + e.rows() * e.units),
          dc(dh + e.n * e.units) {}
    static std::int64_t elements_per_row(const Extents& e) {
      return e.steps * (e.inputs + 6 * e.units) + 2 * e.units;
    }
  };

  explicit Lstm(ops::LstmOptions options) : options_(options) {}
  const char* type() const override { return "lstm"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(kInputs);
    const Extents e = infer_sequence(context, kH0);
    infer_parameter(context, kWeights, Shape{e.inputs + e.units, 4 * e.units});
    infer_parameter(context, kBias, Shape{4 * e.units});
    infer_parameter(context, kC0, context.shape(kH0));
    return {context.dtype(kX), Shape{e.n, e.steps, e.units}};
  }

  template <class T>
  void forward_steps(const ForwardContext& ctx, const Workspace<T>& w, const Extents& e) const {
    const std::int64_t width = e.inputs + e.units, gates = 4 * e.units, block = e.n * e.units;
    const T* weights = ctx.inputs[kWeights]->data<T>();
    T* y = ctx.output.data<T>();
    const std::int64_t row = e.steps * e.units;  // from a sequence to the next, in y
    begin_sequence<T>(ctx, kH0, {w.xh, width}, e);
    gemm<T>(Transpose::no, Transpose::no, e.rows(), gates, e.inputs, {w.xh, width}, {weights, gates}, T(0),
            {w.gates, gates});
    for (std::int64_t t = 0; t < e.steps; ++t) {
      const T* h_before = w.xh + t * e.n * width + e.inputs;
      T* z = w.gates + t * e.n * gates;
      gemm<T>(Transpose::no, Transpose::no, e.n, gates, e.units, {h_before, width},
              {weights + e.inputs * gates, gates}, T(1), {z, gates});
      const T* c_before = t == 0 ? ctx.inputs[kC0]->data<T>() : w.cells + (t - 1) * block;
      kernels::lstm_step(z, ctx.inputs[kBias]->data<T>(), static_cast<T>(options_.forget_bias), c_before,
                         w.cells + t * block, {y + t * e.units, row}, e.n, e.units);
      if (t + 1 == e.steps) break;
      copy_rows<T>({w.xh + (t + 1) * e.n * width + e.inputs, width}, {y + t * e.units, row}, e.n, e.units);
    }
    keep_last_step<T>(ctx, kH0, e);
    if (T* next = next_state<T>(ctx, kC0)) kernels::copy(next, w.cells + (e.steps - 1) * block, block);
  }

  // From the last step to the first: the gradients of all gates' arguments, in place of the gates.
  template <class T>
  static void gate_gradients(const BackwardContext& ctx, const Workspace<T>& w, const Extents& e) {
    const std::int64_t gates = 4 * e.units, block = e.n * e.units;
    const T* recurrent = ctx.inputs[kWeights]->data<T>() + e.inputs * gates;
    const T* dy = ctx.output_gradient.data<T>();
    kernels::fill(w.dh, T(0), block);
    kernels::fill(w.dc, T(0), block);
    for (std::int64_t t = e.steps; t-- > 0;) {
      T* z = w.gates + t * e.n * gates;
      const T* c_before = t == 0 ? ctx.inputs[kC0]->data<T>() : w.cells + (t - 1) * block;
      kernels::lstm_step_gradient(z, c_before, w.cells + t * block, {dy + t * e.units, e.steps * e.units},
                                  w.dh, w.dc, e.n, e.units);
      if (t == 0) break;
      gemm<T>(Transpose::no, Transpose::yes, e.n, e.units, gates, z, recurrent, T(0), w.dh);
    }
  }

  // One product for the weights of x and h together. dx takes the place of x in the workspace, so it is last;
  // the shapes of x, weights and bias differ, so no two are one node.
  template <class T>
  static void parameter_gradients(const BackwardContext& ctx, const Workspace<T>& w, const Extents& e) {
    const std::int64_t width = e.inputs + e.units, gates = 4 * e.units;
    if (const InputGradient& g = ctx.input_gradients[kWeights]; wanted(g)) {
      gemm<T>(Transpose::yes, Transpose::no, width, gates, e.rows(), w.xh, w.gates, beta_of<T>(g),
              g.gradient->data<T>());
    }
    contribute_column_sums(ctx.input_gradients[kBias], w.gates, e.rows(), gates);
    if (const InputGradient& g = ctx.input_gradients[kX]; wanted(g)) {
      gemm<T>(Transpose::no, Transpose::yes, e.rows(), e.inputs, gates, {w.gates, gates},
              {ctx.inputs[kWeights]->data<T>(), gates}, T(0), {w.xh, width});
      contribute_time_major<T>(g, {w.xh, width}, e.inputs, e);
    }
  }

  ops::LstmOptions options_;
};

}  // namespace

namespace ops {

NodeId lstm(Graph& graph, NodeId x, NodeId weights, NodeId bias, NodeId h0, NodeId c0, LstmOptions lstm,
            const NodeOptions& options) {
  return graph.add(std::make_unique<Lstm>(lstm), {x, weights, bias, h0, c0}, options);
}

}  // namespace ops
}  // namespace varscope
