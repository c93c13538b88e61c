#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/variables/scope_options.h"
#include "common/variables/scope_stack.h"
#include "common/variables/variable.h"

namespace varscope {

class VariableStore;
template <class F>
class Template;

// A scope that is open, the root of a thread too. Good for as long as it is; closes nothing. Belongs to the
// thread that opened it.
class OpenScope {
 public:
  const std::string& name() const { return name_; }  // full path; "" is the root
  std::string original_name_scope() const;           // "tower/layer/"
  Reuse reuse() const;
  // The scope as it is now, for re-entering it later.
  ScopeHandle handle() const;

  // These change the scope until it closes; scopes that are open inside it already keep what they inherited.
  // From now on get_variable returns existing variables.
  void reuse_variables();
  void set_initializer(std::optional<InitializerChoice> initializer);
  void set_regularizer(const Regularizer& regularizer);
  void set_constraint(const Constraint& constraint);
  void set_partitioner(Partitioner partitioner);  // empty: none
  void set_dtype(DType dtype);

 protected:
  friend class VariableStore;
  OpenScope(VariableStore* store, std::uint64_t thread, std::size_t depth, std::string name)
      : store_(store), thread_(thread), depth_(depth), name_(std::move(name)) {}
  template <class F>
  auto with_state(F&& f) const;
  VariableStore* store_;
  std::uint64_t thread_;
  std::size_t depth_;
  std::string name_;
};

// The guard of an open scope. Closes it on destruction; scopes must close in the reverse order of opening
// (Error(argument) "improper nesting" at the next use of the store otherwise). Moves, so that factories can
// return it; does not copy.
class VariableScope : public OpenScope {
 public:
  VariableScope(VariableScope&& other) noexcept;
  VariableScope& operator=(VariableScope&&) = delete;
  VariableScope(const VariableScope&) = delete;
  ~VariableScope();

 private:
  friend class VariableStore;
  using OpenScope::OpenScope;
};

// An open name scope: for operations and make_variable only; get_variable does not see it. Closes as
// VariableScope does.
class NameScope {
 public:
  NameScope(NameScope&& other) noexcept;
  NameScope& operator=(NameScope&&) = delete;
  NameScope(const NameScope&) = delete;
  ~NameScope();
  const std::string& name() const { return name_; }  // "tower4/scope/"; "" is the root

 private:
  friend class VariableStore;
  NameScope(VariableStore* store, std::uint64_t thread, std::size_t depth, std::string name)
      : store_(store), thread_(thread), depth_(depth), name_(std::move(name)) {}
  VariableStore* store_;
  std::uint64_t thread_;
  std::size_t depth_;
  std::string name_;
};

// The variables of one model, and the scopes open in each thread. A new thread starts at the root, with its
// own counters for default names; variables and names of operations are shared. Thread-safe: one lock. It is
// held while initializer functions and partitioners run, not while custom getters do. Neither moves nor
// copies; outlives its scopes and whoever holds its variables. A call that throws has changed nothing.
//
// get_variable makes or returns "<current scope>/<name>". Throws Error(argument):
//   no reuse and it exists:           full name, "already exists", where it was made, how to ask for reuse
//   reuse and it does not exist:      full name, "does not exist, or was not created with get_variable"
//   reuse with another shape, dtype:  full name, "shape" or "dtype", both. An unset dtype fits any, as does
//                                     an extent of Shape::kUnknown.
//   reuse of a table with another TableSpec, or, in the call itself, another initializer or trainable
//   a tensor initializer and a shape, or a dtype that is not the tensor's
//   no shape, where one is needed:    "The initializer passed is not valid"
//   a partitioner whose answer is bad, or does not fit the variable that exists
// Without an initializer: Glorot uniform for floating dtypes, zeros for the others (false for uint8).
class VariableStore {
 public:
  VariableStore() = default;
  VariableStore(const VariableStore&) = delete;
  VariableStore& operator=(const VariableStore&) = delete;

  // Opens `name` inside the current scope. Throws Error(argument) on an invalid name: names match
  // [A-Za-z0-9.][A-Za-z0-9_.\/>-]* at the root; inside another scope they may also start with '_', '\', '>'
  // or '-'. Names of variables and operations do not end with '/'.
  [[nodiscard]] VariableScope scope(std::string_view name, const ScopeOptions& options = {});
  // Opens "<prefix>" or, if that has been opened, "<prefix>_<i>": a new one each time. Refuses reuse.
  [[nodiscard]] VariableScope default_scope(std::string_view prefix, const ScopeOptions& options = {});
  // Re-enters a scope, whatever the current one is, with the handle's settings.
  [[nodiscard]] VariableScope reenter(const ScopeHandle& scope, const ScopeOptions& options = {});
  [[nodiscard]] VariableScope reenter(const VariableScope& open_scope, const ScopeOptions& options = {});
  // By its full path, with the current scope's settings; "" is the root.
  [[nodiscard]] VariableScope reenter(std::string_view full_path, const ScopeOptions& options = {});
  // The current scope, to change its settings or ask for them; as a value. TensorFlow's get_variable_scope.
  OpenScope current() const;
  ScopeHandle current_handle() const;

  // Opens a name scope, made unique inside the current one; "a/b/" is exactly that one, "" the root.
  [[nodiscard]] NameScope name_scope(std::string_view name);
  std::string current_name_scope() const;          // "tower4/scope/"; "" is the root
  std::string unique_name(std::string_view name);  // for an operation: "tower4/scope/name_1"

