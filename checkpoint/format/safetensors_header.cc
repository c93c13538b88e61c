#include "checkpoint/format/safetensors_header.h"

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/files/little_endian.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr std::uint64_t kLengthBytes = 8;

}  // namespace

const char* safetensors_dtype(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "F32";
    case DType::float64:
      return "F64";
    case DType::int32:
      return "I32";
    case DType::int64:
      return "I64";
    case DType::bfloat16:
      return "BF16";
    case DType::uint8:
      return "U8";
  }
  fail(ErrorKind::argument, "dtype {} is not one of ours", static_cast<int>(dtype));
}

std::string safetensors_header(std::span<const NamedTensor> tensors,
                               const std::map<std::string, std::string>& metadata, std::uint64_t alignment) {
  Json header = Json::object();
  header[kSafetensorsMetadata] = metadata;
  std::uint64_t at = 0;
  for (const NamedTensor& t : tensors) {
    Json entry = {{"dtype", t.is_unsigned ? kUnsignedSafetensors : safetensors_dtype(t.dtype)},
                  {"shape", t.shape.dims()},
                  {"data_offsets", {at, at + t.n_bytes()}}};
    if (!header.emplace(t.name, std::move(entry)).second)
      fail(ErrorKind::argument, "two tensors are named \"{}\"", t.name);
    at += t.n_bytes();
  }
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::uint64_t end = (kLengthBytes + text.size() + alignment - 1) / alignment * alignment;
  text.append(end - kLengthBytes - text.size(), ' ');
  std::string length;
  put_le<std::uint64_t>(length, text.size());
  return length + text;
}

std::string read_safetensors_header(ReadFile& file) {
  const std::uint64_t size = file.size();
  if (size < kLengthBytes) fail(ErrorKind::checkpoint, "is cut off: it has {} bytes", size);
  const auto n = get_le<std::uint64_t>(read_range(file, 0, kLengthBytes), 0);
  if (n > kMaxHeader || n > size - kLengthBytes) {
    fail(ErrorKind::checkpoint, "is no safetensors file: its header would have {} bytes, the file has {}", n,
         size);
  }
  return read_range(file, kLengthBytes, n);
}

}  // namespace varscope
