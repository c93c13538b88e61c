#include "worker/data/gzip_file.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kBlock = 256 << 10;
constexpr std::string_view kGzipMagic("\x1f\x8b", 2);

// What other programs' files begin with; such bytes would else be taken for words.
struct Compression {
  std::string_view magic;
  const char* name;
};
using namespace std::string_view_literals;
constexpr std::array kOthers = {
    Compression{"\xfd\x37zXZ\0"sv, "xz"},      Compression{"BZh"sv, "bzip2"},
    Compression{"\x28\xb5\x2f\xfd"sv, "zstd"}, Compression{"\x04\x22\x4d\x18"sv, "lz4"},
    Compression{"PK\x03\x04"sv, "zip"},        Compression{"\x1f\x9d"sv, "compress"}};
constexpr std::string_view kBzip2Block("\x31\x41\x59\x26\x53\x59", 6);  // behind "BZh9": text may begin so

bool is_compressed_by(const Compression& other, std::string_view start) {
  if (!start.starts_with(other.magic)) return false;
  return other.magic != "BZh" ||
         start.substr(std::min<std::size_t>(4, start.size())).starts_with(kBzip2Block);
}

}  // namespace

void GzipReader::Close::operator()(std::FILE* f) const { std::fclose(f); }
void GzipReader::End::operator()(z_stream_s* z) const {
  inflateEnd(z);
  delete z;
}

void check_data_file(const std::filesystem::path& file) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(file, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    fail(ErrorKind::data,
         "{}: no such file. Data sets are searched in the folder VARSCOPE_DATA names (default data/); "
         "launch/get_data.sh fetches them",
         file.string());
  }
  if (std::filesystem::is_directory(status))
    fail(ErrorKind::data, "{}: is a folder, not a data file", file.string());
}

GzipReader::GzipReader(const std::filesystem::path& file) : name_(file.string()), block_(kBlock) {
  check_data_file(file);
  file_.reset(std::fopen(name_.c_str(), "rbe"));
  if (!file_) fail(ErrorKind::data, "{}: cannot be opened: {}", name_, std::strerror(errno));
  std::setvbuf(file_.get(), nullptr, _IONBF, 0);
  look_at_start();
}

GzipReader::~GzipReader() = default;

bool GzipReader::fill() {
  const std::size_t n = std::fread(block_.data(), 1, block_.size(), file_.get());
  if (n < block_.size() && std::ferror(file_.get()) != 0)
    fail(ErrorKind::data, "{}: cannot be read: {}", name_, std::strerror(errno));
  rest_ = std::span(block_).first(n);
  n_read_ += n;
  return n > 0;
}

void GzipReader::look_at_start() {
  fill();
  const std::string_view start(reinterpret_cast<const char*>(rest_.data()), rest_.size());
  const bool is_named_gz = name_.ends_with(".gz");
  if (!start.empty() && kGzipMagic.starts_with(start.substr(0, 2)) && (start.size() > 1 || is_named_gz)) {
    stream_.reset(new z_stream_s{});
    if (inflateInit2(stream_.get(), 15 + 16) != Z_OK)  // 16: gzip's header and checksum, nothing else
      fail(ErrorKind::data, "{}: no memory to unpack it", name_);
    return;
  }
  for (const Compression& other : kOthers) {
    if (!is_compressed_by(other, start)) continue;
    fail(ErrorKind::data, "{}: is compressed by {}; unpack it first, or compress it with gzip", name_,
         other.name);
  }
  if (!is_named_gz) return;
  if (start.empty()) fail_gzip("truncated gzip data", "it is empty");
  fail_gzip("damaged gzip data", "it does not begin as gzip data do",
            "if it is not compressed, take \".gz\" off its name");
}

void GzipReader::fail_gzip(const char* what, const char* why, const char* advice) const {
  const std::string member = member_ > 1 ? fmt::format(" in member {}", member_) : "";
  fail(ErrorKind::data, "{}: {} at byte {}{}: {}; {}", name_, what, n_read_ - rest_.size(), member, why,
       advice);
}

// Moves to the next member's header, over the zeros before it; false at the end of the file.
bool GzipReader::next_member() {
  while (true) {
    const auto at = std::ranges::find_if(rest_, [](std::uint8_t b) { return b != 0; });
    rest_ = rest_.subspan(static_cast<std::size_t>(at - rest_.begin()));
    if (!rest_.empty()) break;
    if (!fill()) return false;
  }
  ++member_;
  in_member_ = true;
  if (inflateReset(stream_.get()) != Z_OK) fail_gzip("damaged gzip data", "the decoder cannot go on");
  return true;
}

std::size_t GzipReader::copy(std::span<std::uint8_t> out) {
  if (rest_.empty() && !fill()) return 0;
  const std::size_t n = std::min(out.size(), rest_.size());
  std::copy_n(rest_.begin(), n, out.begin());
  rest_ = rest_.subspan(n);
  return n;
}

// 0 only at the end of the last member.
std::size_t GzipReader::inflate(std::span<std::uint8_t> out) {
  while (true) {
    if (!in_member_ && !next_member()) return 0;
    if (rest_.empty() && !fill()) fail_gzip("truncated gzip data", "the file ends inside it");
    z_stream_s& z = *stream_;
    z.next_in =
        const_cast<Bytef*>(rest_.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast): zlib's type
    z.avail_in = static_cast<uInt>(rest_.size());
    z.next_out = out.data();
    z.avail_out = static_cast<uInt>(std::min<std::size_t>(out.size(), 1 << 30));
    const uInt room = z.avail_out;
    const int code = ::inflate(&z, Z_NO_FLUSH);
    rest_ = rest_.last(z.avail_in);
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
      fail_gzip("damaged gzip data", z.msg != nullptr ? z.msg : zError(code));
    in_member_ = code != Z_STREAM_END;
    if (z.avail_out < room) return room - z.avail_out;
  }
}

std::size_t GzipReader::read(std::span<std::uint8_t> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const auto left = out.subspan(done);
    const std::size_t n = stream_ ? inflate(left) : copy(left);
    if (n == 0) break;
    done += n;
  }
  return done;
}

std::string read_gzip_file(const std::filesystem::path& file, std::size_t max_bytes) {
  GzipReader reader(file);
  std::string text;
  constexpr std::size_t kPiece = std::size_t{4} << 20;
  while (true) {
    const std::size_t at = text.size();
    text.resize(at + kPiece);
    const std::size_t n = reader.read(std::span(reinterpret_cast<std::uint8_t*>(text.data()) + at, kPiece));
    text.resize(at + n);
    if (text.size() > max_bytes)
      fail(ErrorKind::data, "{}: has more than {} bytes", reader.name(), max_bytes);
    if (n < kPiece) return text;
  }
}

}  // namespace varscope
