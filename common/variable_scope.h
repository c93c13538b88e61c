#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/initializer.h"
#include "common/variable_table.h"

namespace varscope {

// Variable scopes with the semantics of TensorFlow's variable_scope and get_variable (graph mode). A
// VariableStore holds the variables of one model; scopes are opened as RAII guards and give names, reuse and
// inherited defaults:
//
//   VariableStore store;
//   auto layer1 = store.scope("layer1", {.initializer = Initializer::constant(0)});
//   Variable& w = store.get_variable("weights", {784, 256});   // "layer1/weights"
//
// Not thread-safe: one store belongs to one thread.

// Whether get_variable makes a new variable, returns an old one, or does what is needed.
enum class Reuse : std::uint8_t { no, yes, automatic };

// An initializer that knows the variable's shape only when the variable is made.
using InitializerFor = Initializer (*)(const Shape&);
using InitializerChoice = std::variant<Initializer, InitializerFor>;

// The collections a variable is in by default, by TensorFlow's names.
namespace collections {
inline constexpr const char* kGlobal = "variables";
inline constexpr const char* kTrainable = "trainable_variables";
inline constexpr const char* kLocal = "local_variables";
}  // namespace collections

// Where a variable was first made, for messages: "model.cc:12" or "job.yaml:14".
std::string location_text(const std::source_location& where);

// One variable: a description. Its values live in the servers' shards and in the worker's VariableMemory.
class Variable {
 public:
  const std::string& name() const { return spec_.name; }    // "layer1/weights"
  const std::string& scope() const { return spec_.scope; }  // "layer1"
  DType dtype() const { return spec_.dtype; }
  const Shape& shape() const { return spec_.shape; }
  bool trainable() const { return spec_.trainable; }
  bool is_pushed() const { return spec_.is_pushed(); }  // trainable, or a moving average
  const VariableSpec& spec() const { return spec_; }
  const std::string& made_at() const { return made_at_; }
  int index() const { return index_; }  // position in order of creation, over the whole store

 private:
  friend class VariableStore;
  Variable(VariableSpec spec, std::string made_at, int index)
      : spec_(std::move(spec)), made_at_(std::move(made_at)), index_(index) {}
  VariableSpec spec_;
  std::string made_at_;
  int index_;
};

// What a scope hands down to the variables and scopes inside it. Unset fields are inherited.
struct ScopeOptions {
  std::optional<Reuse> reuse = {};  // unset or no: inherit
  std::optional<InitializerChoice> initializer = {};
  std::optional<DType> dtype = {};
  std::optional<bool> trainable = {};
};

// What one get_variable asks for; unset fields come from the scope.
struct VariableOptions {
  std::optional<InitializerChoice> initializer = {};
  std::optional<DType> dtype = {};
  std::optional<bool> trainable = {};
  // Replaces collections::kGlobal; a trainable variable is added to collections::kTrainable all the same.
  std::optional<std::vector<std::string>> collections = {};
  std::string made_at = {};  // overrides the caller's source location, for variables made from YAML
};

class VariableStore;

// An open scope. Closes on destruction; scopes must close in the reverse order of opening (Error(argument)
// "improper nesting" at the next use of the store otherwise). Moves, so that factories can return it; does
// not copy.
class VariableScope {
 public:
  VariableScope(VariableScope&& other) noexcept;
  VariableScope& operator=(VariableScope&&) = delete;
  VariableScope(const VariableScope&) = delete;
  ~VariableScope();

  const std::string& name() const { return name_; }  // full path; "" is the root
  Reuse reuse() const;
  // From now on, until the scope closes, get_variable in it (and in scopes opened inside) returns existing
  // variables.
  void reuse_variables();

 private:
  friend class VariableStore;
  VariableScope(VariableStore* store, std::string name, std::size_t depth)
      : store_(store), name_(std::move(name)), depth_(depth) {}
  VariableStore* store_;
  std::string name_;
  std::size_t depth_;
};

class VariableStore {
 public:
  VariableStore();

  // Opens `name` inside the current scope. Throws Error(argument) on an invalid name: names match
  // [A-Za-z0-9.][A-Za-z0-9_.\/>-]* at the root; inside another scope they may also start with '_' or '-'.
  [[nodiscard]] VariableScope scope(std::string_view name, const ScopeOptions& options = {});
  // Re-enters a scope by its full path, whatever the current scope is; "" is the root.
  [[nodiscard]] VariableScope reenter(std::string_view full_path, const ScopeOptions& options = {});

  // Makes or returns "<current scope>/<name>". Throws Error(argument):
  //   no reuse and it exists:           full name, "already exists", where it was made, how to ask for reuse
  //   reuse and it does not exist:      full name, "does not exist, or was not created with get_variable"
  //   reuse with another shape, dtype:  full name, "shape" or "dtype", both
  // Without an initializer: Glorot uniform for floating dtypes, zeros for integers.
  Variable& get_variable(std::string_view name, const Shape& shape, const VariableOptions& options = {},
                         std::source_location where = std::source_location::current());

  const std::string& current_scope() const;
  Reuse current_reuse() const;
  const Variable* find(std::string_view full_name) const;  // nullptr when there is none
  // In order of creation; with a scope, those whose name starts with "<scope>/".
  std::vector<const Variable*> collection(std::string_view collection, std::string_view scope = "") const;
  std::vector<const Variable*> variables() const;
  // The variables that live on servers (collections::kGlobal), in order of creation.
  VariableTable table() const;

 private:
  friend class VariableScope;
  struct Frame {
    std::string path;
    Reuse reuse = Reuse::no;
    std::optional<InitializerChoice> initializer;
    DType dtype = DType::float32;
    bool trainable = true;
  };
  VariableScope push(std::string path, const ScopeOptions& options);
  void pop(std::size_t depth) noexcept;
  void check_nesting() const;
  std::string full_name(std::string_view name) const;
  Variable& reuse_existing(Variable& v, const Shape& shape, const VariableOptions& options) const;
  Variable& make(std::string name, const Shape& shape, const VariableOptions& options, std::string made_at);

  std::vector<std::unique_ptr<Variable>> variables_;
  std::map<std::string, Variable*, std::less<>> by_name_;
  std::map<std::string, std::vector<const Variable*>, std::less<>> collections_;
  std::vector<Frame> frames_;
  bool improperly_nested_ = false;
};

}  // namespace varscope
