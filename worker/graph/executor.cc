#include "worker/graph/executor.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "common/base/clock.h"
#include "worker/graph/numerics.h"
#include "worker/kernels/blas_clock.h"

namespace varscope {
namespace {

void add_once(std::vector<const Variable*>& list, const Variable* v) {
  if (std::find(list.begin(), list.end(), v) == list.end()) list.push_back(v);
}

// The extents of a run; ragged ones, which only placeholders have, are 0 until they are fed.
Shape extents_of(const Shape& shape, std::int64_t batch) {
  Shape known = with_batch(shape, batch);
  if (!known.has(Shape::kRagged)) return known;
  std::vector<std::int64_t> dims(known.dims().begin(), known.dims().end());
  std::ranges::replace(dims, Shape::kRagged, std::int64_t{0});
  return Shape(std::move(dims));
}

bool may_feed(const Shape& wanted, std::int64_t batch, const Shape& fed) {
  const auto fits = [batch](std::int64_t want, std::int64_t has) {
    if (want == Shape::kRagged) return true;
    return has == (want == Shape::kUnknown ? batch : want == Shape::kBounds ? batch + 1 : want);
  };
  return std::ranges::equal(wanted.dims(), fed.dims(), fits);
}

}  // namespace

Executor::Executor(const Graph& graph, NodeId target, std::int64_t max_batch, ExecutorOptions options)
    : graph_(&graph),
      target_(target),
      options_(std::move(options)),
      max_batch_(max_batch),
      batch_(max_batch),
      slots_(graph.size()) {
  const Graph::Node& node = graph.node(target);
  if (max_batch < 1) fail(ErrorKind::argument, "an executor for {} rows; it needs at least 1", max_batch);
  const bool of_inputs = !options_.gradients_of.empty();
  for (const NodeId id : options_.gradients_of) {
    const Graph::Node& input = graph.node(id);
    if (input.kind != Graph::Kind::placeholder || !is_floating(input.type.dtype))
      fail(ErrorKind::argument,
           "the gradient of \"{}\" ({}) was asked for; only placeholders of numbers have one", input.name,
           input.type.str());
  }
  if (of_inputs && !is_floating(node.type.dtype))
    fail(ErrorKind::argument, "the gradient of node \"{}\" ({}) was asked for; it is no number", node.name,
         node.type.str());
  if (!of_inputs && !options_.forward_only &&
      (!is_floating(node.type.dtype) || node.type.shape.rank() != 0)) {
    fail(ErrorKind::argument, "the gradient of node \"{}\" ({}) was asked for; a loss is a floating scalar",
         node.name, node.type.str());
  }
  mark_needed(target);
  for (const NodeId id : options_.also) mark_needed(id);
  if (!options_.forward_only) mark_gradients(target);
  plan_forward();
  if (!options_.forward_only) {
    plan_backward();
    plan_finished(target);
  }
  allocate(max_batch);
}

NodeId Executor::root_of(NodeId id) const {
  while (slot(id).alias) id = *slot(id).alias;
  return id;
}

bool Executor::is_pushed(const Graph::Node& node) const {
  return options_.gradients_of.empty() && node.kind == Graph::Kind::variable && node.variable->is_pushed() &&
         is_floating(node.type.dtype);
}

// Where backward is to arrive.
bool Executor::ends_gradient(NodeId id) const {
  return is_pushed(graph_->node(id)) ||
         std::ranges::find(options_.gradients_of, id) != options_.gradients_of.end();
}

void Executor::mark_needed(NodeId target) {
  graph_->node(target);  // checks the id
  slot(target).needed = true;
  for (int i = target.value; i >= 0; --i) {
    const NodeId id(i);
    if (!slot(id).needed) continue;
    for (const NodeId input : graph_->node(id).inputs) slot(input).needed = true;
  }
}

// A node has a gradient if a variable that is pushed (or an input whose gradient is wanted) is below it and
// the target above it, both by differentiable edges.
void Executor::mark_gradients(NodeId target) {
  IdVector<NodeId, bool> below(slots_.size(), false);
  for (NodeId id : slots_.ids()) {
    const Graph::Node& node = graph_->node(id);
    below[id] = ends_gradient(id);
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      if (below[node.inputs[k]] && node.op->differentiable(k)) below[id] = true;
    }
  }
  slot(target).has_gradient = below[target];
  for (int i = target.value; i >= 0; --i) {
    const Graph::Node& node = graph_->node(NodeId(i));
    if (!slot(NodeId(i)).has_gradient) continue;
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      if (below[node.inputs[k]] && node.op->differentiable(k)) slot(node.inputs[k]).has_gradient = true;
    }
  }
}

