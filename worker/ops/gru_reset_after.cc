#include <memory>

#include "worker/kernels/recurrent_kernels.h"
#include "worker/ops/recurrent_support.h"
#include "worker/ops/sequence_ops.h"

namespace varscope {
namespace {

using namespace recurrent;

enum Input : std::size_t {
  kX,
  kWeights,
  kBias,
  kCandidateWeights,
  kCandidateBias,
  kRecurrentBias,
  kH0,
  kInputs
};

// As Gru, but for the candidate, whose recurrent product is reset after it was formed: all of a step's
// products of h_t-1 can be made at once.
class GruResetAfter final : public RecurrentOp<GruResetAfter> {
 public:
  static constexpr std::size_t kState = kH0;
  static constexpr std::int64_t kProducts = 3;

  // The workspace, time-major; backward turns gates, candidates and products into their gradients in place.
  template <class T>
  struct Workspace {
    T* xh;          // [T, n, d + units]: x_t and h_t-1 side by side
    T* gates;       // [T, n, 2 units]: r_t, u_t
    T* candidates;  // [T, n, units]
    T* products;    // [T, n, units]: h_t-1 * candidate_weights + candidate_recurrent_bias
    T* dh;          // [n, units]: what step t + 1 leaves of the gradient of h_t
    Workspace(T* memory, const Extents& e)
        : xh(memory),
          gates(xh + e.rows() * width(e)),
          candidates(gates + e.rows() * 2 * e.units),
          products(candidates + e.rows() * e.units),
          dh(products + e.rows() * e.units) {}
    static std::int64_t width(const Extents& e) { return e.inputs + e.units; }
    static std::int64_t elements_per_row(const Extents& e) {
      return e.steps * (width(e) + 4 * e.units) + e.units;
    }
  };

  const char* type() const override { return "gru_reset_after"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(kInputs);
    const Extents e = infer_sequence(context, kH0);
    infer_parameter(context, kWeights, Shape{e.inputs + e.units, 2 * e.units});
    infer_parameter(context, kBias, Shape{2 * e.units});
    infer_parameter(context, kCandidateWeights, Shape{e.inputs + e.units, e.units});
    infer_parameter(context, kCandidateBias, Shape{e.units});
    infer_parameter(context, kRecurrentBias, Shape{e.units});
    return {context.dtype(kX), Shape{e.n, e.steps, e.units}};
  }

  template <class T>
  static void forward_steps(const ForwardContext& ctx, const Workspace<T>& w, const Extents& e) {
    const std::int64_t width = Workspace<T>::width(e), units = e.units, row = e.steps * units;
    const T* weights = ctx.inputs[kWeights]->data<T>();
    const T* candidate_weights = ctx.inputs[kCandidateWeights]->data<T>();
    T* y = ctx.output.data<T>();
    begin_sequence<T>(ctx, kH0, {w.xh, width}, e);
    gemm<T>(Transpose::no, Transpose::no, e.rows(), 2 * units, e.inputs, {w.xh, width}, {weights, 2 * units},
            T(0), {w.gates, 2 * units});
    gemm<T>(Transpose::no, Transpose::no, e.rows(), units, e.inputs, {w.xh, width},
            {candidate_weights, units}, T(0), {w.candidates, units});
    for (std::int64_t t = 0; t < e.steps; ++t) {
      T* h_before = w.xh + t * e.n * width + e.inputs;
      T* gates = w.gates + t * e.n * 2 * units;
      T* candidate = w.candidates + t * e.n * units;
      T* product = w.products + t * e.n * units;
      gemm<T>(Transpose::no, Transpose::no, e.n, 2 * units, units, {h_before, width},
              {weights + e.inputs * 2 * units, 2 * units}, T(1), {gates, 2 * units});
      // What it makes of r * h_before is overwritten by the product.
      kernels::gru_gates(gates, ctx.inputs[kBias]->data<T>(), {h_before, width}, {product, units}, e.n,
                         units);
      gemm<T>(Transpose::no, Transpose::no, e.n, units, units, {h_before, width},
              {candidate_weights + e.inputs * units, units}, T(0), {product, units});
      kernels::gru_reset(candidate, product, ctx.inputs[kRecurrentBias]->data<T>(), gates, e.n, units);
      kernels::gru_output(candidate, ctx.inputs[kCandidateBias]->data<T>(), gates, {h_before, width},
                          {y + t * units, row}, e.n, units);
      if (t + 1 == e.steps) break;
      copy_rows<T>({h_before + e.n * width, width}, {y + t * units, row}, e.n, units);
    }
    keep_last_step<T>(ctx, kH0, e);
  }

