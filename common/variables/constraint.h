#pragma once

#include <cstdint>
#include <string>

namespace varscope {

// What must hold for a variable's values after every update. A value type that travels to the servers. Norms
// are Euclidean, over all axes but the last: the weights that lead to one output. A variable of rank 1 or 0
// is one such group. Those of the kinds row_... are over each row of a table [rows, n], such as an embedding,
// whose rows are what stands for something: an id (PyTorch's Embedding has its max_norm so).
struct Constraint {
  enum class Kind : std::uint8_t {
    none = 0,
    non_neg = 1,
    max_norm = 2,
    unit_norm = 3,
    row_max_norm = 4,
    row_unit_norm = 5
  };
  Kind kind = Kind::none;
  double limit = 0;  // max_norm, row_max_norm: the largest norm allowed

  static Constraint non_neg() { return {Kind::non_neg, 0}; }                    // negative values become 0
  static Constraint max_norm(double limit) { return {Kind::max_norm, limit}; }  // REQUIRES limit > 0
  static Constraint unit_norm() { return {Kind::unit_norm, 1}; }

  bool exists() const { return kind != Kind::none; }
  // True if an element's result depends on other elements.
  bool needs_norms() const { return kind != Kind::none && kind != Kind::non_neg; }
  bool is_by_row() const { return kind == Kind::row_max_norm || kind == Kind::row_unit_norm; }
  // The same for each row of a table.
  Constraint of_rows() const;
  // What the values of a group with this norm are multiplied by; a group of norm 0 stays as it is. REQUIRES
  // needs_norms().
  double scale(double norm) const;
  std::string str() const;  // "max_norm(3)", "max_norm(3) of each row", "none"

  friend bool operator==(const Constraint&, const Constraint&) = default;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& kind& limit;
  }
};

}  // namespace varscope
