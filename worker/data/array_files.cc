#include "worker/data/array_files.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <utility>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/config/utf8.h"
#include "common/files/npy_header.h"
#include "worker/data/csv_reader.h"
#include "worker/data/gzip_file.h"

namespace varscope {
namespace {

constexpr std::string_view kSuffix = ".npy";
constexpr std::size_t kMostUnpacked = std::size_t{1} << 36;

const char* what_else(char kind) {
  switch (kind) {
    case 'U':
    case 'S':
    case 'a':
      return "texts";
    case 'O':
      return "Python objects";
    case 'c':
      return "complex numbers";
    case 'M':
    case 'm':
      return "dates or times";
    default:
      return "no numbers that varscope reads";
  }
}

// Of NumPy's description of a type, such as "<f4".
NumberArray::Layout layout_of(const NpyHeader& header) {
  struct Row {
    std::string_view descr;
    NumberType type;
  };
  constexpr std::array kRows = {
      Row{"b1", NumberType::boolean}, Row{"i1", NumberType::int8},    Row{"i2", NumberType::int16},
      Row{"i4", NumberType::int32},   Row{"i8", NumberType::int64},   Row{"u1", NumberType::uint8},
      Row{"u2", NumberType::uint16},  Row{"u4", NumberType::uint32},  Row{"u8", NumberType::uint64},
      Row{"f2", NumberType::float16}, Row{"f4", NumberType::float32}, Row{"f8", NumberType::float64}};
  const std::string_view descr = header.descr;
  const bool has_order = !descr.empty() && std::string_view("<>|=").find(descr[0]) != std::string_view::npos;
  const std::string_view type = has_order ? descr.substr(1) : descr;
  const auto* found = std::ranges::find(kRows, type, &Row::descr);
  if (found == kRows.end()) {
    fail(ErrorKind::data,
         "its elements are of dtype {}: {}; save an array of integers, bool, float16, float32 or float64",
         shown_cell(header.descr), what_else(type.empty() ? ' ' : type[0]));
  }
  return {found->type, descr[0] == '>' && size_of(found->type) > 1, header.is_fortran};
}

enum class Lies : std::uint8_t { mapped, unpacked };

NumberArray array_in(std::string name, std::shared_ptr<const void> owner, Lies lies,
                     std::span<const std::byte> npy, const std::string& what) {
  const NpyHeader header = read_npy_header(bytes_of(npy), 0, npy.size(), what);
  NumberArray::Layout layout = layout_of(header);
  layout.is_unpacked = lies == Lies::unpacked;
  return {std::move(name), std::move(owner), npy.subspan(static_cast<std::size_t>(header.n_bytes)), layout,
          header.extents};
}

// The bytes of a deflated member. Memory grows as data arrive: a size that lies costs none.
std::vector<std::byte> unpacked(std::span<const std::byte> packed, const ZipMember& m) {
  constexpr std::size_t kStep = 4 << 20;
  if (m.size > kMostUnpacked)
    fail(ErrorKind::data, "has the member \"{}\", which claims {} bytes", m.name, m.size);
  z_stream z{};
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) fail(ErrorKind::data, "no memory to unpack it");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&z, inflateEnd);
  std::vector<std::byte> out;
  std::size_t n_in = 0, n_out = 0;
  int code = Z_OK;
  while (code == Z_OK) {
    if (n_out == out.size())
      out.resize(std::min<std::size_t>(out.size() + kStep, static_cast<std::size_t>(m.size) + 1));
    const std::size_t in = std::min<std::size_t>(packed.size() - n_in, 1 << 30);
    // zlib's type, which it does not write to. NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast)
    z.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(packed.data() + n_in));
    z.avail_in = static_cast<uInt>(in);
    z.next_out = reinterpret_cast<Bytef*>(out.data() + n_out);
    const std::size_t room = std::min<std::size_t>(out.size() - n_out, 1 << 30);
    z.avail_out = static_cast<uInt>(room);
    code = ::inflate(&z, Z_NO_FLUSH);
    n_in += in - z.avail_in;
    n_out += room - z.avail_out;
    if (n_out > m.size) break;
  }
  if (code != Z_STREAM_END || n_out != m.size || n_in != packed.size()) {
    fail(ErrorKind::data, "is damaged: the member \"{}\" unpacks to {} bytes of {}{}", m.name, n_out, m.size,
         code == Z_DATA_ERROR && z.msg != nullptr ? fmt::format(" ({})", z.msg) : "");
  }
  out.resize(n_out);
  const std::uint32_t crc = add_zip_crc(0, out.data(), out.size());
  if (crc != m.crc)
    fail(ErrorKind::data, "is damaged: \"{}\" has crc32 {:08x} instead of {:08x}", m.name, crc, m.crc);
  return out;
}

}  // namespace

