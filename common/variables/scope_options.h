#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/compression/compression.h"
#include "common/variables/constraint.h"
#include "common/variables/initializer.h"
#include "common/variables/partitioner.h"
#include "common/variables/regularizer.h"
#include "common/variables/variable.h"

namespace varscope {

// Whether get_variable makes a new variable, returns an old one, or does what is needed.
enum class Reuse : std::uint8_t { no, yes, automatic };

// An initializer that knows the variable's (full) shape only when the variable is made; of a table whose rows
// are units (VariableOptions), [n, n] for rows of n, which has a row's fans. A pure function that does not
// call the store.
using InitializerFor = std::function<Initializer(const Shape&)>;
using InitializerChoice = std::variant<Initializer, InitializerFor>;

class GetterCall;
// Called in place of get_variable inside a scope; makes the variable with GetterCall::next, once or several
// times or under other names, and returns what the caller gets.
using CustomGetter = std::function<Variable&(GetterCall&)>;

// What a scope hands down to the variables and scopes inside it. Unset fields are inherited.
struct ScopeOptions {
  std::optional<Reuse> reuse = {};  // unset or no: inherit
  std::optional<InitializerChoice> initializer = {};
  std::optional<DType> dtype = {};
  std::optional<bool> trainable = {};
  std::optional<Regularizer> regularizer = {};  // Regularizer::none() switches off
  std::optional<Constraint> constraint = {};    // Constraint{} switches off
  std::optional<Partitioner> partitioner = {};  // an empty function switches off
  std::optional<Compression> compression = {};  // Compression{} switches off
  // Runs before those of the scopes around; they are what its GetterCall::next calls.
  std::optional<CustomGetter> custom_getter = {};
  // False: the scope opens no name scope for operations. Not inherited.
  bool auxiliary_name_scope = true;
};

// What one get_variable asks for; unset fields come from the scope.
struct VariableOptions {
  std::optional<InitializerChoice> initializer = {};
  std::optional<DType> dtype = {};
  std::optional<bool> trainable = {};
  // Replaces collections::kGlobal; a trainable variable is added to collections::kTrainable all the same.
  std::optional<std::vector<std::string>> collections = {};
  std::string made_at = {};  // overrides the caller's source location, for variables made from YAML
  std::optional<Regularizer> regularizer = {};
  std::optional<Constraint> constraint = {};
  std::optional<Partitioner> partitioner = {};
  // Of what is worth it: not of what is not trained, of moving averages, tables, rank 0 or 1 (biases), nor of
  // less than Compression::min_bytes.
  std::optional<Compression> compression = {};
  // The variable is a table [rows, n] each of whose rows is a unit of its own, as in an embedding:
  // constraints hold for the norm of each row, and the fans of an initializer that depends on the shape are
  // n. REQUIRES rank 2.
  bool rows_are_units = false;
  // A sparse table (common/variables/table_spec.h): the shape is [0, units], no partitioner is used, and
  // there is neither regularizer nor constraint. REQUIRES rows_are_units.
  std::optional<TableSpec> table = {};
  // 0 .. 1: a moving average of what workers push, with this decay (VariableSpec::average_decay). REQUIRES
  // that the variable is not trainable. -1: none.
  double average_decay = -1;
  // Runs instead of those of the scopes; what its GetterCall::next calls is the store.
  std::optional<CustomGetter> custom_getter = {};
};

// How a template makes its scope.
struct TemplateOptions {
  // Where the template is made, instead of where it is first called; then it opens no name scope.
  bool create_scope_now = false;
  std::string unique_name = {};  // the exact name of the scope; "": the template's name, made unique
  // For all variables of the template; runs before those of the scopes around.
  std::optional<CustomGetter> custom_getter = {};
};

// A scope's settings, with everything inherited filled in.
struct ScopeState {
  std::string path;                 // "tower/layer"; "" is the root
  std::string original_name_scope;  // "tower/layer/", as first opened
  Reuse reuse = Reuse::no;
  std::optional<InitializerChoice> initializer = {};
  DType dtype = DType::float32;
  bool trainable = true;
  Regularizer regularizer = {};
  Constraint constraint = {};
  Partitioner partitioner = {};  // may be empty
  Compression compression = {};
  std::vector<CustomGetter> getters = {};  // outermost first
};

// A scope as a value: TensorFlow's VariableScope object, for re-entering it at any time and place, also after
// it has closed. A copy of the settings at the time it was taken. A default one is the root of a new store.
class ScopeHandle {
 public:
  ScopeHandle() = default;
  explicit ScopeHandle(ScopeState state) : state_(std::move(state)) {}
  const std::string& name() const { return state_.path; }
  const std::string& original_name_scope() const { return state_.original_name_scope; }
  Reuse reuse() const { return state_.reuse; }
  const ScopeState& state() const { return state_; }

 private:
  ScopeState state_;
};

}  // namespace varscope
