#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "worker/layers/layer_variables.h"

namespace varscope {

// The `table` section of a layer that looks up rows of a sparse table by id.
struct TableKeys {
  IdType ids = IdType::int64;
  std::int64_t parts = TableSpec::kDefaultParts;
  std::int64_t entry = 1, expire_steps = 0, max_rows = 0;
  WhenFull when_full = WhenFull::error;
  std::string absent;  // empty: by entry
  std::int64_t max_waiting = 0;
  void describe(Keys& keys);
  // Throws Error(config) at the key that does not go with others. `section` is where they are read from.
  void check(const ConfigNode& section, std::string_view file, std::string_view path) const;
  TableSpec spec() const;  // not checked
};

// What layers say of their ids: a range of them, which has all its rows from the start, or a table.
struct IdKeys {
  std::int64_t vocabulary = 0;
  std::optional<TableKeys> table;
  ConfigNode padding;
  // `rows` says what of: "number of ids: 0 .. vocabulary - 1".
  void describe(Keys& keys, std::string_view vocabulary_doc);
  // Throws Error(config): table and vocabulary, or padding without a table.
  void check(const LayerContext& context) const;
};

// The lookup of a layer's inputs, [ids], [ids, offsets] or [ids, offsets, weights], in its table
// "<scope>/<name>" of rows of `width`. REQUIRES keys.table. Throws Error(config): ids that are computed, or
// no ids; bags without offsets; padding that is no id; keys of the table that do not fit each other.
struct LookupKind {
  bool in_bags = false, positive_weights = false;
};
const TableLookup& look_up_rows(const LayerContext& context, LayerVariables& variables, const IdKeys& keys,
                                std::string_view name, std::int64_t width, const LookupKind& kind);
// "a table (ids: int64, parts: 1024)", for LayerInfo::text.
std::string table_text(const IdKeys& keys);

}  // namespace varscope
