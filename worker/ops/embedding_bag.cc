#include <cmath>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "worker/kernels/feature_kernels.h"
#include "worker/ops/feature_ops.h"
#include "worker/ops/id_support.h"

namespace varscope {
namespace {

using namespace op_support;
using ops::Combiner;

// One bag, once it is checked.
template <class T, class Id>
struct Bag {
  const Id* ids;
  const T* weights;  // null: 1 for each
  std::int64_t size;
  double divisor;
};

// An op that makes one row of each bag. Rule has kName, width(columns of the table), divisor(sum of the
// weights, sum of their squares), positive() (no weight may be negative), forward and backward of one bag.
// The workspace keeps each bag's divisor for the backward pass; 0 for an empty bag.
template <class Rule>
class BagOp final : public Op {
 public:
  explicit BagOp(Rule rule = {}) : rule_(rule) {}
  const char* type() const override { return Rule::kName; }
  bool reads_bags() const override { return true; }
  bool differentiable(std::size_t input) const override { return input == kValues; }
  TensorType infer(const InferContext& context) const override {
    if (context.n_inputs() != 3) context.require_inputs(4);
    context.require_floating(kValues);
    require_table(context, kValues);
    const Shape& values = context.shape(kValues);
    context.require_rank(kIds, 1);
    require_ids(context, kIds);
    context.require_rank(kOffsets, 1);
    context.require_dtype(kOffsets, DType::int64);
    if (context.n_inputs() == 4) {
      context.require_rank(kWeights, 1);
      context.require_same_dtype(kValues, kWeights);
      if (!(context.shape(kWeights) == context.shape(kIds)))
        context.fail_shapes(kIds, kWeights, "differ; each id has one weight");
    }
    return {context.dtype(kValues), Shape{n_bags(context), Rule::width(values[1])}};
  }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    const std::int64_t bounds = inputs[kOffsets]->shape[0];
    return TensorType{DType::float64, Shape{bounds == Shape::kBounds ? Shape::kUnknown : bounds - 1}};
  }
  // How many ids there are is known only when they are fed.
  std::int64_t flops(std::span<const TensorType* const>, std::int64_t) const override { return 0; }

