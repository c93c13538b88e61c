#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "worker/graph/graph.h"
#include "worker/graph/profile.h"

namespace varscope {

struct ExecutorOptions {
  // Nodes to compute besides the target's ancestors, for example the count of correct answers beside the
  // loss.
  std::vector<NodeId> also;
  // Evaluation needs no gradients: no memory for them, and no backward steps.
  bool forward_only = false;
  // Placeholders of numbers: backward then gives their gradients, gradient(), instead of the variables',
  // and the target may be any floating node (start_backward with a seed of its shape).
  std::vector<NodeId> gradients_of = {};
};

// Runs a graph up to a target, and back, in explicit steps, so that the trainer can wait for a layer's values
// before its forward step, and send a layer's gradient right after the backward step that finishes it.
//
//   executor.set_batch(n); executor.feed(x, images); executor.feed(y, labels);
//   for (const auto& step : executor.forward_steps()) executor.forward(step);
//   executor.start_backward(1.0 / global_batch);
//   for (const auto& step : executor.backward_steps()) executor.backward(step);
//
// Owns activations and their gradients, allocated once for max_batch rows; borrows the graph, the variables'
// values and gradients, and what is fed. Gradients of variables are written by the ops straight into the
// bound memory: the first contribution of a run overwrites, later ones add. Backward steps run in their
// order, once per forward pass: they use up what it left. A run with the batch of the run before does not
// allocate. Errors are Error(argument) that names the node or variable. Not thread-safe; holds no state
// shared between executors.
class Executor {
 public:
  // Throws Error(argument) if max_batch < 1, or if the target of a backward run is not a floating scalar.
  Executor(const Graph& graph, NodeId target, std::int64_t max_batch, ExecutorOptions options = {});
  Executor(Executor&&) = default;
  Executor(const Executor&) = delete;

  // Where a variable's value is read and its gradient written; both may be bound anew between runs.
  // `gradient` is empty() for variables that are not pushed, and in forward_only executors. Of a table there
  // is nothing to bind but rows: it is passed over.
  void bind(const Variable& variable, const TensorView& value, const TensorView& gradient = {});
  // The rows of a table that the coming runs look up, by position, as [n, units]; and where their gradients
  // are written, of the same shape: zeros but for the rows that occur. `gradients` may be empty() as for
  // bind(). `ids`: of the rows, as far as they have some, for check_numerics(); borrowed. Allocates nothing.
  // Throws Error(argument).
  void bind_rows(const Variable& table, const TensorView& rows, const TensorView& gradients = {},
                 std::span<const std::uint64_t> ids = {});
  // A local variable that carries state from run to run, of shape [?, ...]: where its value is read and where
  // ops write the next one. Both have at least max_batch rows, of which a run uses as many as it has.
  void bind_state(const Variable& variable, const TensorView& value, const TensorView& next);
  // From now on each step looks for NaN and infinities in what it has made, and throws Error(not_finite) that
  // names the first op that made one. Costs a pass over all activations and gradients.
  void check_numerics() { checks_numerics_ = true; }
  // From now on the time of each node is taken.
  void profile() { times_ = IdVector<NodeId, NodeTimes>(slots_.size()); }
  const IdVector<NodeId, NodeTimes>& times() const { return times_; }
  // Which run the coming ones are, for ops that ask.
  void set_run(const RunInfo& run) { run_ = run; }
  // Rows of the coming runs, 0 <= n <= max_batch. When n changes, everything must be fed anew.
  void set_batch(std::int64_t n);
  std::int64_t batch() const { return batch_; }
  // Borrowed until the last backward step of the run.
  void feed(NodeId placeholder, const TensorView& value);

  struct ForwardStep {
    NodeId node;
    std::vector<const Variable*> reads;
  };
  struct BackwardStep {
    NodeId node;
    // Variables that are pushed whose gradient is final after this step and whose value no later backward
    // step reads. Those that the target does not depend on are among them, with a gradient of zero.
    std::vector<const Variable*> finished;
  };
  std::span<const ForwardStep> forward_steps() const { return forward_steps_; }
  std::span<const BackwardStep> backward_steps() const { return backward_steps_; }

  void forward(const ForwardStep& step);
  // d target = seed. The trainer passes 1 / global batch, since losses are sums over the rows.
  void start_backward(double seed);
  // d target = seed, of the target's shape in this run.
  void start_backward(const TensorView& seed);
  void backward(const BackwardStep& step);

  // Bytes of activations, their gradients and workspaces that an executor like this one for `max_batch`
  // rows would own.
  std::int64_t n_bytes(std::int64_t max_batch) const;

  // Of one of ExecutorOptions::gradients_of, after the last backward step; empty() where the target does not
  // depend on it.
  const TensorView& gradient(NodeId placeholder) const { return slot(placeholder).gradient; }
  // Whether the target, or what is computed besides it, depends on this node.
  bool needs(NodeId node) const { return slot(node).needed; }
  // The value of a node that this executor computes, or that was fed or bound.
  const TensorView& value(NodeId node) const;

 private:
  struct Slot {                   // one node of the graph
    bool needed = false;          // the target or `also` depends on it
    bool has_gradient = false;    // the target's gradient flows through it to a variable that is pushed
    bool ready = false;           // a placeholder was fed, or a variable bound
    std::optional<NodeId> alias;  // shares the memory of that node
    TensorView value, gradient, workspace;
    TensorView next;                     // of a local variable with state
    std::span<const std::uint64_t> ids;  // of a table: of its rows
    AlignedBytes value_memory, gradient_memory, workspace_memory;
    std::vector<const TensorView*> inputs;
    std::vector<InputGradient> input_gradients;
    std::vector<const TensorView*> next_states;  // by input; empty when no input has state
  };
  Slot& slot(NodeId id) { return slots_[id]; }
  const Slot& slot(NodeId id) const { return slots_[id]; }
  NodeId root_of(NodeId id) const;
  bool is_pushed(const Graph::Node& node) const;
  bool ends_gradient(NodeId id) const;
  void mark_needed(NodeId target);
  void mark_gradients(NodeId target);
  void plan_forward();
  void plan_backward();
  void plan_finished(NodeId target);
  void allocate(std::int64_t max_batch);
  void check_ready(NodeId reader) const;
  template <class Work>
  void timed(NodeId id, std::int64_t NodeTimes::*part, Work work);
  std::string element_text(NodeId id, std::int64_t element) const;
  void check_output(NodeId id) const;
  void check_gradients(NodeId id) const;

  const Graph* graph_;
  NodeId target_;
  ExecutorOptions options_;
  std::int64_t max_batch_;
  std::int64_t batch_;
  RunInfo run_;
  bool checks_numerics_ = false;
  IdVector<NodeId, NodeTimes> times_;  // empty unless profiled
  IdVector<NodeId, Slot> slots_;       // never resized, since contexts point into it
  std::vector<ForwardStep> forward_steps_;
  std::vector<BackwardStep> backward_steps_;
  std::vector<const Variable*> without_gradient_;  // that are pushed, but the target does not depend on them
};

}  // namespace varscope