void Executor::plan_forward() {
  for (NodeId id : slots_.ids()) {
    const Graph::Node& node = graph_->node(id);
    if (!slot(id).needed || node.kind != Graph::Kind::op) continue;
    if (node.op->is_reshape()) slot(id).alias = node.inputs[0];
    ForwardStep step{id, {}};
    for (const NodeId input : node.inputs) {
      slot(id).inputs.push_back(&slot(input).value);
      slot(id).next_states.push_back(&slot(input).next);
      const Graph::Node& source = graph_->node(root_of(input));
      if (source.kind == Graph::Kind::variable) add_once(step.reads, source.variable);
    }
    forward_steps_.push_back(std::move(step));
  }
}

void Executor::plan_backward() {
  IdVector<NodeId, bool> written(slots_.size(), false);
  for (int i = target_.value; i >= 0; --i) {
    const NodeId id(i);
    const Graph::Node& node = graph_->node(id);
    if (node.kind != Graph::Kind::op || !slot(id).has_gradient) continue;
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      const NodeId input = node.inputs[k];
      InputGradient g;
      if (slot(input).has_gradient && node.op->differentiable(k)) {
        g.contribution = written[input] ? Contribution::later : Contribution::first;
        g.gradient = &slot(input).gradient;
        written[input] = true;
      }
      slot(id).input_gradients.push_back(g);
    }
    backward_steps_.push_back({id, {}});
  }
}

void Executor::plan_finished(NodeId target) {
  std::map<const Variable*, std::size_t> last_step;
  for (std::size_t s = 0; s < backward_steps_.size(); ++s) {
    const Graph::Node& node = graph_->node(backward_steps_[s].node);
    for (const NodeId input : node.inputs) {
      for (const NodeId id : {input, root_of(input)}) {
        const Graph::Node& source = graph_->node(id);
        if (is_pushed(source)) last_step[source.variable] = s;
      }
    }
  }
  for (NodeId id : slots_.ids()) {
    const Graph::Node& node = graph_->node(id);
    if (!is_pushed(node)) continue;
    const bool is_target = id == target;  // the seed is its gradient
    if (!slot(id).has_gradient && !is_target) without_gradient_.push_back(node.variable);
    if (backward_steps_.empty())
      backward_steps_.push_back({target, {}});  // a step without work, to carry the list
    backward_steps_[last_step.contains(node.variable) ? last_step[node.variable] : 0].finished.push_back(
        node.variable);
  }
}

void Executor::allocate(std::int64_t max_batch) {
  for (NodeId id : slots_.ids()) {
    Slot& s = slot(id);
    const Graph::Node& node = graph_->node(id);
    const Shape shape = extents_of(node.type.shape, max_batch);
    const std::size_t n_bytes = static_cast<std::size_t>(shape.n_elements()) * size_of(node.type.dtype);
    const bool owned = s.needed && node.kind == Graph::Kind::op;
    if (owned && !s.alias) s.value_memory = allocate_aligned(n_bytes);
    s.value = TensorView(node.type.dtype, shape, s.value_memory.get());
    const bool is_input = node.kind == Graph::Kind::placeholder;
    if ((owned || is_input) && s.has_gradient) s.gradient_memory = allocate_aligned(n_bytes);
    s.gradient = TensorView(node.type.dtype, shape, s.gradient_memory.get());
    if (!owned) continue;
    if (const auto type = node.op->workspace(graph_->input_types(node))) {
      const Shape extent = with_batch(type->shape, max_batch);
      s.workspace_memory =
          allocate_aligned(static_cast<std::size_t>(extent.n_elements()) * size_of(type->dtype));
      s.workspace = TensorView(type->dtype, extent, s.workspace_memory.get());
    }
  }
}

