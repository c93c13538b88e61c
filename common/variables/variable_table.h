#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/serialization/version.hpp>

#include "common/base/hash.h"
#include "common/base/types.h"
#include "common/compression/compression.h"
#include "common/variables/constraint.h"
#include "common/variables/initializer.h"
#include "common/variables/slice.h"
#include "common/variables/table_spec.h"

namespace varscope {

// The place of a variable that is one part of a partitioned variable.
struct Part {
  std::string full_name;  // "scope0/name0"; empty: the variable is whole
  Shape full_shape;
  Shape offset;   // of the part's first element, one extent per axis
  int index = 0;  // 0 .. n_parts - 1, in row-major order of the parts
  int n_parts = 1;
};

// One variable as the cluster sees it: what servers, checkpoints and `varscope plan` need to know.
struct VariableSpec {
  std::string name;   // "hidden1/weights"; a part's is "hidden1/weights/part_0"
  std::string scope;  // "hidden1", of parts too; "" is the root. Decides the server.
  DType dtype = DType::float32;
  Shape shape;
  Initializer initializer;
  bool trainable = true;
  // Not negative: not trained by the optimizer but a moving average. What workers push for it are samples of
  // the global batch; the server sets value = decay * value + (1 - decay) * sample. REQUIRES !trainable.
  double average_decay = -1;
  Constraint constraint = {};  // the server applies it after each update
  Part part = {};
  // A sparse table: `shape` is [0, units], and none of the slices are here (common/variables/table_spec.h).
  // Not in this struct's archive, which old checkpoints share: who sends or stores one writes tables() too.
  std::optional<TableSpec> table = {};
  // How its gradients and values travel (docs/compression.md); none where it is not worth it: see
  // VariableOptions. Not in the archive either: values mean the same with another.
  Compression compression = {};

  bool is_table() const { return table.has_value(); }
  bool is_average() const { return average_decay >= 0; }
  // Whether workers push anything for it.
  bool is_pushed() const { return trainable || is_average(); }
  bool is_part() const { return !part.full_name.empty(); }
  // The name and shape under which initial values are drawn and checkpoints can be read: those of the whole.
  const std::string& full_name() const { return is_part() ? part.full_name : name; }
  const Shape& full_shape() const { return is_part() ? part.full_shape : shape; }
  // The server of slice `slice` (index in slice_variable()). Parts of one variable start on different
  // servers.
  ServerId owner(std::int64_t slice, int n_servers) const;
  // Fills `out` with the first values of elements [begin, begin + n) of this variable's row-major order; the
  // bits are those of the same elements of the whole variable.
  void fill(TensorView out, std::uint64_t seed, std::int64_t begin) const;
  // For many fills: what they share, and one of them. The values borrow this variable's initializer.
  InitialValues initial_values(std::uint64_t seed) const;
  void fill(TensorView out, const InitialValues& values, std::int64_t begin) const;
  // The first value of a table's row: as of row `id` of a dense variable [rows, units], element numbers being
  // mod 2^64. `out` has `units` elements.
  static void fill_row(TensorView out, const InitialValues& values, std::uint64_t id);
  // The box of the whole variable that it is.
  Slice box() const;

  template <class Archive>
  void save(Archive& ar, unsigned) const {
    const std::vector<std::int64_t> dims = to_vector(shape), full = to_vector(part.full_shape),
                                    offset = to_vector(part.offset);
    ar& name& scope& dtype& dims& initializer& trainable;
    ar& average_decay& constraint& part.full_name& full& offset& part.index& part.n_parts;
  }
  // Class version 0 (checkpoint format 1.0) knows whole variables only.
  template <class Archive>
  void load(Archive& ar, unsigned version) {
    std::vector<std::int64_t> dims, full, offset;
    ar& name& scope& dtype& dims& initializer& trainable;
    shape = Shape(std::move(dims));
    size_of(dtype);  // throws on a dtype that does not exist
    if (version == 0) return;
    ar& average_decay& constraint& part.full_name& full& offset& part.index& part.n_parts;
    part.full_shape = Shape(std::move(full));
    part.offset = Shape(std::move(offset));
  }
  template <class Archive>
  void serialize(Archive& ar, unsigned version) {
    if constexpr (Archive::is_saving::value) {
      save(ar, version);
    } else {
      load(ar, version);
    }
  }

 private:
  static std::vector<std::int64_t> to_vector(const Shape& s) { return {s.dims().begin(), s.dims().end()}; }
};

// All variables of a job that live on servers, in order of creation: the same on every rank.
class VariableTable {
 public:
  VariableTable() = default;
  // Throws Error(argument) on two variables of one name.
  explicit VariableTable(std::vector<VariableSpec> variables);

  const std::vector<VariableSpec>& variables() const { return variables_; }
  std::size_t size() const { return variables_.size(); }
  const VariableSpec& operator[](std::size_t i) const { return variables_[i]; }
  const VariableSpec* find(std::string_view name) const;  // nullptr when there is none
  std::int64_t n_parameters() const;
  std::int64_t n_bytes() const;
  // Over names, scopes, dtypes, shapes, initializers, compressions: ranks compare it at start-up.
  Digest digest() const;

  // The tables among them, (name, spec), in their order. set_tables() throws Error(data) unless these are all
  // of the variables [0, n].
  std::vector<std::pair<std::string, TableSpec>> tables() const;
  void set_tables(const std::vector<std::pair<std::string, TableSpec>>& tables);

  // The compressed variables among them, by name. set_compressions() throws Error(data) for one that is not
  // here.
  std::vector<std::pair<std::string, Compression>> compressions() const;
  void set_compressions(const std::vector<std::pair<std::string, Compression>>& compressions);

  // Without the TableSpecs and Compressions.
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variables_;
  }

 private:
  std::vector<VariableSpec> variables_;
};

// The hash of a whole model's values, printed at the end of a run and by `varscope checkpoint inspect`. Add
// every slice's digest under (variable, index of the slice in slice_variable()); the result depends on the
// names, dtypes, shapes and values of the variables only, not on servers or order.
class ValuesHash {
 public:
  explicit ValuesHash(const VariableTable& variables);  // those without elements too
  void add(const std::string& variable, std::int64_t slice, const Digest& digest);
  Digest finish() const;

 private:
  struct Entry {
    std::string type;  // "float32 [4, 3]"
    std::map<std::int64_t, Digest> slices;
  };
  std::map<std::string, Entry> variables_;
};

}  // namespace varscope

BOOST_CLASS_VERSION(varscope::VariableSpec, 1)
