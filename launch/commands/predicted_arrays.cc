#include "launch/commands/predicted_arrays.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"
#include "common/files/npy_header.h"
#include "common/files/zip_archive.h"

namespace varscope {
namespace {

const char* descr_of(const PredictedArrays::Column& column) {
  if (column.dtype == DType::int64) return column.is_unsigned ? "<u8" : "<i8";
  if (column.dtype == DType::int32) return "<i4";
  return column.dtype == DType::float64 ? "<f8" : "<f4";
}

// Beside a file that gets its name at the end; what is written into has no place beside it.
std::string folder_for(Fs& fs, const std::string& path) {
  const WritePlace place = fs.write_place(path);
  if (place.kind == WritePlace::Kind::other) return std::filesystem::temp_directory_path().string();
  return parent_path(place.path);
}

template <class T>
void append(std::string& bytes, double x) {
  const auto value = static_cast<T>(x);
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

Spool::Spool(const std::string& folder) : folder_(folder) {
  std::string name = join_path(folder, ".varscope-XXXXXX");
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) fail_io("make a temporary file in", folder, errno);
  ::unlink(name.c_str());
  file_.reset(::fdopen(fd, "w+b"));
  if (!file_) {
    const int code = errno;
    ::close(fd);
    fail_io("open a temporary file in", folder, code);
  }
}

void Spool::write(std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size())
    fail_io("write a temporary file in", folder_, errno);
  size_ += bytes.size();
}

void Spool::rewind() {
  if (std::fseek(file_.get(), 0, SEEK_SET) != 0) fail_io("write a temporary file in", folder_, errno);
}

std::size_t Spool::read(std::span<std::byte> memory) {
  const std::size_t n = std::fread(memory.data(), 1, memory.size(), file_.get());
  if (n < memory.size() && std::ferror(file_.get()) != 0) fail_io("read a temporary file in", folder_, errno);
  return n;
}

PredictedArrays::PredictedArrays(Fs& fs, std::string path, Format format, std::vector<Column> columns)
    : fs_(fs), path_(std::move(path)), format_(format), columns_(std::move(columns)) {
  const std::string folder = folder_for(fs_, path_);
  for (std::size_t i = 0; i < columns_.size(); ++i) spools_.emplace_back(folder);
}

void PredictedArrays::add(std::size_t column, std::span<const double> numbers) {
  std::string bytes;
  for (const double x : numbers) {
    if (columns_[column].dtype == DType::int32) {
      append<std::int32_t>(bytes, x);
    } else if (columns_[column].dtype == DType::float64) {
      append<double>(bytes, x);
    } else {
      append<float>(bytes, x);
    }
  }
  spools_[column].write(std::as_bytes(std::span(bytes)));
}

void PredictedArrays::add_ids(std::size_t column, std::span<const std::uint64_t> ids) {
  spools_[column].write(std::as_bytes(ids));
}

std::string PredictedArrays::header_of(std::size_t column) const {
  const Column& c = columns_[column];
  const auto row = static_cast<std::uint64_t>(c.width == 0 ? 1 : c.width) * size_of(c.dtype);
  std::vector<std::int64_t> extents{static_cast<std::int64_t>(spools_[column].size() / row)};
  if (c.width > 0) extents.push_back(c.width);
  return npy_header(descr_of(c), extents);
}

void PredictedArrays::finish() {
  AtomicFile file(fs_, path_);
  if (format_ == Format::npy) {
    file.write(header_of(0));
    spools_[0].each([&](std::span<const std::byte> bytes) { file.write(bytes); });
    file.finish();
    return;
  }
  std::string directory;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    const std::string header = header_of(i);
    ZipMember m{columns_[i].name + ".npy", add_zip_crc(0, header.data(), header.size()),
                header.size() + spools_[i].size(), file.size()};
    spools_[i].each(
        [&](std::span<const std::byte> bytes) { m.crc = add_zip_crc(m.crc, bytes.data(), bytes.size()); });
    file.write(zip_local_header(m) + header);
    spools_[i].each([&](std::span<const std::byte> bytes) { file.write(bytes); });
    directory += zip_central_header(m);
  }
  const std::uint64_t at = file.size();
  file.write(directory + zip_end(columns_.size(), at, directory.size()));
  file.finish();
}

}  // namespace varscope
