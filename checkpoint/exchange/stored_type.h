#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/tensor.h"

namespace varscope {

// A type of elements that files of other programs have and varscope does not, though one of its own holds
// every value of it.
struct ForeignType {
  std::string_view name;         // "float16"
  std::size_t size;              // bytes of an element in the file
  DType wider;                   // what it becomes
  int tf;                        // TensorFlow's number
  std::string_view npy;          // NumPy's descr, little-endian
  std::string_view safetensors;  // that format's name
};
// nullptr when there is none.
const ForeignType* foreign_type_of_tf(int number);
const ForeignType* foreign_type_of_npy(std::string_view descr);
const ForeignType* foreign_type_of_safetensors(std::string_view name);

// float16 to float32; int8, int16 and uint16 to int32; uint32 to int64; bool to uint8 (0 or 1). REQUIRES:
// `to` has room for exactly the elements of `from`.
void widen(const ForeignType& type, std::span<const std::byte> from, std::span<std::byte> to);

// What is to be done with tensors of such types.
enum class Widen : std::uint8_t { no, yes };

// What of a file was not read as it stands.
struct ReadNotes {
  std::vector<std::string> skipped;  // names of texts
  std::vector<std::string> widened;  // "float16 as float32: w, b"; one line for each type
};

// How the elements of one tensor lie in a file.
struct StoredType {
  DType dtype = DType::float32;          // what they are read as
  const ForeignType* foreign = nullptr;  // what they are, when that is another one
  std::size_t size() const { return foreign != nullptr ? foreign->size : size_of(dtype); }
  std::string name() const;
};

// The type of a tensor whose dtype is none of ours: `foreign` (may be null), which the file calls `name`.
// Throws Error(checkpoint) that begins with `what` when it is null or not to be widened.
StoredType require_widening(const ForeignType* foreign, std::string_view name, Widen how,
                            const std::string& what);

// Notes that the tensor was widened; nothing where it was not.
void note_widening(ReadNotes& notes, const StoredType& type, const std::string& tensor);

}  // namespace varscope
