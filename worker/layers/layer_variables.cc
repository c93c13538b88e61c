#include "worker/layers/layer_variables.h"

#include <algorithm>
#include <utility>

#include "worker/layers/initializer_config.h"
#include "worker/layers/scope_config.h"
#include "worker/ops/ops.h"

namespace varscope {

void VariableKeys::describe(Keys& keys) {
  keys.key("scope", scope, "scope of its variables; empty means <type>_<number>");
  keys.key("reuse", reuse,
           "no: new variables. auto: those of the scope if there are any. A scope: share that layer's "
           "variables; /a/b is the scope a/b wherever the layer stands");
  keys.choice("trainable", trainable, {"", "true", "false"},
              "false: the variables keep their first values; empty is inherited");
  keys.key("initializer", initializer, "first weights; without it the scope's, or else glorot_uniform",
           {.type_name = "an initializer"});
  keys.key("regularizer", regularizer, "of the weights; without it the scope's",
           {.type_name = "a regularizer"});
  keys.key("constraint", constraint, "of the weights; without it the scope's", {.type_name = "a constraint"});
  keys.key("partitioner", partitioner, "of the weights; without it the scope's",
           {.type_name = "a partitioner"});
  keys.key("compression", compression, "of the weights; without it the scope's",
           {.type_name = "a compression"});
}

LayerVariables::LayerVariables(const LayerContext& context, const VariableKeys& keys, std::string_view type)
    : context_(context), keys_(keys), shares_(keys.reuse != "no" && keys.reuse != "auto") {
  ScopeOptions options;
  if (keys.reuse != "no") options.reuse = shares_ ? Reuse::yes : Reuse::automatic;
  if (!keys.trainable.empty()) options.trainable = keys.trainable == "true";
  if (shares_ && !keys.scope.empty()) {
    context.fail_key("scope",
                     fmt::format("reuse: {} names the scope already; remove one of them", keys.reuse));
  }
  check_scope_name(context.node, "scope", keys.scope, context.file, context.path);
  VariableStore& store = context.store;
  if (shares_) {
    const bool absolute = keys.reuse.starts_with('/');
    scope_.emplace(absolute ? store.reenter(keys.reuse.substr(1), options)
                            : store.scope(keys.reuse, options));
    return;
  }
  const std::string name = keys.scope.empty() ? fmt::format("{}_{}", type, context.number) : keys.scope;
  scope_.emplace(store.scope(name, options));
  if (scope_->reuse() != Reuse::no) return;
  for (const Variable* v : store.variables()) {
    if (v->scope() != scope_->name()) continue;
    context.fail_key("scope",
                     fmt::format("scope \"{}\" is another layer's, made at {}; choose another name, or share "
                                 "its variables with reuse: {}",
                                 scope_->name(), v->made_at(), name));
  }
}

VariableOptions LayerVariables::options() const {
  VariableOptions options;
  options.made_at = context_.made_at();
  return options;
}

NodeId LayerVariables::add(std::string_view name, const Shape& shape, const VariableOptions& options) {
  return ops::variable(context_.graph, context_.store.get_variable(name, shape, options));
}

NodeId LayerVariables::weights(std::string_view name, const Shape& shape, std::int64_t fan_in) {
  return add_weights(name, shape, shape, fan_in, options());
}

NodeId LayerVariables::table(std::string_view name, std::int64_t rows, std::int64_t width) {
  VariableOptions o = options();
  o.rows_are_units = true;
  return add_weights(name, {rows, width}, {width, width}, width, std::move(o));
}

const Variable& LayerVariables::sparse_table(std::string_view name, const TableSpec& spec,
                                             std::int64_t width) {
  VariableOptions o = options();
  o.rows_are_units = true;
  o.table = spec;
  const NodeId node = add_weights(name, {0, width}, {width, width}, width, std::move(o));
  const Graph::Node& made = context_.graph.node(node);
  if (made.kind == Graph::Kind::variable) return *made.variable;
  context_.fail_key("table",
                    fmt::format("table \"{}/{}\" is made of other variables by a custom getter; a table "
                                "is looked up by itself",
                                scope(), name));
}

NodeId LayerVariables::add_weights(std::string_view name, const Shape& shape, const Shape& fans,
                                   std::int64_t fan_in, VariableOptions o) {
  const std::string_view file = context_.file;
  const auto path = [&](const char* key) { return join_keys(context_.path, key); };
  if (!keys_.initializer.is_null())
    o.initializer = read_initializer(keys_.initializer, file, path("initializer")).make(fans, fan_in);
  if (!keys_.regularizer.is_null())
    o.regularizer = read_regularizer(keys_.regularizer, file, path("regularizer"));
  if (!keys_.constraint.is_null()) o.constraint = read_constraint(keys_.constraint, file, path("constraint"));
  if (!keys_.partitioner.is_null())
    o.partitioner = read_partitioner(keys_.partitioner, file, path("partitioner"));
  if (!keys_.compression.is_null())
    o.compression = read_compression(keys_.compression, file, path("compression"));
  // At the key, where the store would say it of the layer.
  const Variable* shared = context_.store.find(fmt::format("{}/{}", scope(), name));
  if (shared != nullptr && shared->shape() == shape) check_shared(*shared, o);
  const Variable& v = context_.store.get_variable(name, shape, o);
  if (first_.empty()) first_ = v.spec().initializer.str();
  return ops::variable(context_.graph, v);
}

// Made by another layer. What a custom getter puts together has nothing of its own to compare.
bool LayerVariables::is_shared(const Variable& v) const {
  const bool has_values = v.combine() == Combine::whole || v.combine() == Combine::concat;
  return keys_.reuse != "no" && v.made_at() != context_.made_at() && has_values;
}

void LayerVariables::refuse_shared(const Variable& v, std::string_view key, const std::string& found,
                                   const std::string& written) const {
  context_.fail_key(key, fmt::format("the layer shares variable \"{}\" (made at {}), which has {}, not {}; "
                                     "say the same here, or leave it out",
                                     v.name(), v.made_at(), found, written));
}

void LayerVariables::check_shared_initializer(const Variable& v, std::string_view key,
                                              const VariableOptions& o) const {
  if (!is_shared(v)) return;
  const auto& written = std::get<Initializer>(*o.initializer);
  if (written != v.spec().initializer)
    refuse_shared(v, key, "first values " + v.spec().initializer.str(), written.str());
}

// What is not written here is as it was made.
void LayerVariables::check_shared(const Variable& v, const VariableOptions& o) const {
  if (!is_shared(v)) return;
  const VariableSpec& spec = v.spec();
  if (!keys_.initializer.is_null()) check_shared_initializer(v, "initializer", o);
  if (!keys_.trainable.empty() && (keys_.trainable == "true") != v.trainable())
    refuse_shared(v, "trainable", fmt::format("trainable: {}", v.trainable()), keys_.trainable);
  if (!keys_.constraint.is_null()) {
    const Constraint written = o.rows_are_units ? o.constraint->of_rows() : *o.constraint;
    if (written != spec.constraint)
      refuse_shared(v, "constraint", "the constraint " + spec.constraint.str(), written.str());
  }
  if (!keys_.compression.is_null() && spec.compression.exists() && *o.compression != spec.compression)
    refuse_shared(v, "compression", "the compression " + spec.compression.str(), o.compression->str());
  if (keys_.regularizer.is_null()) return;
  Regularizer found = Regularizer::none();
  for (const RegularizationLoss& loss : context_.store.regularization_losses()) {
    const bool is_part = std::ranges::find(v.parts(), loss.variable) != v.parts().end();
    if (loss.variable == &v || is_part) found = loss.regularizer;
  }
  if (*o.regularizer != found)
    refuse_shared(v, "regularizer", "the regularizer " + found.str(), o.regularizer->str());
}

NodeId LayerVariables::other(std::string_view name, const Shape& shape, const Initializer& first,
                             const ConfigNode* initializer, std::string_view key, std::int64_t fan_in) {
  VariableOptions o = options();
  o.initializer = first;
  if (initializer != nullptr && !initializer->is_null()) {
    o.initializer =
        read_initializer(*initializer, context_.file, join_keys(context_.path, key)).make(shape, fan_in);
    const Variable& v = context_.store.get_variable(name, shape, o);
    check_shared_initializer(v, key, o);
    return ops::variable(context_.graph, v);
  }
  return add(name, shape, o);
}

NodeId LayerVariables::average(std::string_view name, const Shape& shape, const Initializer& first,
                               double decay) {
  VariableOptions o = options();
  o.initializer = first;
  o.trainable = false;
  o.average_decay = decay;
  o.regularizer = Regularizer::none();
  o.constraint = Constraint{};
  return add(name, shape, o);
}

NodeId LayerVariables::state(std::string_view name, std::int64_t width, DType dtype) {
  VariableOptions o = options();
  o.dtype = dtype;
  o.initializer = Initializer::constant(0);
  // A layer that shares another one's weights has a state of its own.
  const VariableScope own = context_.store.reenter(scope(), {.reuse = Reuse::automatic});
  for (int i = 0;; ++i) {
    const std::string full = i == 0 ? std::string(name) : fmt::format("{}_{}", name, i);
    const Variable& v = context_.store.get_local_variable(full, Shape{Shape::kUnknown, width}, o);
    if (!context_.graph.find(v)) return ops::variable(context_.graph, v);
  }
}

std::string LayerVariables::text() const {
  return (shares_ ? "shared" : first_) + (keys_.trainable == "false" ? ", not trainable" : "");
}

}  // namespace varscope