NumberArray open_npy(const std::filesystem::path& file) {
  const auto mapped = std::make_shared<const MappedFile>(file);
  const std::string what = fmt::format("the array {}", file.filename().string());
  return with_name(mapped->name(), [&] {
    const std::span<const std::byte> bytes = mapped->bytes();
    const std::string_view start(reinterpret_cast<const char*>(bytes.data()),
                                 std::min<std::size_t>(bytes.size(), 6));
    if (start.starts_with("\x1f\x8b")) {
      const auto text = std::make_shared<const std::string>(read_gzip_file(file, kMostUnpacked));
      return array_in(mapped->name(), text, Lies::unpacked, std::as_bytes(std::span(*text)), what);
    }
    if (start.starts_with("PK"))
      fail(ErrorKind::data, "is a zip archive, as .npz files are: say type: npz and which of its arrays");
    if (start != "\x93NUMPY") {
      fail(ErrorKind::data, "is no .npy file: {}; numpy.save writes one",
           bytes.empty() ? "it is empty" : "it does not begin as one");
    }
    return array_in(mapped->name(), mapped, Lies::mapped, bytes, what);
  });
}

NpzFile::NpzFile(const std::filesystem::path& file) : file_(std::make_shared<const MappedFile>(file)) {
  with_name(name(), [&] {
    for (ZipMember& m : read_zip_directory(bytes_of(file_->bytes()))) {
      if (!m.name.ends_with(kSuffix)) continue;  // not numpy's
      std::string array = m.name.substr(0, m.name.size() - kSuffix.size());
      if (!is_utf8(array)) fail(ErrorKind::data, "has an array {} whose name is no UTF-8", shown_cell(array));
      if (has(array)) fail(ErrorKind::data, "has two arrays \"{}\"", array);
      names_.push_back(std::move(array));
      members_.push_back(std::move(m));
    }
    if (names_.empty()) fail(ErrorKind::data, "has no arrays");
  });
}

bool NpzFile::has(const std::string& array) const { return std::ranges::find(names_, array) != names_.end(); }

NumberArray NpzFile::array(const std::string& array) const {
  const auto found = std::ranges::find(names_, array);
  if (found == names_.end()) {
    std::vector<std::string> shown(names_.begin(),
                                   names_.begin() + std::min<std::ptrdiff_t>(20, std::ssize(names_)));
    if (shown.size() < names_.size()) shown.emplace_back("...");
    const std::string hint = did_you_mean(array, names_);
    fail(ErrorKind::data, "{}: has no array \"{}\"{}{}", name(), array, hint,
         hint.empty() ? "; it has " + comma_list(shown) : "");
  }
  const ZipMember& m = members_[static_cast<std::size_t>(found - names_.begin())];
  const std::string full_name = fmt::format("{}: array \"{}\"", name(), array);
  return with_name(name(), [&] {
    if (m.method != 0 && m.method != 8) {
      fail(ErrorKind::data, "has the member \"{}\" in compression method {}; save it with numpy.savez",
           m.name, m.method);
    }
    const RandomBytes all = bytes_of(file_->bytes());
    const std::uint64_t begin = zip_data_of(all, m);
    const auto packed =
        file_->bytes().subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(m.packed));
    const std::string what = fmt::format("the member \"{}\"", m.name);
    return with_name(full_name, [&] {
      if (m.is_compressed()) {
        const auto memory = std::make_shared<const std::vector<std::byte>>(unpacked(packed, m));
        return array_in(full_name, memory, Lies::unpacked, *memory, what);
      }
      check_zip_crc(all, begin, m);
      return array_in(full_name, file_, Lies::mapped, packed, what);
    });
  });
}

}  // namespace varscope
