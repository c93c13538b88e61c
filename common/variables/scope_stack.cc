#include "common/variables/scope_stack.h"

#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

std::string with_slash(const std::string& name_scope) {
  return name_scope.empty() ? name_scope : name_scope + "/";
}

std::string_view last_component(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

void apply(const ScopeOptions& options, ScopeState& state) {
  if (options.custom_getter && !*options.custom_getter) {
    fail(ErrorKind::argument, "the custom_getter of scope \"{}\" is not callable: it is empty", state.path);
  }
  if (options.reuse && *options.reuse != Reuse::no) state.reuse = *options.reuse;
  if (options.initializer) state.initializer = options.initializer;
  if (options.dtype) state.dtype = *options.dtype;
  if (options.trainable) state.trainable = *options.trainable;
  if (options.regularizer) state.regularizer = *options.regularizer;
  if (options.constraint) state.constraint = *options.constraint;
  if (options.partitioner) state.partitioner = *options.partitioner;
  if (options.compression) state.compression = *options.compression;
  if (options.custom_getter) state.getters.push_back(*options.custom_getter);
}

}  // namespace

std::size_t ScopeStack::current_depth() const {
  std::size_t i = entries_.size() - 1;
  while (!entries_[i].state) --i;  // the root has one
  return i;
}

ScopeState& ScopeStack::at(std::size_t depth) {
  if (depth >= entries_.size()) check_nesting();
  return entries_.at(depth).state.value();
}

void ScopeStack::check_nesting() const {
  if (improperly_nested_) {
    fail(ErrorKind::argument,
         "improper nesting: a variable scope was closed while a scope inside it was open");
  }
}

std::string ScopeStack::enter_name_scope(std::string_view name) {
  if (name.empty()) return "";
  if (name.ends_with('/')) return std::string(name.substr(0, name.size() - 1));
  return names_->take(join_scope(name_scope(), name));
}

std::size_t ScopeStack::enter(ScopeState state, std::string name_scope) {
  ++counters_[state.path];
  entries_.push_back({std::move(name_scope), std::move(state), {}});
  return entries_.size() - 1;
}

std::size_t ScopeStack::open(std::string_view name, const ScopeOptions& options) {
  check_nesting();
  ScopeState state = current();
  check_scoped_name(name, state.path.empty(), "scope");
  state.path = join_scope(state.path, name);
  apply(options, state);
  std::string names = options.auxiliary_name_scope ? enter_name_scope(name) : name_scope();
  state.original_name_scope = with_slash(names);
  return enter(std::move(state), std::move(names));
}

std::size_t ScopeStack::open_default(std::string_view prefix, const ScopeOptions& options) {
  check_nesting();
  if (options.reuse && *options.reuse != Reuse::no) {
    fail(ErrorKind::argument,
         "reuse needs a name: a scope with the default name \"{}\" is a new one each time", prefix);
  }
  ScopeState state = current();
  check_scoped_name(prefix, state.path.empty(), "default scope");
  const auto is_taken = [&](const std::string& path) {
    const auto found = counters_.find(path);
    return found != counters_.end() && found->second > 0;
  };
  const std::string base = join_scope(state.path, prefix);
  state.path = base;
  for (int i = 1; is_taken(state.path); ++i) state.path = base + "_" + std::to_string(i);
  apply(options, state);
  std::string names = options.auxiliary_name_scope ? enter_name_scope(prefix) : name_scope();
  state.original_name_scope = with_slash(names);
  return enter(std::move(state), std::move(names));
}

std::size_t ScopeStack::reenter(std::string_view path, const ScopeOptions& options) {
  if (!path.empty()) check_scoped_name(path, true, "scope");
  ScopeState state = current();
  state.path = path;
  state.original_name_scope = with_slash(state.path);
  return reenter(state, options);
}

std::size_t ScopeStack::reenter(const ScopeState& scope, const ScopeOptions& options) {
  check_nesting();
  ScopeState state = scope;
  apply(options, state);
  // The root has no name to open a name scope by: the current one stays.
  const std::string_view name = last_component(state.path);
  const bool opens = options.auxiliary_name_scope && !name.empty();
  std::string names = opens ? enter_name_scope(name) : name_scope();
  const std::size_t depth = enter(std::move(state), std::move(names));
  entries_[depth].counters_after_entry = counters_;
  return depth;
}

std::size_t ScopeStack::open_name_scope(std::string_view name) {
  check_nesting();
  if (!name.empty()) check_scoped_name(name, name_scope().empty(), "name scope");
  entries_.push_back({enter_name_scope(name), {}, {}});
  return entries_.size() - 1;
}

void ScopeStack::close(std::size_t depth) noexcept {
  if (depth + 1 != entries_.size()) improperly_nested_ = true;
  if (depth >= entries_.size()) return;
  Entry& entry = entries_[depth];
  if (entry.counters_after_entry) {
    counters_ = std::move(*entry.counters_after_entry);
  } else if (entry.state) {
    zero_counters_below(entry.state->path);
  }
  entries_.resize(depth);
}

void ScopeStack::zero_counters_below(std::string_view path) noexcept {
  for (auto it = counters_.lower_bound(path); it != counters_.end() && it->first.starts_with(path); ++it) {
    if (it->first.size() > path.size() && it->first[path.size()] == '/') it->second = 0;
  }
}

}  // namespace varscope
