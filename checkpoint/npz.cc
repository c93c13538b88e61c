#include "checkpoint/npz.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "common/error.h"

namespace varscope {
namespace {

constexpr std::uint32_t kLocalMagic = 0x04034b50, kCentralMagic = 0x02014b50, kEndMagic = 0x06054b50,
                        kEnd64Magic = 0x06064b50, kLocator64Magic = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                      kLocatorBytes = 20;
constexpr std::uint32_t kIn64 = 0xffffffff;  // the value is in the zip64 field
constexpr std::uint16_t kZip64Field = 1, kZip64Version = 45, kUtf8 = 1 << 11, kEncrypted = 1;
constexpr std::uint16_t kEpoch = 0x21;  // 1980-01-01: the same checkpoint makes the same file
constexpr std::uint64_t kMaxDirectory = 256 << 20, kMaxDict = 1 << 20;

[[noreturn]] void bad(const std::string& message) { throw Error(ErrorKind::checkpoint, message); }

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

std::uint32_t add_crc(std::uint32_t crc, const void* data, std::size_t n) {
  return static_cast<std::uint32_t>(::crc32_z(crc, static_cast<const Bytef*>(data), n));
}

// --- writing

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

struct Member {
  std::string name;
  std::uint32_t crc = 0;
  std::uint64_t size = 0;    // stored: compressed and uncompressed
  std::uint64_t offset = 0;  // of the local header
};

// What local and central headers have in common: from "version needed" to the length of the name.
std::string common_fields(const Member& m) {
  std::string out;
  put_le(out, kZip64Version);
  put_le(out, kUtf8);
  put_le(out, std::uint16_t{0});  // stored
  put_le(out, std::uint16_t{0});  // time
  put_le(out, kEpoch);
  put_le(out, m.crc);
  put_le(out, kIn64);
  put_le(out, kIn64);
  put_le(out, static_cast<std::uint16_t>(m.name.size()));
  return out;
}

std::string local_header(const Member& m) {
  std::string out;
  put_le(out, kLocalMagic);
  out += common_fields(m);
  put_le(out, std::uint16_t{20});  // of the zip64 field
  out += m.name;
  put_le(out, kZip64Field);
  put_le(out, std::uint16_t{16});
  put_le(out, m.size);
  put_le(out, m.size);
  return out;
}

std::string central_header(const Member& m) {
  std::string out;
  put_le(out, kCentralMagic);
  put_le(out, kZip64Version);
  out += common_fields(m);
  put_le(out, std::uint16_t{28});  // of the zip64 field
  put_le(out, std::uint16_t{0});   // comment
  put_le(out, std::uint16_t{0});   // disk
  put_le(out, std::uint16_t{0});   // internal attributes
  put_le(out, std::uint32_t{0});   // external attributes
  put_le(out, kIn64);
  out += m.name;
  put_le(out, kZip64Field);
  put_le(out, std::uint16_t{24});
  put_le(out, m.size);
  put_le(out, m.size);
  put_le(out, m.offset);
  return out;
}

std::string end_records(std::uint64_t n, std::uint64_t directory, std::uint64_t n_bytes) {
  std::string out;
  put_le(out, kEnd64Magic);
  put_le(out, std::uint64_t{kEnd64Bytes - 12});
  put_le(out, kZip64Version);
  put_le(out, kZip64Version);
  put_le(out, std::uint64_t{0});  // disks
  put_le(out, n);
  put_le(out, n);
  put_le(out, n_bytes);
  put_le(out, directory);
  put_le(out, kLocator64Magic);
  put_le(out, std::uint32_t{0});
  put_le(out, directory + n_bytes);
  put_le(out, std::uint32_t{1});
  put_le(out, kEndMagic);
  put_le(out, std::uint32_t{0});
  put_le(out, std::uint16_t{0xffff});
  put_le(out, std::uint16_t{0xffff});
  put_le(out, kIn64);
  put_le(out, kIn64);
  put_le(out, std::uint16_t{0});
  return out;
}

// --- reading

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
      if (!keys.insert(key).second) bad("has an array header that names \"" + key + "\" twice");
      if (key == "descr") {
        descr = text();
      } else if (key == "fortran_order") {
        fortran = boolean();
      } else if (key == "shape") {
        shape = tuple();
      } else {
        bad("has an array header with the unknown key \"" + key + "\"");
      }
      if (!next_is('}')) expect(',');
    }
    expect('}');
    skip();
    if (keys.size() != 3 || !rest_.empty()) malformed();
  }

 private:
  [[noreturn]] static void malformed() { bad("has a malformed array header"); }
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

struct Directory {
  std::uint64_t offset = 0, n_bytes = 0, n_members = 0;
};

