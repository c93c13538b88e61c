#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace varscope {

// Types of elements as the Open Inference Protocol v2 [1] has them.
//
// [1] KServe: Open Inference Protocol, V2, required API and the extension for binary tensor data
enum class OipType : std::uint8_t {
  boolean,
  uint8,
  uint16,
  uint32,
  uint64,
  int8,
  int16,
  int32,
  int64,
  fp16,
  fp32,
  fp64,
  bytes
};
// "FP32"; nothing for a name that is none.
std::string_view to_string(OipType type);
std::optional<OipType> oip_type_from(std::string_view name);
// Of an element; 0 for bytes, whose elements are texts of any length.
std::size_t n_bytes_of(OipType type);

// "[?, 28, 28] FP32": -1 is "?".
std::string tensor_text(std::span<const std::int64_t> shape, OipType type);

// One input of a request. The first extent is the rows', but for the ids and weights of a bag, whose extent
// is that of all rows' ids together.
struct InputTensor {
  std::string name;
  OipType type = OipType::fp32;
  std::vector<std::int64_t> shape;
  // Row-major, little-endian, at any alignment; borrowed from InferRequest::memory. Empty for bytes.
  std::span<const std::byte> data = {};
  std::vector<std::string_view> texts = {};  // of bytes: an element each; borrowed likewise
  // Of elements that a JSON null stood for, by their position, ascending: cells without a value.
  std::vector<std::int64_t> missing = {};
};

// One output of an answer.
struct OutputTensor {
  std::string name;
  OipType type = OipType::fp32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;     // row-major, little-endian
  std::vector<std::string> texts;  // of bytes
};

// What there is to know of an input or output before anything is asked.
struct TensorInfo {
  std::string name;
  OipType type = OipType::fp32;
  std::vector<std::int64_t> shape;  // -1: any; the first is the rows'
  std::vector<OipType> also = {};   // what is converted, too: UINT8 of images, INT32 where ids are INT64
  bool may_be_missing = false;      // a request need not have it: the label, id weights, a nullable column
  std::string about = {};           // for people: "pixels, divided by 255", "words; 1,203 are known"
  std::vector<std::string> words = {};  // of classes: what they are called, by number
};

// The named inputs and outputs of a model.
struct Signature {
  std::vector<TensorInfo> inputs;
  // The first is what a request gets that asks for none: probabilities of classes, values of numbers.
  std::vector<TensorInfo> outputs;
  const TensorInfo* input(std::string_view name) const;
  const TensorInfo* output(std::string_view name) const;
};

}  // namespace varscope
