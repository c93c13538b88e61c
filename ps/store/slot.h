#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/base/tensor.h"

namespace varscope {

// What an optimizer keeps for each element of a trained variable besides its value, in the variable's dtype.
// With v the element's first value the slot starts at
//   initial_value + per_value * v + per_sign * sgn(v)
struct Slot {
  std::string name;  // "momentum"
  double initial_value = 0;
  bool is_per_row = false;  // of a table's rows: one number for the whole row
  double per_value = 0, per_sign = 0;
  bool is_constant() const { return per_value == 0 && per_sign == 0; }
  friend bool operator==(const Slot&, const Slot&) = default;
};

// Sets n elements of a slot to what they start with beside `value`, which is read only where the slot is no
// constant. Throws Error(argument) for such a slot of a dtype other than float32 and float64.
void start_slot(const Slot& slot, DType dtype, const std::byte* value, std::byte* memory, std::int64_t n);

}  // namespace varscope
