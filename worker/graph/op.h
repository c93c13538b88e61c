#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/base/tensor.h"
#include "common/base/types.h"

namespace varscope {

using NodeId = StrongId<struct NodeTag, int>;  // position in the graph; inputs come before their readers

// What a node yields. An extent of Shape::kUnknown is the batch: the executor puts the number of rows of the
// run there. Only placeholders may have the extents Shape::kRagged, which each feed decides, and
// Shape::kBounds, the batch + 1.
struct TensorType {
  DType dtype = DType::float32;
  Shape shape;
  std::string str() const;  // "float32 [?, 784]"
  friend bool operator==(const TensorType&, const TensorType&) = default;
};

// What an op sees while its node is being added. Borrowed; lives only during Op::infer.
class InferContext {
 public:
  struct Input {
    const TensorType* type;
    std::string_view name;
  };
  InferContext(std::string_view node, std::string_view op, std::string_view made_at,
               std::span<const Input> inputs)
      : node_(node), op_(op), made_at_(made_at), inputs_(inputs) {}

  std::size_t n_inputs() const { return inputs_.size(); }
  const TensorType& type(std::size_t input) const { return *inputs_[input].type; }
  const Shape& shape(std::size_t input) const { return inputs_[input].type->shape; }
  DType dtype(std::size_t input) const { return inputs_[input].type->dtype; }
  std::string_view name(std::size_t input) const { return inputs_[input].name; }

  // Throws "<made_at>: node "<name>" (<op>): <what>"; Error(config) when the node comes from YAML, else
  // Error(argument).
  [[noreturn]] void fail(const std::string& what) const;
  // "shapes [?, 784] of "x" and [256, 10] of "w" <what>".
  [[noreturn]] void fail_shapes(std::size_t a, std::size_t b, const std::string& what) const;

  void require_inputs(std::size_t n) const;
  void require_rank(std::size_t input, std::size_t rank) const;
  void require_floating(std::size_t input) const;  // float32 or float64
  void require_dtype(std::size_t input, DType dtype) const;
  void require_same_dtype(std::size_t a, std::size_t b) const;

 private:
  std::string_view node_, op_, made_at_;
  std::span<const Input> inputs_;
};

// Which run this is, for ops whose result depends on more than their inputs: dropout draws its mask as a pure
// function of these, batch normalisation weights its statistics.
struct RunInfo {
  std::uint64_t seed = 0;           // of the job
  std::int64_t step = 0;            // global, from 1
  std::int64_t logical_worker = 0;  // whose part of the global batch this is
  double weight = 1;                // rows of this run / rows of the global batch
};

struct ForwardContext {
  std::span<const TensorView* const> inputs;
  const TensorView& output;
  const TensorView& workspace;  // see Op::workspace; empty() when not asked for
  RunInfo run = {};
  // By input. Not empty() for a local variable that carries state from run to run (Executor::bind_state): the
  // op writes its next value there, with as many rows as the run has; the input stays as it is.
  std::span<const TensorView* const> next_states = {};
};

// Whether an op must write, add to, or leave alone the gradient of one of its inputs.
enum class Contribution : std::uint8_t {
  none,   // nobody wants it
  first,  // overwrite (beta = 0): the memory holds rubbish
  later,  // add (beta = 1)
};

struct InputGradient {
  Contribution contribution = Contribution::none;
  // A variable's own gradient memory, or an activation's; null when not wanted.
  const TensorView* gradient = nullptr;
};

// An op must serve its inputs in ascending order: if one node is two inputs, the first is `first` and the
// second `later`.
struct BackwardContext {
  std::span<const TensorView* const> inputs;
  const TensorView& output;
  const TensorView& workspace;
  const TensorView& output_gradient;  // final, and read by nobody else: the op may overwrite it
  std::span<const InputGradient> input_gradients;
  RunInfo run = {};
};

// One operation: shapes, values and gradients, without state of its own. All memory belongs to the executor,
// so one graph can run in several executors at once. An op does not allocate in forward and backward. Sums
// run in an order that depends on shapes only.
class Op {
 public:
  Op() = default;
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;
  virtual ~Op() = default;

  virtual const char* type() const = 0;  // "matmul"
  virtual TensorType infer(const InferContext& context) const = 0;
  // Memory that lives from forward to backward of one run, for example pre-activations. Same batch as the
  // output.
  virtual std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const;
  // False for inputs such as labels, through which no gradient flows.
  virtual bool differentiable(std::size_t input) const;
  // True for ops on bags, whose inputs may have ragged extents and bounds. The output never has.
  virtual bool reads_bags() const { return false; }
  // True for ops whose input 0 may be a table, of which each run has rows of its own: [ragged, units].
  virtual bool reads_tables() const { return reads_bags(); }
  // True if the output is input 0 under another shape: the executor then shares the memory and does not call
  // forward.
  virtual bool is_reshape() const { return false; }
  // True if what backward writes for this input is not a gradient but a sample of a moving average: the
  // statistics of this run's rows times RunInfo::weight, so that the sum over the logical workers is their
  // mean over the global batch. The input is a variable with VariableSpec::average_decay.
  virtual bool is_statistic(std::size_t) const { return false; }
  // Floating-point operations of one forward call; an unknown extent counts as `batch`.
  virtual std::int64_t flops(std::span<const TensorType* const> inputs, std::int64_t batch) const;

  virtual void forward(const ForwardContext& context) const = 0;
  virtual void backward(const BackwardContext& context) const = 0;
};

// The shape with every unknown extent set to `batch`, and bounds to batch + 1; ragged ones stay.
Shape with_batch(const Shape& shape, std::int64_t batch);

}  // namespace varscope
