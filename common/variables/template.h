#pragma once

#include <fmt/ranges.h>

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/variables/variable_store.h"

namespace varscope {

// A function whose calls share variables. Its first call opens a scope with the template's name, made unique,
// inside the scope that is current then; every later call re-enters that scope with reuse, wherever it is
// called from. If the first call throws, the next one goes on without reuse. Made by
// VariableStore::make_template; not thread-safe. Borrows the store, owns the function.
template <class F>
class Template {
 public:
  Template(VariableStore& store, std::string name, F f)
      : store_(&store), name_(std::move(name)), f_(std::move(f)) {}

  // Throws Error(argument) when a later call makes a trainable variable (as make_variable can), naming it.
  template <class... Args>
  std::invoke_result_t<F&, Args...> operator()(Args&&... args) {
    const VariableScope scope = open();
    const std::size_t n_before = store_->collection(collections::kTrainable).size();
    using Result = std::invoke_result_t<F&, Args...>;
    if constexpr (std::is_void_v<Result>) {
      std::invoke(f_, std::forward<Args>(args)...);
      finish(n_before);
    } else {
      Result result = std::invoke(f_, std::forward<Args>(args)...);
      finish(n_before);
      return std::forward<Result>(result);
    }
  }

  const std::string& name() const { return name_; }
  // The full path of its variables' scope; "" before the first call.
  std::string scope_name() const { return handle_ ? handle_->name() : ""; }

 private:
  VariableScope open() {
    if (handle_) {
      return store_->reenter(*handle_, {.reuse = is_made_ ? std::optional<Reuse>(Reuse::yes) : std::nullopt});
    }
    VariableScope scope = store_->default_scope(name_);
    handle_ = scope.handle();
    return scope;
  }

  void finish(std::size_t n_before) {
    const std::vector<const Variable*> trainable = store_->collection(collections::kTrainable);
    if (is_made_ && trainable.size() > n_before) {
      std::vector<std::string> names;
      for (std::size_t i = n_before; i < trainable.size(); ++i) names.push_back(trainable[i]->name());
      fail(ErrorKind::argument,
           "template \"{}\" made a trainable variable after its first call: \"{}\"; use get_variable in it, "
           "which shares the variables of the first call",
           name_, fmt::join(names, "\", \""));
    }
    is_made_ = true;
  }

  VariableStore* store_;
  std::string name_;
  F f_;
  std::optional<ScopeHandle> handle_;
  bool is_made_ = false;
};

template <class F>
Template<std::decay_t<F>> VariableStore::make_template(std::string name, F&& f) {
  return {*this, std::move(name), std::forward<F>(f)};
}

}  // namespace varscope
