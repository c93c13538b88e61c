#include "worker/graph/session.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace varscope {
namespace {

Tensor copy_of(const TensorView& view) {
  Tensor t(view.dtype(), view.shape());
  if (t.n_bytes() > 0) std::memcpy(t.view().bytes(), view.bytes(), t.n_bytes());
  return t;
}

}  // namespace

Session::Session(const Graph& graph, std::uint64_t seed)
    : Session(graph, seed,
              [seed](const Variable& v, const TensorView& out) { v.spec().fill(out, seed, 0); }) {}

Session::Session(const Graph& graph, std::uint64_t seed, const FirstValues& first)
    : graph_(&graph),
      seed_(seed),
      tables_(std::make_unique<TableFeeds>(graph)),
      memory_(std::make_unique<MemoryRows>(seed)) {
  for (const Variable* v : graph.variables()) {
    if (v->spec().is_table()) continue;
    if (v->is_local() && !v->shape().fully_known()) continue;  // see prepare_states
    Tensor value(v->dtype(), v->shape());
    if (v->is_local()) {
      v->spec().fill(value.view(), seed, 0);
    } else {
      first(*v, value.view());
    }
    values_.emplace(v, std::move(value));
  }
}

void Session::run_forward(Executor& executor, std::int64_t batch, const Feeds& feeds) {
  executor.set_batch(batch);
  for (const auto& [placeholder, value] : feeds) executor.feed(placeholder, value);
  tables_->read(executor, &rows());
  for (const auto& step : executor.forward_steps()) executor.forward(step);
}

void Session::prepare_states(Executor& executor, std::int64_t batch) {
  if (!states_ || state_rows_ != batch) states_.emplace(*graph_, 1, std::max<std::int64_t>(1, batch), seed_);
  state_rows_ = batch;
  states_->bind(executor, 0);
  executor.set_run(run_);
}

std::int64_t Session::batch_of(const Feeds& feeds) const {
  std::optional<std::int64_t> batch;
  std::string first;
  for (const auto& [placeholder, value] : feeds) {
    const Graph::Node& node = graph_->node(placeholder);
    const Shape& wanted = node.type.shape;
    for (std::size_t axis = 0; axis < wanted.rank() && axis < value.shape().rank(); ++axis) {
      if (wanted[axis] != Shape::kUnknown && wanted[axis] != Shape::kBounds) continue;
      const std::int64_t bounds = wanted[axis] == Shape::kBounds ? 1 : 0;
      const std::int64_t n = std::max<std::int64_t>(0, value.shape()[axis] - bounds);
      if (batch && *batch != n) {
        fail(ErrorKind::argument, "placeholder \"{}\" was fed {} rows, \"{}\" {}", first, *batch, node.name,
             n);
      }
      batch = n;
      first = node.name;
    }
  }
  return batch.value_or(1);
}

Executor& Session::prepare(const std::vector<NodeId>& fetches, const Feeds& feeds) {
  const std::int64_t batch = batch_of(feeds);
  auto it = plans_.find(fetches);
  if (it == plans_.end() || it->second.max_batch < batch) {
    if (it != plans_.end()) plans_.erase(it);
    const std::int64_t max_batch = std::max<std::int64_t>(1, batch);
    Executor executor(*graph_, fetches.front(), max_batch, {.also = fetches, .forward_only = true});
    it = plans_.emplace(fetches, Plan{max_batch, std::move(executor)}).first;
  }
  Executor& executor = it->second.executor;
  for (const auto& [variable, value] : values_) executor.bind(*variable, value.view());
  executor.set_batch(batch);
  prepare_states(executor, batch);
  run_forward(executor, batch, feeds);
  states_->advance(0);
  return executor;
}

std::vector<Tensor> Session::run(const std::vector<NodeId>& fetches, const Feeds& feeds) {
  std::vector<Tensor> results;
  if (fetches.empty()) return results;
  const Executor& executor = prepare(fetches, feeds);
  for (const NodeId fetch : fetches) results.push_back(copy_of(executor.value(fetch)));
  return results;
}

std::map<std::string, Tensor, std::less<>> Session::gradients(NodeId loss, const Feeds& feeds) {
  const std::int64_t batch = batch_of(feeds);
  auto it = gradient_plans_.find(loss);
  if (it == gradient_plans_.end() || it->second.plan.max_batch < batch) {
    if (it != gradient_plans_.end()) gradient_plans_.erase(it);
    const std::int64_t max_batch = std::max<std::int64_t>(1, batch);
    GradientPlan made{{max_batch, Executor(*graph_, loss, max_batch)}, {}};
    for (const auto& [variable, value] : values_) {
      if (!variable->is_pushed() || !is_floating(variable->dtype())) {
        made.plan.executor.bind(*variable, value.view());
        continue;
      }
      const Tensor& g = made.gradients.emplace(variable, Tensor(value.dtype(), value.shape())).first->second;
      made.plan.executor.bind(*variable, value.view(), g.view());
    }
    it = gradient_plans_.emplace(loss, std::move(made)).first;
  }
  Executor& executor = it->second.plan.executor;
  executor.set_batch(batch);
  prepare_states(executor, batch);
  run_forward(executor, batch, feeds);
  executor.start_backward(1.0);
  for (const auto& step : executor.backward_steps()) executor.backward(step);
  std::map<std::string, Tensor, std::less<>> result;
  for (const auto& [variable, gradient] : it->second.gradients) {
    if (variable->trainable()) result.emplace(variable->name(), gradient.clone());
  }
  for (const Variable* table : tables_->tables()) {
    if (table->trainable()) result.emplace(table->name(), copy_of(tables_->gradients(*table)));
  }
  return result;
}

const TensorView& Session::value(const Variable& variable) const {
  const auto it = values_.find(&variable);
  if (variable.spec().is_table())
    fail(ErrorKind::argument, "variable \"{}\" is a table: it has rows, see Session::memory()",
         variable.name());
  if (it == values_.end())
    fail(ErrorKind::argument, "variable \"{}\" is not in the session's graph", variable.name());
  return it->second.view();
}

void Session::assign(const Variable& variable, const TensorView& value) {
  const TensorView& own = this->value(variable);
  if (own.dtype() != value.dtype() || !(own.shape() == value.shape())) {
    fail(ErrorKind::argument, "variable \"{}\" is {} {}; it was assigned {} {}", variable.name(),
         to_string(own.dtype()), own.shape().str(), to_string(value.dtype()), value.shape().str());
  }
  if (own.n_bytes() > 0) std::memcpy(own.bytes(), value.bytes(), own.n_bytes());
}

}  // namespace varscope