std::int64_t Executor::n_bytes(std::int64_t max_batch) const {
  std::int64_t total = 0;
  const auto add = [&](const TensorType& type) {
    total += with_batch(type.shape, max_batch).n_elements() * static_cast<std::int64_t>(size_of(type.dtype));
  };
  for (NodeId id : slots_.ids()) {
    const Slot& s = slot(id);
    const Graph::Node& node = graph_->node(id);
    if (!s.needed || node.kind != Graph::Kind::op) continue;
    if (!s.alias) add(node.type);
    if (s.has_gradient) add(node.type);
    if (const auto type = node.op->workspace(graph_->input_types(node))) add(*type);
  }
  return total;
}

void Executor::bind(const Variable& variable, const TensorView& value, const TensorView& gradient) {
  const auto id = graph_->find(variable);
  // A variable of the store that this graph does not use, or see bind_rows.
  if (!id || variable.spec().is_table()) return;
  const Graph::Node& node = graph_->node(*id);
  const auto check = [&](const TensorView& view, const char* what) {
    if (view.dtype() == node.type.dtype && view.shape() == node.type.shape) return;
    fail(ErrorKind::argument, "variable \"{}\" is {}; its {} was bound to {} {}", variable.name(),
         node.type.str(), what, to_string(view.dtype()), view.shape().str());
  };
  check(value, "value");
  slot(*id).value = value;
  slot(*id).ready = true;
  if (options_.forward_only || !is_pushed(node)) return;
  if (gradient.empty() && node.type.shape.n_elements() > 0) {
    fail(ErrorKind::argument,
         "variable \"{}\" is trainable or a moving average; bind memory for its gradient", variable.name());
  }
  check(gradient, "gradient");
  slot(*id).gradient = gradient;
}

void Executor::bind_rows(const Variable& table, const TensorView& rows, const TensorView& gradients,
                         std::span<const std::uint64_t> ids) {
  const auto id = graph_->find(table);
  if (!id) return;
  const Graph::Node& node = graph_->node(*id);
  if (!table.spec().is_table())
    fail(ErrorKind::argument, "variable \"{}\" is no table: it has a value, not rows", table.name());
  const auto check = [&](const TensorView& view, const char* what) {
    if (view.dtype() == node.type.dtype && view.shape().rank() == 2 && view.shape()[1] == node.type.shape[1])
      return;
    fail(ErrorKind::argument, "table \"{}\" is {}; its {} were bound to {} {}", table.name(), node.type.str(),
         what, to_string(view.dtype()), view.shape().str());
  };
  check(rows, "rows");
  slot(*id).value = rows;
  slot(*id).ids = ids;
  slot(*id).ready = true;
  if (options_.forward_only || !is_pushed(node)) return;
  check(gradients, "gradients");
  if (gradients.empty() || gradients.shape() != rows.shape()) {
    fail(ErrorKind::argument, "table \"{}\" is trainable; its rows are {}, bind memory for their gradients",
         table.name(), rows.shape().str());
  }
  slot(*id).gradient = gradients;
}

void Executor::bind_state(const Variable& variable, const TensorView& value, const TensorView& next) {
  const auto id = graph_->find(variable);
  if (!id) return;
  const Graph::Node& node = graph_->node(*id);
  const Shape most = with_batch(node.type.shape, max_batch_);
  for (const TensorView* view : {&value, &next}) {
    const bool fits = view->dtype() == node.type.dtype && view->shape().rank() == most.rank() &&
                      (view->n_elements() >= most.n_elements() ||
                       view->n_elements() >= with_batch(node.type.shape, batch_).n_elements());
    if (!fits) {
      fail(ErrorKind::argument, "local variable \"{}\" is {} of at most {} rows; it was bound to {} {}",
           variable.name(), node.type.str(), max_batch_, to_string(view->dtype()), view->shape().str());
    }
  }
  const Shape shape = with_batch(node.type.shape, batch_);
  slot(*id).value = TensorView(node.type.dtype, shape, value.bytes());
  slot(*id).next = TensorView(node.type.dtype, shape, next.bytes());
  slot(*id).ready = true;
}

