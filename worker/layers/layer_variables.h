#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "worker/layers/layer.h"

namespace varscope {

// The keys that all layers with variables share.
struct VariableKeys {
  std::string scope;
  std::string reuse = "no";
  std::string trainable;  // empty: inherited
  ConfigNode initializer, regularizer, constraint, partitioner, compression;
  void describe(Keys& keys);
};

// The scope of a layer while the layer is being built, and how it gets its variables: new ones under
// <scope>/, or those of the scope that `reuse` names. Closes the scope on destruction.
class LayerVariables {
 public:
  // Without a scope in the keys it is called <type>_<number>. Throws Error(config) if the scope is another
  // layer's.
  LayerVariables(const LayerContext& context, const VariableKeys& keys, std::string_view type);

  const std::string& scope() const { return scope_->name(); }
  bool shares() const { return shares_; }
  // The layer's main variables: by its initializer, regularizer, constraint, partitioner and compression, or
  // those that the scope hands down. `fan_in` is what fan_in_uniform divides by.
  NodeId weights(std::string_view name, const Shape& shape, std::int64_t fan_in);
  // The same of a table whose rows are units of their own (VariableOptions::rows_are_units): an embedding.
  NodeId table(std::string_view name, std::int64_t rows, std::int64_t width);
  // The same without a number of rows: a sparse table, which Graph::look_up() reads.
  const Variable& sparse_table(std::string_view name, const TableSpec& spec, std::int64_t width);
  // Biases and the like: first values as given, unless `initializer` is set.
  NodeId other(std::string_view name, const Shape& shape, const Initializer& first,
               const ConfigNode* initializer = nullptr, std::string_view key = "", std::int64_t fan_in = 1);
  // A moving average that the workers' statistics drive.
  NodeId average(std::string_view name, const Shape& shape, const Initializer& first, double decay);
  // State of the worker that is carried from run to run: [?, width], zeros at the start of an epoch.
  NodeId state(std::string_view name, std::int64_t width, DType dtype);
  // "new, uniform(-0.1, 0.1)", "shared", "not trainable": for LayerInfo::text.
  std::string text() const;

 private:
  VariableOptions options() const;
  // Throws Error(config) at the key when the layer shares the variable and writes something else than it was
  // made with. `o`: as the layer's keys say.
  void check_shared(const Variable& v, const VariableOptions& o) const;
  void check_shared_initializer(const Variable& v, std::string_view key, const VariableOptions& o) const;
  [[noreturn]] void refuse_shared(const Variable& v, std::string_view key, const std::string& found,
                                  const std::string& written) const;
  bool is_shared(const Variable& v) const;
  NodeId add(std::string_view name, const Shape& shape, const VariableOptions& options);
  // `fans` is the shape whose fans the initializer takes.
  NodeId add_weights(std::string_view name, const Shape& shape, const Shape& fans, std::int64_t fan_in,
                     VariableOptions options);

  const LayerContext& context_;
  const VariableKeys& keys_;
  bool shares_ = false;
  std::optional<VariableScope> scope_;
  std::string first_;  // of the first weights
};

}  // namespace varscope
