#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "common/compression/codec.h"

namespace varscope {

// How the values of a compressed variable come down to workers; servers keep float32.
enum class ValueForm : std::uint8_t { full = 0, bf16 = 1 };

// What a variable's gradients become on their way to its server, and its values on their way back
// (docs/compression.md). A value type; scopes hand it down.
struct Compression {
  static constexpr std::int64_t kAutomatic = -1;

  std::optional<CodecType> type = {};  // none: gradients go up in full
  double ratio = 0.01;                 // topk: the share of elements that is sent
  ValueForm values = ValueForm::full;
  std::int64_t min_bytes = 4096;         // smaller variables stay as they are
  std::int64_t start_step = kAutomatic;  // gradients of steps up to this one go up in full
  std::string made_at = {};              // "job.yaml:14:5: model.compression: "; for messages

  bool exists() const { return type || values == ValueForm::bf16; }
  bool has_residual() const { return type && varscope::has_residual(*type); }
  // REQUIRES type.
  Codec codec() const { return {*type, ratio}; }
  // The last step whose gradients go up in full. `planned`: the steps of the run, 0 where nobody knows.
  std::int64_t last_full_step(std::int64_t planned) const;
  // "onebit", "topk(0.01), bf16 values", "none".
  std::string str() const;
  // What decides how bytes travel.
  auto key() const { return std::tuple(type, type == CodecType::topk ? ratio : 0, values, start_step); }
  friend bool operator==(const Compression& a, const Compression& b) { return a.key() == b.key(); }

  // Not `made_at`.
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    std::int32_t code = type ? static_cast<std::int32_t>(*type) : 0;
    ar& code& ratio& values& min_bytes& start_step;
    if (code == 0) {
      type.reset();
    } else {
      type = static_cast<CodecType>(code);
    }
  }
};

}  // namespace varscope