Directory find_directory(ReadFile& file) {
  const std::uint64_t size = file.size();
  if (size < kEndBytes) bad(fmt::format("is no .npz file: it has {} bytes", size));
  const std::uint64_t n_tail = std::min<std::uint64_t>(size, kEndBytes + 0xffff + kLocatorBytes);
  const std::string tail = read_text(file, size - n_tail, n_tail);
  std::size_t at = tail.size() - kEndBytes;
  while (get_le<std::uint32_t>(tail, at) != kEndMagic) {
    if (at == 0) bad("is no .npz file, or is cut off: the end of a zip archive was not found");
    --at;
  }
  Directory d{get_le<std::uint32_t>(tail, at + 16), get_le<std::uint32_t>(tail, at + 12),
              get_le<std::uint16_t>(tail, at + 10)};
  std::uint64_t end = size - n_tail + at;
  if (at >= kLocatorBytes && get_le<std::uint32_t>(tail, at - kLocatorBytes) == kLocator64Magic) {
    const auto where = get_le<std::uint64_t>(tail, at - kLocatorBytes + 8);
    if (where > size || size - where < kEnd64Bytes) bad("has a zip64 end that lies outside the file");
    const std::string end64 = read_text(file, where, kEnd64Bytes);
    if (get_le<std::uint32_t>(end64, 0) != kEnd64Magic) bad("has no zip64 end where it should be");
    d = {get_le<std::uint64_t>(end64, 48), get_le<std::uint64_t>(end64, 40),
         get_le<std::uint64_t>(end64, 32)};
    end = where;
  }
  if (d.n_bytes > kMaxDirectory || d.offset > end || d.n_bytes > end - d.offset ||
      d.n_members > d.n_bytes / kCentralBytes)
    bad(fmt::format("has a directory of {} members in {} bytes from byte {}, outside its {} bytes",
                    d.n_members, d.n_bytes, d.offset, size));
  return d;
}

// Replaces the values that stand in the zip64 field, which has them in this order.
void apply_zip64(std::string_view extra, std::initializer_list<std::uint64_t*> values) {
  while (extra.size() >= 4) {
    const auto id = get_le<std::uint16_t>(extra, 0);
    const std::size_t n = get_le<std::uint16_t>(extra, 2);
    if (n > extra.size() - 4) bad("has a member with a malformed extra field");
    std::string_view field = extra.substr(4, n);
    extra.remove_prefix(4 + n);
    if (id != kZip64Field) continue;
    for (std::uint64_t* value : values) {
      if (*value != kIn64) continue;
      if (field.size() < 8) bad("has a member with a malformed zip64 field");
      *value = get_le<std::uint64_t>(field, 0);
      field.remove_prefix(8);
    }
    return;
  }
}

std::vector<Member> read_directory(ReadFile& file) {
  const Directory d = find_directory(file);
  const std::string bytes = read_text(file, d.offset, d.n_bytes);
  std::string_view rest = bytes;
  std::vector<Member> members;
  for (std::uint64_t i = 0; i < d.n_members; ++i) {
    if (rest.size() < kCentralBytes || get_le<std::uint32_t>(rest, 0) != kCentralMagic)
      bad("has a malformed directory");
    const std::size_t n_name = get_le<std::uint16_t>(rest, 28), n_extra = get_le<std::uint16_t>(rest, 30),
                      n_comment = get_le<std::uint16_t>(rest, 32);
    if (n_name + n_extra + n_comment > rest.size() - kCentralBytes) bad("has a malformed directory");
    Member m{std::string(rest.substr(kCentralBytes, n_name)), get_le<std::uint32_t>(rest, 16),
             get_le<std::uint32_t>(rest, 24), get_le<std::uint32_t>(rest, 42)};
    std::uint64_t packed = get_le<std::uint32_t>(rest, 20);
    apply_zip64(rest.substr(kCentralBytes + n_name, n_extra), {&m.size, &packed, &m.offset});
    if (get_le<std::uint16_t>(rest, 10) != 0 || packed != m.size)
      bad(fmt::format("has the compressed member \"{}\"; save it with numpy.savez", m.name));
    if ((get_le<std::uint16_t>(rest, 8) & kEncrypted) != 0)
      bad(fmt::format("has the encrypted member \"{}\"", m.name));
    rest.remove_prefix(kCentralBytes + n_name + n_extra + n_comment);
    members.push_back(std::move(m));
  }
  return members;
}

// Where the member's bytes begin, checked against the size of the file.
std::uint64_t data_of(ReadFile& file, const Member& m) {
  const std::uint64_t size = file.size();
  if (m.offset > size || size - m.offset < kLocalBytes)
    bad(fmt::format("has the member \"{}\" outside the file", m.name));
  const std::string local = read_text(file, m.offset, kLocalBytes);
  if (get_le<std::uint32_t>(local, 0) != kLocalMagic)
    bad(fmt::format("has no member \"{}\" where its directory says", m.name));
  const std::uint64_t begin =
      m.offset + kLocalBytes + get_le<std::uint16_t>(local, 26) + get_le<std::uint16_t>(local, 28);
  if (begin > size || m.size > size - begin)
    bad(fmt::format("has the member \"{}\" of {} bytes outside the file", m.name, m.size));
  return begin;
}

