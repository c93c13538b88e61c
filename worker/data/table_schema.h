#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/config/source_keys.h"
#include "worker/data/batch.h"

namespace varscope {

// What becomes of a number, with the constants that the training data gave. All in double.
struct Transform {
  enum class Type : std::uint8_t {
    log1p,        // sign(x) log(1 + |x|)
    standardize,  // (x - a) / b: mean and standard deviation (of n); b = 1 for a column that is constant
    min_max       // (x - a) / (b - a): least and greatest; 0 for a column that is constant
  };
  Type type = Type::log1p;
  double a = 0, b = 1;
  double operator()(double x) const;
  bool operator==(const Transform&) const = default;
};
inline constexpr Choice<Transform::Type> kTransforms[] = {{Transform::Type::log1p, "log1p"},
                                                          {Transform::Type::standardize, "standardize"},
                                                          {Transform::Type::min_max, "min_max"}};

// A column by its name in the header and its place in the records.
struct TableCell {
  std::string name;
  std::int64_t index = 0;
  bool operator==(const TableCell&) const = default;
};

// One column of a table, and how its cells are read.
struct TableColumn {
  std::string name;        // of the header, or "column 3" without one
  std::int64_t index = 0;  // in the records
  // Numbers. A cell without a value (empty, NA, nan, null) is `missing`, where there is such a value.
  bool takes_missing = false;
  bool is_missing_mean = false;
  double missing = 0;
  std::vector<Transform> transforms = {};
  // Categories: ids first_id (anything else), first_id + 1, ... of the vocabulary's words; or hash buckets.
  std::int64_t first_id = 0;
  std::vector<std::string> vocabulary = {};  // by frequency, then by bytes
  std::int64_t buckets = 0;                  // 0: a vocabulary
  std::int64_t most_words = 0;               // while the vocabulary is made; id 0 is one
  std::int64_t min_count = 1;
  std::vector<TableCell> crossed = {};  // the word is all of these cells' together, and no cell is at `index`

  std::int64_t n_ids() const {
    return buckets > 0 ? buckets : static_cast<std::int64_t>(vocabulary.size()) + 1;
  }
  bool operator==(const TableColumn&) const = default;
};

// One named input: [columns], and with indicators [2 columns], or ids of all columns' own ranges; a bag has
// any number of ids.
struct TableInput {
  std::string name = "x";
  bool is_category = false;
  bool indicator = false;  // behind the numbers 1 for each that was missing, else 0
  std::vector<TableColumn> columns = {};
  bool is_bag = false;          // of the ids of all columns, one behind the other
  bool has_id_weights = false;  // each word is followed by :weight, or counts 1
  std::string split = {};       // what stands between the words of a cell
  // Ids of rows, any 64 bits, instead of a vocabulary or buckets: numbers as they are, words by word_id()
  // (raw_ids.h), whose column is their place in `columns`.
  std::optional<IdType> row_ids = {};
  std::optional<std::uint64_t> missing_id =
      {};  // of numbers: the id of a cell without a value; none: an error
  std::int64_t width() const { return static_cast<std::int64_t>(columns.size()) * (indicator ? 2 : 1); }
  std::vector<InputSpec> specs() const;  // of a bag two or three; `most` is not known
  bool operator==(const TableInput&) const = default;
};

struct TableLabel {
  LabelType type = LabelType::cls;
  std::vector<TableColumn> columns = {};  // one, or several of numbers
  std::vector<std::string> classes = {};  // by id; empty while they are not known
  bool is_absent = false;                 // from these records: what is to be predicted
  bool operator==(const TableLabel&) const = default;
};

// All that it takes to read other records as those of the training data were read. A value.
struct TableSchema {
  std::vector<TableInput> inputs;
  TableLabel label;
  std::optional<TableColumn> weight = {};  // how often a row counts
  bool operator==(const TableSchema&) const = default;
};

// The columns that the keys name, before any constant is known. `header` has the columns' names, in their
// order; `nameless` columns are no features unless they are named by their numbers. Throws Error(config): a
// column that does not exist, or is named twice, with the nearest name; keys that do not fit each other.
TableSchema resolve_schema(const TableSchemaKeys& keys, std::span<const std::string> header,
                           std::span<const std::int64_t> nameless = {});

// The same of keys alone, before the table is looked at: what is wrong with them whatever columns it has.
// Where the config says the columns' names, they are the header; empty: any name may be that of a column.
void check_schema(const TableSchemaKeys& keys, std::span<const std::string> header = {});

// The keys of an input of schema.features, for --explain.
std::string explain_table_features();

// As JSON that reads back to an equal schema, doubles to the last bit.
std::string to_json(const TableSchema& schema);
// Throws Error(data) for what is no such text.
TableSchema schema_from_json(const std::string& text);

// How often a row counts: 0, or a number of kLeastWeight to kGreatestWeight, so that sums of them are
// finite and can be divided by. Nothing for anything else.
inline constexpr double kLeastWeight = 1e-30, kGreatestWeight = 1e30;
std::optional<double> weight_in(std::string_view cell);
// "expected a weight, 0 or a number from 1e-30 to 1e30, got ..."
std::string no_weight_text(std::string_view cell);

// A class as it is called: numbers by their value ("+1", "1.0" and "1" are one class), words as they are.
std::string class_name(std::string_view cell);
// The same for many cells: remembers the first few, since few classes are met often. Not thread-safe.
class ClassNames {
 public:
  // Valid until the next call.
  const std::string& of(std::string_view cell);

 private:
  static constexpr std::size_t kMostRemembered = 16;
  std::vector<std::pair<std::string, std::string>> names_;  // of cells
  std::string other_;
};

// Numbers by value, then words by bytes.
void sort_classes(std::vector<std::string>& classes);

}  // namespace varscope
