#include "worker/data/gzip_file.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/error.h"

namespace varscope {

void GzipReader::Close::operator()(gzFile_s* f) const { gzclose(f); }

GzipReader::GzipReader(const std::filesystem::path& file) : name_(file.string()) {
  if (!std::filesystem::exists(file)) {
    fail(ErrorKind::data,
         "{}: no such file. Data sets are searched in the folder VARSCOPE_DATA names (default data/); "
         "launch/get_data.sh fetches them",
         name_);
  }
  if (std::filesystem::is_directory(file)) fail(ErrorKind::data, "{}: is a folder, not a data file", name_);
  file_.reset(gzopen(name_.c_str(), "rb"));
  if (!file_) fail(ErrorKind::data, "{}: cannot be opened: {}", name_, std::strerror(errno));
  gzbuffer(file_.get(), 256 << 10);
}

std::size_t GzipReader::read(std::span<std::uint8_t> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const auto want = static_cast<unsigned>(std::min<std::size_t>(out.size() - done, 1 << 30));
    const int n = gzread(file_.get(), out.data() + done, want);
    int code = Z_OK;
    const char* text = gzerror(file_.get(), &code);
    if (n < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      const bool cut = code == Z_BUF_ERROR;
      fail(ErrorKind::data, "{}: {}: {}", name_, cut ? "truncated gzip data" : "damaged gzip data",
           code == Z_ERRNO ? std::strerror(errno) : text);
    }
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

std::string read_gzip_file(const std::filesystem::path& file, std::size_t max_bytes) {
  GzipReader reader(file);
  std::string text;
  constexpr std::size_t kBlock = std::size_t{4} << 20;
  while (true) {
    const std::size_t at = text.size();
    text.resize(at + kBlock);
    const std::size_t n = reader.read(std::span(reinterpret_cast<std::uint8_t*>(text.data()) + at, kBlock));
    text.resize(at + n);
    if (text.size() > max_bytes)
      fail(ErrorKind::data, "{}: has more than {} bytes", reader.name(), max_bytes);
    if (n < kBlock) return text;
  }
}

}  // namespace varscope
