#include "checkpoint/exchange/npy.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "checkpoint/storage/little_endian.h"
#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::uint64_t kMaxDict = 1 << 20;

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

// A strict reader of the dict of an npy file: a Python literal with text keys.
class DictReader {
 public:
  explicit DictReader(std::string_view text) : rest_(text) {}

  void read(std::string& descr, bool& fortran, std::vector<std::int64_t>& shape) {
    std::set<std::string> keys;
    expect('{');
    while (!next_is('}')) {
      const std::string key = text();
      expect(':');
      if (!keys.insert(key).second)
        fail(ErrorKind::checkpoint, "has an array header that names \"{}\" twice", key);
      if (key == "descr") {
        descr = text();
      } else if (key == "fortran_order") {
        fortran = boolean();
      } else if (key == "shape") {
        shape = tuple();
      } else {
        fail(ErrorKind::checkpoint, "has an array header with the unknown key \"{}\"", key);
      }
      if (!next_is('}')) expect(',');
    }
    expect('}');
    skip();
    if (keys.size() != 3 || !rest_.empty()) malformed();
  }

 private:
  [[noreturn]] static void malformed() { fail(ErrorKind::checkpoint, "has a malformed array header"); }
  void skip() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
  }
  bool next_is(char c) {
    skip();
    return !rest_.empty() && rest_[0] == c;
  }
  void expect(char c) {
    if (!next_is(c)) malformed();
    rest_.remove_prefix(1);
  }
  std::string text() {
    skip();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) malformed();
    const std::size_t end = rest_.find(rest_[0], 1);
    if (end == std::string_view::npos) malformed();
    std::string out(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return out;
  }
  bool boolean() {
    skip();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (!rest_.starts_with(word)) continue;
      rest_.remove_prefix(word.size());
      return value;
    }
    malformed();
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> out;
    expect('(');
    while (!next_is(')')) {
      std::int64_t n = -1;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), n);
      if (error != std::errc() || n < 0) malformed();
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      out.push_back(n);
      if (!next_is(')')) expect(',');
    }
    expect(')');
    return out;
  }
  std::string_view rest_;
};

}  // namespace

std::string npy_header(const NamedTensor& t) {
  std::string shape;
  for (const std::int64_t d : t.shape.dims()) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", d);
  if (t.shape.rank() == 1) shape += ",";
  std::string dict =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", npy_dtype(t.dtype), shape);
  constexpr std::size_t kBefore = 10, kAlign = 64;
  dict.append((kAlign - (kBefore + dict.size() + 1) % kAlign) % kAlign, ' ');
  dict += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  put_le(header, static_cast<std::uint16_t>(dict.size()));
  return header + dict;
}

NamedTensor read_npy(ReadFile& file, const std::string& name, std::uint64_t n_bytes, Widen how,
                     std::uint64_t& begin, StoredType& type) {
  const std::string start = read_range(file, begin, std::min<std::uint64_t>(n_bytes, 12));
  const bool magic = start.size() == 12 && start.starts_with("\x93NUMPY");
  const int major = magic ? start[6] : 0;
  if (!magic || major < 1 || major > 3)
    fail(ErrorKind::checkpoint, "has the member \"{}.npy\", which is no array", name);
  const std::uint64_t n_before = major == 1 ? 10 : 12;
  const std::uint64_t n_dict = major == 1 ? get_le<std::uint16_t>(start, 8) : get_le<std::uint32_t>(start, 8);
  if (n_dict > kMaxDict || n_dict > n_bytes - n_before)
    fail(ErrorKind::checkpoint, "has an array header of {} bytes in \"{}.npy\" of {}", n_dict, name, n_bytes);
  std::string descr;
  bool fortran = false;
  std::vector<std::int64_t> extents;
  const std::string dict = read_range(file, begin + n_before, n_dict);
  DictReader(dict).read(descr, fortran, extents);
  const std::string who = fmt::format("array \"{}\"", name);
  const std::optional<DType> dtype = dtype_of_descr(descr);
  type = dtype ? StoredType{*dtype} : require_widening(foreign_type_of_npy(descr), descr, how, who);
  const std::uint64_t n_data = n_bytes - n_before - n_dict;
  NamedTensor tensor{name, type.dtype, checked_shape(extents, type, n_data, who)};
  if (fortran && tensor.shape.rank() > 1)
    fail(ErrorKind::checkpoint, "{} is stored in Fortran order; save numpy.ascontiguousarray of it", who);
  if (stored_bytes(tensor.shape, type) != n_data)
    fail(ErrorKind::checkpoint, "{} has {} bytes for {} {}", who, n_data, descr, tensor.shape.str());
  begin += n_before + n_dict;
  return tensor;
}

}  // namespace varscope
