#include "serve/engine/tensors.h"

#include <algorithm>
#include <array>

#include "common/base/error.h"

namespace varscope {
namespace {

struct TypeName {
  OipType type;
  std::string_view name;
  std::size_t n_bytes;
};
constexpr std::array kTypes = {TypeName{OipType::boolean, "BOOL", 1},  TypeName{OipType::uint8, "UINT8", 1},
                               TypeName{OipType::uint16, "UINT16", 2}, TypeName{OipType::uint32, "UINT32", 4},
                               TypeName{OipType::uint64, "UINT64", 8}, TypeName{OipType::int8, "INT8", 1},
                               TypeName{OipType::int16, "INT16", 2},   TypeName{OipType::int32, "INT32", 4},
                               TypeName{OipType::int64, "INT64", 8},   TypeName{OipType::fp16, "FP16", 2},
                               TypeName{OipType::fp32, "FP32", 4},     TypeName{OipType::fp64, "FP64", 8},
                               TypeName{OipType::bytes, "BYTES", 0}};

const TypeName& entry(OipType type) { return *std::ranges::find(kTypes, type, &TypeName::type); }

const TensorInfo* find(const std::vector<TensorInfo>& all, std::string_view name) {
  const auto found = std::ranges::find(all, name, &TensorInfo::name);
  return found == all.end() ? nullptr : &*found;
}

}  // namespace

std::string_view to_string(OipType type) { return entry(type).name; }

std::optional<OipType> oip_type_from(std::string_view name) {
  const auto* found = std::ranges::find(kTypes, name, &TypeName::name);
  if (found == kTypes.end()) return std::nullopt;
  return found->type;
}

std::size_t n_bytes_of(OipType type) { return entry(type).n_bytes; }

std::string tensor_text(std::span<const std::int64_t> shape, OipType type) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i == 0 ? "" : ", ") + (shape[i] < 0 ? "?" : std::to_string(shape[i]));
  return fmt::format("{}] {}", text, to_string(type));
}

const TensorInfo* Signature::input(std::string_view name) const { return find(inputs, name); }
const TensorInfo* Signature::output(std::string_view name) const { return find(outputs, name); }

}  // namespace varscope