  Variable& get_variable(std::string_view name, const Shape& shape, const VariableOptions& options = {},
                         std::source_location where = std::source_location::current());
  // Without a shape: an existing variable of any shape, or that of a tensor initializer. (A template, so that
  // {} stands for a scalar's shape.)
  template <class = void>
  Variable& get_variable(std::string_view name, const VariableOptions& options = {},
                         std::source_location where = std::source_location::current()) {
    return get(name, std::nullopt, options, Residence::servers, where);
  }
  // The same for a variable that lives on its worker: in collections::kLocal besides those asked for, never
  // trainable, partitioned, regularized or constrained, and not in table(). The first extent may be
  // Shape::kUnknown (one row for each sample of the run); such a variable starts at zero by default.
  Variable& get_local_variable(std::string_view name, const Shape& shape, const VariableOptions& options = {},
                               std::source_location where = std::source_location::current());
  template <class = void>
  Variable& get_local_variable(std::string_view name, const VariableOptions& options = {},
                               std::source_location where = std::source_location::current()) {
    return get(name, std::nullopt, options, Residence::worker, where);
  }
  // TensorFlow's Variable(...): always a new variable, named by the name scope and made unique, with nothing
  // from the variable scope: no partitioner, no custom getter. get_variable does not share it.
  Variable& make_variable(std::string_view name, const Shape& shape, const VariableOptions& options = {},
                          std::source_location where = std::source_location::current());

  // For custom getters: the sum or the product, element by element, of variables of one shape and dtype,
  // under a full name. The same parts again give the same variable.
  Variable& sum(std::string_view full_name, const std::vector<const Variable*>& parts);
  Variable& product(std::string_view full_name, const std::vector<const Variable*>& parts);

  // A function whose calls share the variables that its first call makes (common/variables/template.h).
  template <class F>
  Template<std::decay_t<F>> make_template(std::string name, F&& f, TemplateOptions options = {});

  std::string current_scope() const;
  Reuse current_reuse() const;
  const Variable* find(std::string_view full_name) const;  // handles too; nullptr when there is none
  // In order of creation; with a scope, those whose name starts with "<scope>/".
  std::vector<const Variable*> collection(std::string_view collection, std::string_view scope = "") const;
  // In order of creation of the variables; one for each that was new (each part of a partitioned one).
  std::vector<RegularizationLoss> regularization_losses(std::string_view scope = "") const;
  std::vector<const Variable*> variables() const;  // all that have values: no handles
  // The variables that live on servers (collections::kGlobal), in order of creation.
  VariableTable table() const;

 private:
  friend class OpenScope;
  friend class VariableScope;
  friend class NameScope;
  friend class GetterCall;
  enum class Residence : std::uint8_t { servers, worker };
  // One get_variable with everything filled in that comes from the scope.
  struct Request {
    std::string name;   // full
    std::string scope;  // of the call, whatever custom getters name the variables
    std::optional<Shape> shape;
    VariableOptions options;  // dtype: as asked; the rest with the scope's
    DType scope_dtype = DType::float32;
    Reuse reuse = Reuse::no;
    Residence residence = Residence::servers;
    bool is_bare = false;  // of make_variable
  };
  using Lock = std::lock_guard<std::recursive_mutex>;

  ScopeStack& stack() const;  // of this thread; REQUIRES the lock
  VariableScope guard(std::size_t depth);
  void close(std::uint64_t thread, std::size_t depth) noexcept;

  Variable& get(std::string_view name, std::optional<Shape> shape, const VariableOptions& options,
                Residence residence, std::source_location where);
  Variable& run_getters(const Request& request, std::span<const CustomGetter> getters);
  // The rest REQUIRES the lock.
  Variable& get_or_make(const Request& request);
  Variable& reuse_existing(Variable& v, const Request& request) const;
  Variable& make(const Request& request);
  Variable& make_parts(const VariableSpec& whole, const Partitioning& partitioning, const Request& request);
  Variable& make_whole(VariableSpec spec, const Request& request);
  Variable& compose(std::string_view name, const std::vector<const Variable*>& parts, Combine combine);
  Variable& add(std::unique_ptr<Variable> variable);
  void check_free(const std::string& name) const;

  mutable std::recursive_mutex mutex_;
  mutable UniqueNames names_;  // a stack that is made for asking keeps a pointer to it
  mutable std::map<std::uint64_t, ScopeStack> stacks_;  // by thread
  std::vector<std::unique_ptr<Variable>> owned_;        // handles too
  std::vector<const Variable*> variables_;
  std::map<std::string, Variable*, std::less<>> by_name_;
  std::map<std::string, std::vector<const Variable*>, std::less<>> collections_;
  std::vector<RegularizationLoss> losses_;
};

// What a custom getter is called with: one get_variable on its way. A getter may change the fields before it
// calls next().
class GetterCall {
 public:
  std::string name;            // full: "scope/v"
  std::optional<Shape> shape;  // unset: as stored, or the tensor initializer's
  // With the scope's settings filled in, without custom_getter; dtype stays unset when the caller left it out
  // (the scope's for a new variable, the stored one on reuse).
  VariableOptions options;
  Reuse reuse;  // as in force

  VariableStore& store() const { return *store_; }
  // Makes or returns the variable: calls the getter of the scope around or, last, the store.
  Variable& next() const { return next(name); }
  Variable& next(std::string_view full_name) const;

 private:
  friend class VariableStore;
  GetterCall(VariableStore& store, const VariableStore::Request& request,
             std::span<const CustomGetter> outer);
  VariableStore* store_;
  const VariableStore::Request* request_;
  std::span<const CustomGetter> outer_;
};

}  // namespace varscope