void Executor::set_batch(std::int64_t n) {
  if (n == batch_) return;
  if (n < 0 || n > max_batch_) {
    fail(ErrorKind::argument, "a run of {} rows in an executor for at most {}", n, max_batch_);
  }
  batch_ = n;
  for (NodeId id : slots_.ids()) {
    Slot& s = slot(id);
    const Graph::Node& node = graph_->node(id);
    if (node.kind == Graph::Kind::variable &&
        (node.type.shape.fully_known() || node.variable->spec().is_table()))
      continue;
    if (node.kind == Graph::Kind::placeholder && !node.type.shape.fully_known()) s.ready = false;
    const Shape shape = extents_of(node.type.shape, n);
    s.value = TensorView(node.type.dtype, shape, s.value.bytes());
    s.gradient = TensorView(node.type.dtype, shape, s.gradient.bytes());
    s.next = TensorView(node.type.dtype, shape, s.next.bytes());
    if (s.workspace.empty()) continue;
    const auto type = node.op->workspace(graph_->input_types(node));
    s.workspace = TensorView(type->dtype, with_batch(type->shape, n), s.workspace.bytes());
  }
}

void Executor::feed(NodeId placeholder, const TensorView& value) {
  const Graph::Node& node = graph_->node(placeholder);
  if (node.kind != Graph::Kind::placeholder) {
    fail(ErrorKind::argument, "node \"{}\" was fed; it is not a placeholder", node.name);
  }
  Slot& s = slot(placeholder);
  if (value.dtype() != node.type.dtype || !may_feed(node.type.shape, batch_, value.shape())) {
    fail(ErrorKind::argument, "placeholder \"{}\" is {} with {} rows; it was fed {} {}", node.name,
         node.type.str(), batch_, to_string(value.dtype()), value.shape().str());
  }
  s.value = value;
  s.ready = true;
}

void Executor::check_ready(NodeId reader) const {
  for (const NodeId input : graph_->node(reader).inputs) {
    const Graph::Node& node = graph_->node(input);
    if (node.kind == Graph::Kind::op || slot(input).ready) continue;
    fail(ErrorKind::argument, "{} \"{}\" has no value, and node \"{}\" reads it; {} it first",
         node.kind == Graph::Kind::variable ? "variable" : "placeholder", node.name,
         graph_->node(reader).name, node.kind == Graph::Kind::variable ? "bind" : "feed");
  }
}

template <class Work>
void Executor::timed(NodeId id, std::int64_t NodeTimes::*part, Work work) {
  if (times_.empty()) return work();
  NodeTimes& times = times_[id];
  const std::int64_t started = now_ns(), blas = std::exchange(blas_clock.ns, 0);
  blas_clock.on = true;
  work();
  blas_clock.on = false;
  times.*part += now_ns() - started;
  times.blas_ns += std::exchange(blas_clock.ns, blas);
  if (part == &NodeTimes::forward_ns) ++times.runs;
}

void Executor::forward(const ForwardStep& step) {
  check_ready(step.node);
  Slot& s = slot(step.node);
  if (s.alias) {
    // Only the pointer changes; assigning a whole view would copy the shape on every step.
    if (s.value.bytes() != slot(*s.alias).value.bytes()) {
      s.value = TensorView(s.value.dtype(), s.value.shape(), slot(*s.alias).value.bytes());
    }
    return;
  }
  timed(step.node, &NodeTimes::forward_ns, [&] {
    graph_->node(step.node).op->forward({s.inputs, s.value, s.workspace, run_, s.next_states});
  });
  if (checks_numerics_) check_output(step.node);
}

void Executor::start_backward(double seed) {
  for (const Variable* v : without_gradient_) {
    const TensorView& gradient = slot(*graph_->find(*v)).gradient;
    if (!gradient.empty()) std::memset(gradient.bytes(), 0, gradient.n_bytes());
  }
  const TensorView& g = slot(target_).gradient;
  if (g.empty()) return;  // nothing that is pushed below the target
  if (g.dtype() == DType::float32) {
    *g.data<float>() = static_cast<float>(seed);
  } else {
    *g.data<double>() = seed;
  }
}

