#include "common/compression/compression.h"

#include <fmt/format.h>

namespace varscope {

std::int64_t Compression::last_full_step(std::int64_t planned) const {
  if (start_step != kAutomatic) return start_step;
  if (!has_residual()) return 0;
  return planned > 0 ? planned / 10 : 100;
}

std::string Compression::str() const {
  if (!exists()) return "none";
  std::string text = type ? to_string(*type) : "none";
  if (type == CodecType::topk) text += fmt::format("({:g})", ratio);
  return values == ValueForm::bf16 ? text + ", bf16 values" : text;
}

}  // namespace varscope