  void forward(const ForwardContext& ctx) const override {
    check_offsets(ctx.inputs);
    double* divisors = ctx.workspace.data<double>();
    with_bags(ctx.inputs, [&](const auto* values, const auto* ids, const auto* weights) {
      using T = std::remove_cvref_t<decltype(*values)>;
      const std::int64_t width = ctx.output.shape()[1];
      T* y = ctx.output.data<T>();
      for (std::int64_t row = 0; row < ctx.output.shape()[0]; ++row, y += width) {
        divisors[row] = checked_divisor(ctx.inputs, row, ids, weights);
        if (divisors[row] == 0) {
          kernels::fill(y, T(0), width);
        } else {
          rule_.forward(y, values, bag_of(ctx.inputs, row, ids, weights, divisors[row]),
                        ctx.inputs[kValues]->shape()[1]);
        }
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[kValues];
    if (!wanted(g)) return;
    const double* divisors = ctx.workspace.data<double>();
    with_bags(ctx.inputs, [&](const auto* values, const auto* ids, const auto* weights) {
      using T = std::remove_cvref_t<decltype(*values)>;
      const std::int64_t width = ctx.output.shape()[1];
      T* table = g.gradient->data<T>();
      const T* dy = ctx.output_gradient.data<T>();
      if (g.contribution == Contribution::first) kernels::fill(table, T(0), g.gradient->n_elements());
      for (std::int64_t row = 0; row < ctx.output.shape()[0]; ++row, dy += width) {
        if (divisors[row] == 0) continue;
        rule_.backward(table, dy, values, bag_of(ctx.inputs, row, ids, weights, divisors[row]),
                       ctx.inputs[kValues]->shape()[1]);
      }
    });
  }

 private:
  static constexpr std::size_t kValues = 0, kIds = 1, kOffsets = 2, kWeights = 3;
  using Inputs = std::span<const TensorView* const>;

  static std::int64_t n_bags(const InferContext& context) {
    const std::int64_t bounds = context.shape(kOffsets)[0];
    if (bounds == Shape::kBounds) return Shape::kUnknown;
    if (bounds >= 1) return bounds - 1;
    context.fail(
        fmt::format("needs offsets of the batch + 1 (Shape::kBounds), or of a known extent of at least 1, "
                    "in \"{}\", which has shape {}",
                    context.name(kOffsets), context.shape(kOffsets).str()));
  }
  // Calls body(the table, the ids, the weights or null).
  template <class Body>
  static void with_bags(Inputs inputs, Body body) {
    with_floating(inputs[kValues]->dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* weights = inputs.size() > kWeights ? inputs[kWeights]->data<T>() : nullptr;
      with_ids(*inputs[kIds], [&](const auto* ids) {
        body(static_cast<const T*>(inputs[kValues]->data<T>()), ids, weights);
      });
    });
  }
  template <class T, class Id>
  static Bag<T, Id> bag_of(Inputs inputs, std::int64_t row, const Id* ids, const T* weights, double divisor) {
    const std::int64_t* offsets = inputs[kOffsets]->data<std::int64_t>();
    const std::int64_t begin = offsets[row];
    return {ids + begin, weights == nullptr ? nullptr : weights + begin, offsets[row + 1] - begin, divisor};
  }
  // Offsets that may be followed, and a weight for each id.
  static void check_offsets(Inputs inputs) {
    const std::int64_t total = inputs[kIds]->n_elements();
    if (inputs.size() > kWeights && inputs[kWeights]->n_elements() != total) {
      fail(ErrorKind::data, "the bags of the batch have {} ids and {} weights; each id has one", total,
           inputs[kWeights]->n_elements());
    }
    std::int64_t before = 0;
    const auto offsets = inputs[kOffsets]->as<std::int64_t>();
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      if (offsets[i] < before || offsets[i] > total) {
        fail(ErrorKind::data,
             "offset {} of the bags of the batch is {}; it must be {} .. {}, between the offset before and "
             "the number of ids",
             i, offsets[i], before, total);
      }
      before = offsets[i];
    }
  }
  // The number to divide by; 0 when there is nothing in the bag. Throws Error(data).
  template <class T, class Id>
  double checked_divisor(Inputs inputs, std::int64_t row, const Id* ids, const T* weights) const {
    const Bag<T, Id> bag = bag_of(inputs, row, ids, weights, 1);
    const std::int64_t n_rows = inputs[kValues]->shape()[0];
    const bool positive = rule_.positive();
    double sum = 0, squares = 0;
    bool empty = true;
    for (std::int64_t i = 0; i < bag.size; ++i) {
      const double weight = weights == nullptr ? 1.0 : static_cast<double>(bag.weights[i]);
      if (!std::isfinite(weight) || (weight < 0 && positive)) {
        fail(ErrorKind::data,
             "row {} of the batch has weight {} at position {} of its bag; weights must be finite{}", row,
             weight, i, positive ? ", and with mean and sqrtn not negative" : "");
      }
      if (weight == 0) continue;
      if (bag.ids[i] < 0 || bag.ids[i] >= n_rows) {
        fail(ErrorKind::data,
             "row {} of the batch has id {} at position {} of its bag; an embedding table of {} rows has ids "
             "0 .. {}",
             row, bag.ids[i], i, n_rows, n_rows - 1);
      }
      empty = false;
      sum += weight;
      squares += weight * weight;
    }
    return empty ? 0 : rule_.divisor(sum, squares);
  }

  Rule rule_;
};

struct CombineRule {
  static constexpr const char* kName = "embedding_bag";
  Combiner combiner = Combiner::sum;
  static std::int64_t width(std::int64_t columns) { return columns; }
  bool positive() const { return combiner != Combiner::sum; }
  double divisor(double sum, double squares) const {
    return combiner == Combiner::sum ? 1 : combiner == Combiner::mean ? sum : std::sqrt(squares);
  }
  template <class T, class Id>
  static void forward(T* y, const T* values, const Bag<T, Id>& bag, std::int64_t columns) {
    kernels::gather_sum(y, values, bag.ids, bag.weights, bag.size, columns, bag.divisor);
  }
  template <class T, class Id>
  static void backward(T* table, const T* dy, const T*, const Bag<T, Id>& bag, std::int64_t columns) {
    kernels::scatter_add(table, dy, bag.ids, bag.weights, bag.size, columns, bag.divisor);
  }
};

struct PairsRule {
  static constexpr const char* kName = "factorization_machine_bag";
  static std::int64_t width(std::int64_t) { return 1; }
  static bool positive() { return false; }
  static double divisor(double, double) { return 1; }
  template <class T, class Id>
  static void forward(T* y, const T* values, const Bag<T, Id>& bag, std::int64_t columns) {
    *y = static_cast<T>(kernels::gather_pairs(values, bag.ids, bag.weights, bag.size, columns));
  }
  template <class T, class Id>
  static void backward(T* table, const T* dy, const T* values, const Bag<T, Id>& bag, std::int64_t columns) {
    kernels::gather_pairs_gradient(table, *dy, values, bag.ids, bag.weights, bag.size, columns);
  }
};

template <class Rule>
NodeId add_bag_op(Graph& graph, Rule rule, NodeId values, NodeId ids, NodeId offsets,
                  std::optional<NodeId> weights, const NodeOptions& options) {
  std::vector<NodeId> inputs{values, ids, offsets};
  if (weights) inputs.push_back(*weights);
  return graph.add(std::make_unique<BagOp<Rule>>(rule), std::move(inputs), options);
}

}  // namespace

namespace ops {

NodeId embedding_bag(Graph& graph, NodeId values, NodeId ids, NodeId offsets, std::optional<NodeId> weights,
                     Combiner combiner, const NodeOptions& options) {
  return add_bag_op(graph, CombineRule{combiner}, values, ids, offsets, weights, options);
}

NodeId factorization_machine_bag(Graph& graph, NodeId factors, NodeId ids, NodeId offsets,
                                 std::optional<NodeId> weights, const NodeOptions& options) {
  return add_bag_op(graph, PairsRule{}, factors, ids, offsets, weights, options);
}

}  // namespace ops
}  // namespace varscope
