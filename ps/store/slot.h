#pragma once

#include <string>

namespace varscope {

// What an optimizer keeps for each element of a trained variable besides its value, in the variable's dtype.
struct Slot {
  std::string name;  // "momentum"
  double initial_value = 0;
  friend bool operator==(const Slot&, const Slot&) = default;
};

}  // namespace varscope