void check_crc(ReadFile& file, std::uint64_t begin, const Member& m) {
  std::vector<std::byte> memory;
  std::uint32_t crc = 0;
  for (std::uint64_t at = 0; at < m.size; at += memory.size()) {
    memory.resize(static_cast<std::size_t>(std::min<std::uint64_t>(m.size - at, 1 << 20)));
    file.read_at(begin + at, memory);
    crc = add_crc(crc, memory.data(), memory.size());
  }
  if (crc != m.crc)
    bad(fmt::format("is damaged: \"{}\" has crc32 {:08x} instead of {:08x}", m.name, crc, m.crc));
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

// The array of a member; `begin` moves behind its header.
NamedTensor read_npy(ReadFile& file, const Member& m, std::uint64_t& begin) {
  if (!m.name.ends_with(".npy")) bad(fmt::format("has the member \"{}\", which is no array", m.name));
  const std::string start = read_text(file, begin, std::min<std::uint64_t>(m.size, 12));
  const bool magic = start.size() == 12 && start.starts_with("\x93NUMPY");
  const int major = magic ? start[6] : 0;
  if (!magic || major < 1 || major > 3) bad(fmt::format("has the member \"{}\", which is no array", m.name));
  const std::uint64_t n_before = major == 1 ? 10 : 12;
  const std::uint64_t n_dict = major == 1 ? get_le<std::uint16_t>(start, 8) : get_le<std::uint32_t>(start, 8);
  if (n_dict > kMaxDict || n_dict > m.size - n_before)
    bad(fmt::format("has an array header of {} bytes in \"{}\" of {}", n_dict, m.name, m.size));
  std::string descr;
  bool fortran = false;
  std::vector<std::int64_t> extents;
  const std::string dict = read_text(file, begin + n_before, n_dict);
  DictReader(dict).read(descr, fortran, extents);
  const std::string name = m.name.substr(0, m.name.size() - 4), who = fmt::format("array \"{}\"", name);
  const std::optional<DType> dtype = dtype_of_descr(descr);
  if (!dtype) bad(fmt::format("{} is of dtype {}, which varscope does not have", who, descr));
  const std::uint64_t n_data = m.size - n_before - n_dict;
  NamedTensor tensor{name, *dtype, checked_shape(extents, *dtype, n_data, who)};
  if (fortran && tensor.shape.rank() > 1)
    bad(who + " is stored in Fortran order; save numpy.ascontiguousarray of it");
  if (tensor.n_bytes() != n_data)
    bad(fmt::format("{} has {} bytes for {} {}", who, n_data, descr, tensor.shape.str()));
  begin += n_before + n_dict;
  return tensor;
}

std::unique_ptr<TensorSource> parse(std::unique_ptr<ReadFile> file) {
  std::vector<NamedTensor> tensors;
  std::vector<FileSource::Place> places;
  std::set<std::string> names;
  std::uint64_t n_read = 0;  // no more than there is, however often the directory names it
  for (const Member& m : read_directory(*file)) {
    std::uint64_t begin = data_of(*file, m);
    n_read += m.size;
    if (n_read > file->size()) bad("is damaged: its members overlap");
    check_crc(*file, begin, m);
    tensors.push_back(read_npy(*file, m, begin));
    places.push_back({0, begin});
    if (!names.insert(m.name).second) bad(fmt::format("has two members \"{}\"", m.name));
  }
  std::vector<std::unique_ptr<ReadFile>> files;
  files.push_back(std::move(file));
  return std::make_unique<FileSource>(std::move(files), std::move(tensors), std::move(places));
}

}  // namespace

void write_npz(Fs& fs, const std::string& path, TensorSource& source) {
  AtomicFile file(fs, path);
  std::string directory;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const NamedTensor& t = source.tensors()[i];
    const std::string header = npy_header(t);
    Member m{t.name + ".npy", add_crc(0, header.data(), header.size()), header.size() + t.n_bytes(),
             file.size()};
    if (m.name.size() > 0xffff)
      fail(ErrorKind::checkpoint, "{}: a zip archive has no names of {} bytes", path, m.name.size());
    stream_tensor(source, i, [&](std::span<const std::byte> bytes) {
      m.crc = add_crc(m.crc, bytes.data(), bytes.size());
    });
    file.write(local_header(m) + header);
    stream_tensor(source, i, [&](std::span<const std::byte> bytes) { file.write(bytes); });
    directory += central_header(m);
  }
  const std::uint64_t at = file.size();
  file.write(directory + end_records(source.tensors().size(), at, directory.size()));
  file.finish();
}

std::unique_ptr<TensorSource> open_npz(Fs& fs, const std::string& path) {
  return open_source(fs, path, parse);
}

}  // namespace varscope