  // From the last step to the first: the gradients of the arguments of gates and candidates and of the
  // products, in their place.
  template <class T>
  static void gate_gradients(const BackwardContext& ctx, const Workspace<T>& w, const Extents& e) {
    const std::int64_t width = Workspace<T>::width(e), units = e.units;
    const T* recurrent = ctx.inputs[kWeights]->data<T>() + e.inputs * 2 * units;
    const T* candidate_recurrent = ctx.inputs[kCandidateWeights]->data<T>() + e.inputs * units;
    const T* dy = ctx.output_gradient.data<T>();
    kernels::fill(w.dh, T(0), e.n * units);
    for (std::int64_t t = e.steps; t-- > 0;) {
      const T* h_before = w.xh + t * e.n * width + e.inputs;
      T* gates = w.gates + t * e.n * 2 * units;
      T* candidate = w.candidates + t * e.n * units;
      T* product = w.products + t * e.n * units;
      kernels::gru_output_gradient(candidate, gates, {h_before, width}, {dy + t * units, e.steps * units},
                                   w.dh, e.n, units);
      kernels::gru_reset_gradient(gates, product, candidate, e.n, units);
      if (t == 0) break;
      gemm<T>(Transpose::no, Transpose::yes, e.n, units, units, product, candidate_recurrent, T(1), w.dh);
      gemm<T>(Transpose::no, Transpose::yes, e.n, units, 2 * units, gates, recurrent, T(1), w.dh);
    }
  }

  // dx takes the place of x in the workspace, so it is last. The two biases of the candidate have one shape
  // and may be one node: each adds to what is there.
  template <class T>
  static void parameter_gradients(const BackwardContext& ctx, const Workspace<T>& w, const Extents& e) {
    const std::int64_t width = Workspace<T>::width(e), units = e.units;
    if (const InputGradient& g = ctx.input_gradients[kWeights]; wanted(g)) {
      gemm<T>(Transpose::yes, Transpose::no, e.inputs + units, 2 * units, e.rows(), {w.xh, width},
              {w.gates, 2 * units}, beta_of<T>(g), {g.gradient->data<T>(), 2 * units});
    }
    contribute_column_sums(ctx.input_gradients[kBias], w.gates, e.rows(), 2 * units);
    if (const InputGradient& g = ctx.input_gradients[kCandidateWeights]; wanted(g)) {
      T* dw = g.gradient->data<T>();
      gemm<T>(Transpose::yes, Transpose::no, e.inputs, units, e.rows(), {w.xh, width}, {w.candidates, units},
              beta_of<T>(g), {dw, units});
      gemm<T>(Transpose::yes, Transpose::no, units, units, e.rows(), {w.xh + e.inputs, width},
              {w.products, units}, beta_of<T>(g), {dw + e.inputs * units, units});
    }
    contribute_column_sums(ctx.input_gradients[kCandidateBias], w.candidates, e.rows(), units);
    contribute_column_sums(ctx.input_gradients[kRecurrentBias], w.products, e.rows(), units);
    if (const InputGradient& g = ctx.input_gradients[kX]; wanted(g)) {
      gemm<T>(Transpose::no, Transpose::yes, e.rows(), e.inputs, 2 * units, {w.gates, 2 * units},
              {ctx.inputs[kWeights]->data<T>(), 2 * units}, T(0), {w.xh, width});
      gemm<T>(Transpose::no, Transpose::yes, e.rows(), e.inputs, units, {w.candidates, units},
              {ctx.inputs[kCandidateWeights]->data<T>(), units}, T(1), {w.xh, width});
      contribute_time_major<T>(g, {w.xh, width}, e.inputs, e);
    }
  }
};

}  // namespace

namespace ops {

NodeId gru_reset_after(Graph& graph, NodeId x, NodeId weights, NodeId bias, NodeId candidate_weights,
                       NodeId candidate_bias, NodeId candidate_recurrent_bias, NodeId h0,
                       const NodeOptions& options) {
  return graph.add(std::make_unique<GruResetAfter>(),
                   {x, weights, bias, candidate_weights, candidate_bias, candidate_recurrent_bias, h0},
                   options);
}

}  // namespace ops
}  // namespace varscope
