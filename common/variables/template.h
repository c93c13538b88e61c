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
// inside the scope that is current then; every later call, and one that the function itself makes,
// re-enters that scope with reuse, wherever it is called from. If the first call throws, the next one goes on
// without reuse. Made by VariableStore::make_template; not thread-safe. Borrows the store, owns the function.
template <class F>
class Template {
 public:
  // Throws Error(argument) for a unique_name that is no name, and what opening a scope throws.
  Template(VariableStore& store, std::string name, F f, TemplateOptions options = {})
      : store_(&store), name_(std::move(name)), f_(std::move(f)), options_(std::move(options)) {
    if (options_.create_scope_now) make_scope(false);
  }

  // Throws Error(argument) when a later call makes a trainable variable (as make_variable can), naming it.
  template <class... Args>
  std::invoke_result_t<F&, Args...> operator()(Args&&... args) {
    const VariableScope scope = open();
    const Call call(*this);
    using Result = std::invoke_result_t<F&, Args...>;
    if constexpr (std::is_void_v<Result>) {
      std::invoke(f_, std::forward<Args>(args)...);
      call.finish();
    } else {
      Result result = std::invoke(f_, std::forward<Args>(args)...);
      call.finish();
      return std::forward<Result>(result);
    }
  }

  const std::string& name() const { return name_; }
  // The full path of its variables' scope; "" before there is one.
  std::string scope_name() const { return handle_ ? handle_->name() : ""; }

 private:
  // One call under way.
  class Call {
   public:
    explicit Call(Template& t)
        : t_(t), was_made_(t.is_made_), n_before_(t.store_->collection(collections::kTrainable).size()) {
      ++t_.depth_;
    }
    ~Call() { --t_.depth_; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // The function has returned.
    void finish() const {
      const std::vector<const Variable*> trainable = t_.store_->collection(collections::kTrainable);
      if (was_made_ && trainable.size() > n_before_) {
        std::vector<std::string> names;
        for (std::size_t i = n_before_; i < trainable.size(); ++i) names.push_back(trainable[i]->name());
        fail(
            ErrorKind::argument,
            "template \"{}\" made a trainable variable after its first call: \"{}\"; use get_variable in it, "
            "which shares the variables of the first call",
            t_.name_, fmt::join(names, "\", \""));
      }
      if (t_.depth_ == 1) t_.is_made_ = true;
    }

   private:
    Template& t_;
    bool was_made_;
    std::size_t n_before_;
  };

  VariableScope make_scope(bool auxiliary_name_scope) {
    const ScopeOptions options{.custom_getter = options_.custom_getter,
                               .auxiliary_name_scope = auxiliary_name_scope};
    VariableScope scope = options_.unique_name.empty() ? store_->default_scope(name_, options)
                                                       : store_->scope(options_.unique_name, options);
    handle_ = scope.handle();
    return scope;
  }
  VariableScope open() {
    if (!handle_) return make_scope(true);
    const bool shares = is_made_ || depth_ > 0;
    return store_->reenter(*handle_, {.reuse = shares ? std::optional<Reuse>(Reuse::yes) : std::nullopt});
  }

  VariableStore* store_;
  std::string name_;
  F f_;
  TemplateOptions options_;
  std::optional<ScopeHandle> handle_;
  bool is_made_ = false;  // a first call has come to its end
  int depth_ = 0;         // of calls under way, one inside the other
};

template <class F>
Template<std::decay_t<F>> VariableStore::make_template(std::string name, F&& f, TemplateOptions options) {
  return {*this, std::move(name), std::forward<F>(f), std::move(options)};
}

}  // namespace varscope
