#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "worker/ops/op_support.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using namespace op_support;

// Makes one element of each row. Rule has of_row(x, cols) and row_gradient(contribution, dx, x, cols, dy),
// which gives dy, the gradient of that element, to the elements of the row.
template <class Rule>
class Reduce final : public Op {
 public:
  explicit Reduce(ops::ReduceOver over) : over_(over) {}
  const char* type() const override { return Rule::kName; }
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
      const Rows r = rows(*ctx.inputs[0]);
      const T* x = ctx.inputs[0]->data<T>();
      T* y = ctx.output.data<T>();
      for (std::int64_t row = 0; row < r.rows; ++row) y[row] = Rule::of_row(x + row * r.cols, r.cols);
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const Rows r = rows(*ctx.inputs[0]);
      const T* x = ctx.inputs[0]->data<T>();
      const T* dy = ctx.output_gradient.data<T>();
      T* dx = g.gradient->data<T>();
      for (std::int64_t row = 0; row < r.rows; ++row) {
        const std::int64_t begin = row * r.cols;
        Rule::row_gradient(g.contribution, dx + begin, x + begin, r.cols, dy[row]);
      }
    });
  }

 private:
  Rows rows(const TensorView& x) const {
    return over_ == ops::ReduceOver::all ? Rows{1, x.n_elements()} : rows_of(x.shape());
  }
  ops::ReduceOver over_;
};

// The sum of a row over divisor(cols).
template <class Divisor>
struct SumRule {
  static constexpr const char* kName = Divisor::kName;
  template <class T>
  static T of_row(const T* x, std::int64_t cols) {
    double sum = 0;
    for (std::int64_t c = 0; c < cols; ++c) sum += static_cast<double>(x[c]);
    return static_cast<T>(sum / Divisor::of(cols));
  }
  template <class T>
  static void row_gradient(Contribution contribution, T* dx, const T*, std::int64_t cols, T dy) {
    const T value = static_cast<T>(static_cast<double>(dy) / Divisor::of(cols));
    if (contribution == Contribution::first) {
      kernels::fill(dx, value, cols);
    } else {
      kernels::add_constant(dx, value, cols);
    }
  }
};
struct Sum {
  static constexpr const char* kName = "reduce_sum";
  static double of(std::int64_t) { return 1; }
};
// The mean of nothing is 0, as the sum is.
struct Mean {
  static constexpr const char* kName = "reduce_mean";
  static double of(std::int64_t cols) { return static_cast<double>(std::max<std::int64_t>(1, cols)); }
};

// The first of the extremes of a row, which gets the gradient.
template <class Order>
struct ExtremeRule {
  static constexpr const char* kName = Order::kName;
  template <class T>
  static T of_row(const T* x, std::int64_t cols) {
    return cols == 0 ? std::numeric_limits<T>::infinity() * T(Order::kSignOfNothing)
                     : *Order::first(x, x + cols);
  }
  template <class T>
  static void row_gradient(Contribution contribution, T* dx, const T* x, std::int64_t cols, T dy) {
    if (contribution == Contribution::first) kernels::fill(dx, T(0), cols);
    if (cols > 0) dx[Order::first(x, x + cols) - x] += dy;
  }
};
struct Max {
  static constexpr const char* kName = "reduce_max";
  static constexpr int kSignOfNothing = -1;
  template <class T>
  static const T* first(const T* begin, const T* end) {
    return std::max_element(begin, end);
  }
};
struct Min {
  static constexpr const char* kName = "reduce_min";
  static constexpr int kSignOfNothing = 1;
  template <class T>
  static const T* first(const T* begin, const T* end) {
    return std::min_element(begin, end);
  }
};

}  // namespace

namespace ops {

NodeId reduce_sum(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce<SumRule<Sum>>>(over), {x}, options);
}

NodeId reduce_mean(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce<SumRule<Mean>>>(over), {x}, options);
}

NodeId reduce_max(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce<ExtremeRule<Max>>>(over), {x}, options);
}

NodeId reduce_min(Graph& graph, NodeId x, ReduceOver over, const NodeOptions& options) {
  return graph.add(std::make_unique<Reduce<ExtremeRule<Min>>>(over), {x}, options);
}

}  // namespace ops
}  // namespace varscope