void Executor::start_backward(const TensorView& seed) {
  const TensorView& g = slot(target_).gradient;
  if (g.bytes() == nullptr) return;
  if (seed.dtype() != g.dtype() || seed.shape() != g.shape()) {
    fail(ErrorKind::argument, "node \"{}\" is {} {} in this run; its gradient was given as {} {}",
         graph_->node(target_).name, to_string(g.dtype()), g.shape().str(), to_string(seed.dtype()),
         seed.shape().str());
  }
  std::memcpy(g.bytes(), seed.bytes(), seed.n_bytes());
}

void Executor::backward(const BackwardStep& step) {
  Slot& s = slot(step.node);
  if (graph_->node(step.node).kind != Graph::Kind::op || !s.has_gradient)
    return;  // it only carries `finished`
  for (const InputGradient& g : s.input_gradients) {
    if (g.contribution != Contribution::none && g.gradient->empty() && g.gradient->n_elements() > 0) {
      fail(ErrorKind::argument,
           "node \"{}\": a variable that it reads has no memory for its gradient; bind it",
           graph_->node(step.node).name);
    }
  }
  timed(step.node, &NodeTimes::backward_ns, [&] {
    graph_->node(step.node).op->backward(
        {s.inputs, s.value, s.workspace, s.gradient, s.input_gradients, run_});
  });
  if (checks_numerics_) check_gradients(step.node);
}

// "element 35", or of a table's rows "element 3 of row 17".
std::string Executor::element_text(NodeId id, std::int64_t element) const {
  const Graph::Node& node = graph_->node(id);
  const Slot& s = slot(id);
  if (s.ids.empty()) return fmt::format("element {}", element);
  const std::int64_t units = node.type.shape[1];
  const auto row = static_cast<std::size_t>(element / units);
  if (row >= s.ids.size()) return fmt::format("element {} of the padding's row", element % units);
  return fmt::format("element {} of row {}", element % units,
                     id_text(node.variable->spec().table->ids, s.ids[row]));
}

void Executor::check_output(NodeId id) const {
  const auto bad = find_not_finite(slot(id).value);
  if (!bad) return;
  const Graph::Node& node = graph_->node(id);
  std::string inputs = "its inputs are finite";
  for (const NodeId input : node.inputs) {
    const auto at = find_not_finite(slot(input).value);
    if (!at) continue;
    inputs = fmt::format("its input {} has {} at {} already{}", node_text(graph_->node(input)), at->what,
                         element_text(input, at->element),
                         run_.step > 1 ? ", which the update of the step before made" : "");
    break;
  }
  fail(ErrorKind::not_finite, "step {}: {} made {} at element {} of its output {}; {}", run_.step,
       node_text(node), bad->what, bad->element, slot(id).value.shape().str(), inputs);
}

void Executor::check_gradients(NodeId id) const {
  const Graph::Node& node = graph_->node(id);
  for (std::size_t i = 0; i < slot(id).input_gradients.size(); ++i) {
    const InputGradient& g = slot(id).input_gradients[i];
    if (g.contribution == Contribution::none) continue;
    const auto bad = find_not_finite(*g.gradient);
    if (!bad) continue;
    fail(ErrorKind::not_finite, "step {}: {} made {} at {} of the gradient of {} {}", run_.step,
         node_text(node), bad->what, element_text(node.inputs[i], bad->element),
         node_text(graph_->node(node.inputs[i])), g.gradient->shape().str());
  }
}

const TensorView& Executor::value(NodeId node) const {
  const Graph::Node& n = graph_->node(node);
  const Slot& s = slot(node);
  if (n.kind == Graph::Kind::op ? !s.needed : !s.ready) {
    fail(ErrorKind::argument, "node \"{}\" has no value here: the executor for \"{}\" does not compute it",
         n.name, graph_->node(target_).name);
  }
  return s.value;
}

}  // namespace varscope
