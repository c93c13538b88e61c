#include "common/variables/variable_scope.h"

#include <atomic>
#include <utility>

namespace varscope {
namespace {

// Unlike std::thread::id never used again, so that a new thread never finds a former one's counters.
std::uint64_t this_thread() {
  static std::atomic<std::uint64_t> n_threads{0};
  thread_local const std::uint64_t number = ++n_threads;
  return number;
}

}  // namespace

// The guards.

VariableScope::VariableScope(VariableScope&& other) noexcept
    : OpenScope(std::exchange(other.store_, nullptr), other.thread_, other.depth_, std::move(other.name_)) {}

VariableScope::~VariableScope() {
  if (store_ != nullptr) store_->close(thread_, depth_);
}

template <class F>
auto OpenScope::with_state(F&& f) const {
  const VariableStore::Lock lock(store_->mutex_);
  return f(store_->stacks_.at(thread_).at(depth_));
}

std::string OpenScope::original_name_scope() const { return handle().original_name_scope(); }
Reuse OpenScope::reuse() const { return handle().reuse(); }
ScopeHandle OpenScope::handle() const {
  return with_state([](const ScopeState& s) { return ScopeHandle(s); });
}
void OpenScope::reuse_variables() {
  with_state([](ScopeState& s) { s.reuse = Reuse::yes; });
}
void OpenScope::set_initializer(std::optional<InitializerChoice> initializer) {
  with_state([&](ScopeState& s) { s.initializer = std::move(initializer); });
}
void OpenScope::set_regularizer(const Regularizer& regularizer) {
  with_state([&](ScopeState& s) { s.regularizer = regularizer; });
}
void OpenScope::set_constraint(const Constraint& constraint) {
  with_state([&](ScopeState& s) { s.constraint = constraint; });
}
void OpenScope::set_partitioner(Partitioner partitioner) {
  with_state([&](ScopeState& s) { s.partitioner = std::move(partitioner); });
}
void OpenScope::set_dtype(DType dtype) {
  with_state([&](ScopeState& s) { s.dtype = dtype; });
}

NameScope::NameScope(NameScope&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      thread_(other.thread_),
      depth_(other.depth_),
      name_(std::move(other.name_)) {}

NameScope::~NameScope() {
  if (store_ != nullptr) store_->close(thread_, depth_);
}

// Opening and closing.

ScopeStack& VariableStore::stack() const { return stacks_.try_emplace(this_thread(), names_).first->second; }

void VariableStore::close(std::uint64_t thread, std::size_t depth) noexcept {
  const Lock lock(mutex_);
  const auto found = stacks_.find(thread);
  if (found != stacks_.end()) found->second.close(depth);
}

VariableScope VariableStore::guard(std::size_t depth) {
  return VariableScope(this, this_thread(), depth, stack().current().path);
}

VariableScope VariableStore::scope(std::string_view name, const ScopeOptions& options) {
  const Lock lock(mutex_);
  return guard(stack().open(name, options));
}

VariableScope VariableStore::default_scope(std::string_view prefix, const ScopeOptions& options) {
  const Lock lock(mutex_);
  return guard(stack().open_default(prefix, options));
}

VariableScope VariableStore::reenter(const ScopeHandle& scope, const ScopeOptions& options) {
  const Lock lock(mutex_);
  return guard(stack().reenter(scope.state(), options));
}

VariableScope VariableStore::reenter(const VariableScope& open_scope, const ScopeOptions& options) {
  return reenter(open_scope.handle(), options);
}

VariableScope VariableStore::reenter(std::string_view full_path, const ScopeOptions& options) {
  const Lock lock(mutex_);
  return guard(stack().reenter(full_path, options));
}

OpenScope VariableStore::current() const {
  const Lock lock(mutex_);
  ScopeStack& open = stack();
  open.check_nesting();
  // The store is not const: scopes that are open are changed through it.
  return OpenScope(const_cast<VariableStore*>(this), this_thread(), open.current_depth(),
                   open.current().path);
}

ScopeHandle VariableStore::current_handle() const {
  const Lock lock(mutex_);
  return ScopeHandle(stack().current());
}

NameScope VariableStore::name_scope(std::string_view name) {
  const Lock lock(mutex_);
  const std::size_t depth = stack().open_name_scope(name);
  return NameScope(this, this_thread(), depth, current_name_scope());
}

// Asking.

std::string VariableStore::current_name_scope() const {
  const Lock lock(mutex_);
  const std::string& name = stack().name_scope();
  return name.empty() ? name : name + "/";
}

std::string VariableStore::unique_name(std::string_view name) {
  const Lock lock(mutex_);
  check_inner_name(name, stack().name_scope().empty(), "operation");
  return names_.take(join_scope(stack().name_scope(), name));
}

std::string VariableStore::current_scope() const {
  const Lock lock(mutex_);
  return stack().current().path;
}

Reuse VariableStore::current_reuse() const {
  const Lock lock(mutex_);
  return stack().current().reuse;
}

const Variable* VariableStore::find(std::string_view full_name) const {
  const Lock lock(mutex_);
  const auto found = by_name_.find(full_name);
  return found == by_name_.end() ? nullptr : found->second;
}

std::vector<const Variable*> VariableStore::collection(std::string_view collection,
                                                       std::string_view scope) const {
  const Lock lock(mutex_);
  const auto found = collections_.find(collection);
  if (found == collections_.end()) return {};
  if (scope.empty()) return found->second;
  const std::string prefix = std::string(scope) + "/";
  std::vector<const Variable*> inside;
  for (const Variable* v : found->second) {
    if (v->name().starts_with(prefix)) inside.push_back(v);
  }
  return inside;
}

std::vector<RegularizationLoss> VariableStore::regularization_losses(std::string_view scope) const {
  const Lock lock(mutex_);
  if (scope.empty()) return losses_;
  const std::string prefix = std::string(scope) + "/";
  std::vector<RegularizationLoss> inside;
  for (const RegularizationLoss& loss : losses_) {
    if (loss.name.starts_with(prefix)) inside.push_back(loss);
  }
  return inside;
}

std::vector<const Variable*> VariableStore::variables() const {
  const Lock lock(mutex_);
  return variables_;
}

VariableTable VariableStore::table() const {
  std::vector<VariableSpec> specs;
  for (const Variable* v : collection(collections::kGlobal)) specs.push_back(v->spec());
  return VariableTable(std::move(specs));
}

}  // namespace varscope
