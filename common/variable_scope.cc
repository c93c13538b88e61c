#include "common/variable_scope.h"

#include <algorithm>
#include <utility>

#include "common/error.h"

namespace varscope {
namespace {

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

void check_name(std::string_view name, bool at_root, const char* what) {
  const auto inner = [](char c) {
    return is_word(c) || c == '_' || c == '.' || c == '\\' || c == '/' || c == '>' || c == '-';
  };
  const auto first = [&](char c) { return is_word(c) || c == '.' || (!at_root && (c == '_' || c == '-')); };
  if (name.empty()) fail(ErrorKind::argument, "a {} needs a name; \"\" is not one", what);
  if (!first(name[0]) || !std::all_of(name.begin(), name.end(), inner)) {
    fail(ErrorKind::argument,
         "\"{}\" is not a valid {} name: it must match [A-Za-z0-9.{}][A-Za-z0-9_.\\/>-]*", name, what,
         at_root ? "" : "_-");
  }
}

std::string join(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : path + "/" + std::string(name);
}

}  // namespace

std::string location_text(const std::source_location& where) {
  return fmt::format("{}:{}", where.file_name(), where.line());
}

VariableScope::VariableScope(VariableScope&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), name_(std::move(other.name_)), depth_(other.depth_) {}

VariableScope::~VariableScope() {
  if (store_ != nullptr) store_->pop(depth_);
}

Reuse VariableScope::reuse() const { return store_->frames_.at(depth_).reuse; }

void VariableScope::reuse_variables() { store_->frames_.at(depth_).reuse = Reuse::yes; }

VariableStore::VariableStore() : frames_(1) {}

VariableScope VariableStore::scope(std::string_view name, const ScopeOptions& options) {
  check_nesting();
  check_name(name, frames_.back().path.empty(), "scope");
  return push(join(frames_.back().path, name), options);
}

VariableScope VariableStore::reenter(std::string_view full_path, const ScopeOptions& options) {
  check_nesting();
  if (!full_path.empty()) check_name(full_path, true, "scope");
  return push(std::string(full_path), options);
}

VariableScope VariableStore::push(std::string path, const ScopeOptions& options) {
  Frame frame = frames_.back();
  frame.path = path;
  if (options.reuse && *options.reuse != Reuse::no) frame.reuse = *options.reuse;
  if (options.initializer) frame.initializer = options.initializer;
  if (options.dtype) frame.dtype = *options.dtype;
  if (options.trainable) frame.trainable = *options.trainable;
  frames_.push_back(std::move(frame));
  return VariableScope(this, std::move(path), frames_.size() - 1);
}

void VariableStore::pop(std::size_t depth) noexcept {
  if (depth + 1 != frames_.size()) improperly_nested_ = true;
  if (depth < frames_.size()) frames_.resize(depth);
}

void VariableStore::check_nesting() const {
  if (improperly_nested_) {
    fail(ErrorKind::argument,
         "improper nesting: a variable scope was closed while a scope inside it was open");
  }
}

std::string VariableStore::full_name(std::string_view name) const { return join(frames_.back().path, name); }

Variable& VariableStore::get_variable(std::string_view name, const Shape& shape,
                                      const VariableOptions& options, std::source_location where) {
  check_nesting();
  check_name(name, frames_.back().path.empty(), "variable");
  std::string full = full_name(name);
  const auto found = by_name_.find(full);
  const Reuse reuse = frames_.back().reuse;
  if (found == by_name_.end()) {
    if (reuse == Reuse::yes) {
      fail(ErrorKind::argument,
           "variable \"{}\" does not exist, or was not created with get_variable; open its scope without "
           "reuse, or "
           "with reuse automatic",
           full);
    }
    return make(std::move(full), shape, options,
                options.made_at.empty() ? location_text(where) : options.made_at);
  }
  if (reuse == Reuse::no) {
    fail(ErrorKind::argument,
         "variable \"{}\" already exists (made at {}); to share it, open its scope with reuse yes or "
         "automatic",
         full, found->second->made_at());
  }
  return reuse_existing(*found->second, shape, options);
}

Variable& VariableStore::reuse_existing(Variable& v, const Shape& shape,
                                        const VariableOptions& options) const {
  if (v.shape() != shape) {
    fail(ErrorKind::argument, "variable \"{}\" has shape {} (made at {}), but is reused with shape {}",
         v.name(), v.shape().str(), v.made_at(), shape.str());
  }
  if (options.dtype && *options.dtype != v.dtype()) {
    fail(ErrorKind::argument, "variable \"{}\" has dtype {} (made at {}), but is reused with dtype {}",
         v.name(), to_string(v.dtype()), v.made_at(), to_string(*options.dtype));
  }
  return v;
}

Variable& VariableStore::make(std::string name, const Shape& shape, const VariableOptions& options,
                              std::string made_at) {
  if (!shape.fully_known()) {
    fail(ErrorKind::argument, "variable \"{}\" cannot be made with shape {}: every extent must be known",
         name, shape.str());
  }
  const Frame& frame = frames_.back();
  VariableSpec spec;
  spec.scope = name.find('/') == std::string::npos ? "" : name.substr(0, name.rfind('/'));
  spec.name = std::move(name);
  spec.dtype = options.dtype.value_or(frame.dtype);
  spec.shape = shape;
  spec.trainable = options.trainable.value_or(frame.trainable);
  std::optional<InitializerChoice> choice = options.initializer ? options.initializer : frame.initializer;
  if (!choice) {
    choice = is_floating(spec.dtype) ? InitializerChoice(&Initializer::glorot_uniform)
                                     : InitializerChoice(Initializer::constant(0));
  }
  spec.initializer = std::holds_alternative<Initializer>(*choice) ? std::get<Initializer>(*choice)
                                                                  : std::get<InitializerFor>(*choice)(shape);

  variables_.push_back(std::unique_ptr<Variable>(
      new Variable(std::move(spec), std::move(made_at), static_cast<int>(variables_.size()))));
  Variable* v = variables_.back().get();
  by_name_[v->name()] = v;
  for (const std::string& c : options.collections.value_or(std::vector<std::string>{collections::kGlobal})) {
    collections_[c].push_back(v);
  }
  if (v->trainable()) collections_[collections::kTrainable].push_back(v);
  return *v;
}

const std::string& VariableStore::current_scope() const { return frames_.back().path; }
Reuse VariableStore::current_reuse() const { return frames_.back().reuse; }

const Variable* VariableStore::find(std::string_view full_name) const {
  const auto found = by_name_.find(full_name);
  return found == by_name_.end() ? nullptr : found->second;
}

std::vector<const Variable*> VariableStore::collection(std::string_view collection,
                                                       std::string_view scope) const {
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

std::vector<const Variable*> VariableStore::variables() const {
  std::vector<const Variable*> all;
  for (const auto& v : variables_) all.push_back(v.get());
  return all;
}

VariableTable VariableStore::table() const {
  std::vector<VariableSpec> specs;
  for (const Variable* v : collection(collections::kGlobal)) specs.push_back(v->spec());
  return VariableTable(std::move(specs));
}

}  // namespace varscope
