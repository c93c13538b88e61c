#include "ps/store/slot.h"

#include "common/base/error.h"
#include "common/variables/initializer.h"

namespace varscope {
namespace {

// Begins with the constant, so that the slot of a value 0 is no -0.
template <class T>
void start_from_values(const Slot& slot, const T* value, T* memory, std::int64_t n) {
  const T constant = static_cast<T>(slot.initial_value), per_value = static_cast<T>(slot.per_value),
          per_sign = static_cast<T>(slot.per_sign);
  for (std::int64_t i = 0; i < n; ++i) {
    const T sign = static_cast<T>(value[i] > 0) - static_cast<T>(value[i] < 0);
    memory[i] = constant + per_value * value[i] + per_sign * sign;
  }
}

}  // namespace

void start_slot(const Slot& slot, DType dtype, const std::byte* value, std::byte* memory, std::int64_t n) {
  if (slot.is_constant()) {
    Initializer::constant(slot.initial_value).fill(TensorView(dtype, Shape{n}, memory), 0, "", 0);
  } else if (dtype == DType::float32) {
    start_from_values(slot, reinterpret_cast<const float*>(value), reinterpret_cast<float*>(memory), n);
  } else if (dtype == DType::float64) {
    start_from_values(slot, reinterpret_cast<const double*>(value), reinterpret_cast<double*>(memory), n);
  } else {
    fail(ErrorKind::argument, "slot {} cannot start from values of dtype {}", slot.name, to_string(dtype));
  }
}

}  // namespace varscope
