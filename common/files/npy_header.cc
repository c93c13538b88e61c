#include "common/files/npy_header.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "common/base/error.h"
#include "common/files/little_endian.h"

namespace varscope {
namespace {

constexpr std::uint64_t kMaxDict = 1 << 20;

// A strict reader of the dict of an npy file: a Python literal with text keys.
class DictReader {
 public:
  explicit DictReader(std::string_view text) : rest_(text) {}

  void read(NpyHeader& header) {
    std::set<std::string> keys;
    expect('{');
    while (!next_is('}')) {
      const std::string key = text();
      expect(':');
      if (!keys.insert(key).second) fail(ErrorKind::data, "has an array header that names \"{}\" twice", key);
      if (key == "descr") {
        descr(header.descr);
      } else if (key == "fortran_order") {
        header.is_fortran = boolean();
      } else if (key == "shape") {
        header.extents = tuple();
      } else {
        fail(ErrorKind::data, "has an array header with the unknown key \"{}\"", key);
      }
      if (!next_is('}')) expect(',');
    }
    expect('}');
    skip();
    if (keys.size() != 3 || !rest_.empty()) malformed();
  }

 private:
  [[noreturn]] static void malformed() { fail(ErrorKind::data, "has a malformed array header"); }
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
  // Of records, a list of fields.
  void descr(std::string& out) {
    if (next_is('['))
      fail(ErrorKind::data, "has an array of records (a structured dtype); save each field as an array");
    out = text();
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
  // Python 2 wrote its long integers with an L behind them.
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> out;
    expect('(');
    while (!next_is(')')) {
      std::int64_t n = -1;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), n);
      if (error != std::errc() || n < 0) malformed();
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      if (rest_.starts_with('L')) rest_.remove_prefix(1);
      out.push_back(n);
      if (!next_is(')')) expect(',');
    }
    expect(')');
    return out;
  }
  std::string_view rest_;
};

}  // namespace

NpyHeader read_npy_header(const RandomBytes& bytes, std::uint64_t begin, std::uint64_t n_bytes,
                          const std::string& what) {
  const std::string start = bytes.range(begin, std::min<std::uint64_t>(n_bytes, 12));
  const bool is_npy = start.size() == 12 && start.starts_with("\x93NUMPY");
  const int major = is_npy ? start[6] : 0;
  if (!is_npy || major < 1 || major > 3) fail(ErrorKind::data, "has {}, which is no array", what);
  const std::uint64_t n_before = major == 1 ? 10 : 12;
  const std::uint64_t n_dict = major == 1 ? get_le<std::uint16_t>(start, 8) : get_le<std::uint32_t>(start, 8);
  if (n_dict > kMaxDict || n_dict > n_bytes - n_before)
    fail(ErrorKind::data, "has {} with an array header of {} bytes, and is {} bytes long", what, n_dict,
         n_bytes);
  NpyHeader header{.n_bytes = n_before + n_dict};
  const std::string dict = bytes.range(begin + n_before, n_dict);
  DictReader(dict).read(header);
  return header;
}

std::string npy_header(std::string_view descr, std::span<const std::int64_t> extents) {
  std::string shape;
  for (const std::int64_t d : extents) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", d);
  if (extents.size() == 1) shape += ",";
  std::string dict = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, shape);
  constexpr std::size_t kBefore = 10, kAlign = 64;
  dict.append((kAlign - (kBefore + dict.size() + 1) % kAlign) % kAlign, ' ');
  dict += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  put_le(header, static_cast<std::uint16_t>(dict.size()));
  return header + dict;
}

}  // namespace varscope
