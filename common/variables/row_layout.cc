#include "common/variables/row_layout.h"

#include <utility>

#include "common/base/error.h"

namespace varscope {

RowLayout::RowLayout(DType dtype, std::int64_t units, std::vector<RowSlot> slots)
    : dtype_(dtype), units_(units), slots_(std::move(slots)) {
  if (dtype != DType::float32 && dtype != DType::float64)
    fail(ErrorKind::argument, "rows of a table are float32 or float64, not {}", to_string(dtype));
  if (units < 1) fail(ErrorKind::argument, "rows of a table have {} units, but need at least 1", units);
  value_bytes_ = static_cast<std::size_t>(units) * size_of(dtype);
  std::size_t at = kValuesAt + value_bytes_;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slot_at_.push_back(at);
    at += slot_bytes(i);
  }
  row_bytes_ = (at + 7) / 8 * 8;
}

}  // namespace varscope
