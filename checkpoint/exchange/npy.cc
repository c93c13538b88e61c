#include "checkpoint/exchange/npy.h"

#include <optional>

#include "common/base/error.h"
#include "common/files/npy_header.h"

namespace varscope {
namespace {

constexpr const char* kUnsigned = "<u8";  // NamedTensor::is_unsigned

const char* npy_dtype(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "<f4";
    case DType::float64:
      return "<f8";
    case DType::int32:
      return "<i4";
    case DType::int64:
      return "<i8";
    case DType::uint8:
      return "|u1";
    case DType::bfloat16:
      return "<V2";
  }
  fail(ErrorKind::argument, "dtype {} is not one of ours", static_cast<int>(dtype));
}

std::optional<DType> dtype_of_descr(const std::string& descr) {
  for (const DType d :
       {DType::float32, DType::float64, DType::int32, DType::int64, DType::bfloat16, DType::uint8}) {
    if (descr == npy_dtype(d)) return d;
  }
  if (descr == "|V2") return DType::bfloat16;  // as numpy itself spells two opaque bytes
  if (descr == "<u1") return DType::uint8;
  return std::nullopt;
}

}  // namespace

std::string npy_header(const NamedTensor& t) {
  return npy_header(t.is_unsigned ? kUnsigned : npy_dtype(t.dtype), t.shape.dims());
}

NamedTensor read_npy(const RandomBytes& bytes, const std::string& name, std::uint64_t n_bytes, Widen how,
                     std::uint64_t& begin, StoredType& type) {
  const NpyHeader header = read_npy_header(bytes, begin, n_bytes, fmt::format("the member \"{}.npy\"", name));
  const std::string who = fmt::format("array \"{}\"", name);
  const bool is_unsigned = header.descr == kUnsigned && may_be_ids(name);
  const std::optional<DType> dtype = is_unsigned ? DType::int64 : dtype_of_descr(header.descr);
  type = dtype ? StoredType{*dtype}
               : require_widening(foreign_type_of_npy(header.descr), header.descr, how, who);
  const std::uint64_t n_data = n_bytes - header.n_bytes;
  NamedTensor tensor{name, type.dtype, checked_shape(header.extents, type, n_data, who), is_unsigned};
  if (header.is_fortran && tensor.shape.rank() > 1)
    fail(ErrorKind::checkpoint, "{} is stored in Fortran order; save numpy.ascontiguousarray of it", who);
  if (stored_bytes(tensor.shape, type) != n_data)
    fail(ErrorKind::checkpoint, "{} has {} bytes for {} {}", who, n_data, header.descr, tensor.shape.str());
  begin += header.n_bytes;
  return tensor;
}

}  // namespace varscope
