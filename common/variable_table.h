#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/hash.h"
#include "common/initializer.h"
#include "common/slice.h"

namespace varscope {

// One variable as the cluster sees it: what servers, checkpoints and `varscope plan` need to know.
struct VariableSpec {
  std::string name;   // "hidden1/weights"
  std::string scope;  // "hidden1"; "" is the root. Decides the server.
  DType dtype = DType::float32;
  Shape shape;
  Initializer initializer;
  bool trainable = true;

  template <class Archive>
  void save(Archive& ar, unsigned) const {
    const std::vector<std::int64_t> dims(shape.dims().begin(), shape.dims().end());
    ar& name& scope& dtype& dims& initializer& trainable;
  }
  template <class Archive>
  void load(Archive& ar, unsigned) {
    std::vector<std::int64_t> dims;
    ar& name& scope& dtype& dims& initializer& trainable;
    shape = Shape(std::move(dims));
    size_of(dtype);  // throws on a dtype that does not exist
  }
  template <class Archive>
  void serialize(Archive& ar, unsigned version) {
    if constexpr (Archive::is_saving::value) {
      save(ar, version);
    } else {
      load(ar, version);
    }
  }
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
  // Over names, scopes, dtypes, shapes, initializers: ranks compare it at start-up.
  Digest digest() const;

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variables_;
  }

 private:
  std::vector<VariableSpec> variables_;
};

// The hash of a whole model's values, printed at the end of a run and by `varscope checkpoint inspect`. Add
// every slice's digest under (variable, index of the slice in cut()); the result depends on values only, not
// on servers or order.
class ValuesHash {
 public:
  void add(const std::string& variable, std::int64_t slice, const Digest& digest);
  Digest finish() const;

 private:
  struct Entry {
    std::string variable;
    std::int64_t slice;
    Digest digest;
  };
  std::vector<Entry> entries_;
};

}  // namespace varscope
