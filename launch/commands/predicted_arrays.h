#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/base/tensor.h"

namespace varscope {

// Numbers that are written to a temporary file, which has no name, until it is known how many there are.
// Throws Error(io). Not thread-safe.
class Spool {
 public:
  explicit Spool(const std::string& folder);
  void write(std::span<const std::byte> bytes);
  std::uint64_t size() const { return size_; }
  // Calls use(bytes) with all of them from front to back.
  template <class Use>
  void each(Use use) {
    rewind();
    std::vector<std::byte> memory(std::size_t{1} << 20);
    for (std::size_t n = read(memory); n > 0; n = read(memory)) use(std::span(memory).first(n));
  }

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  void rewind();
  std::size_t read(std::span<std::byte> memory);

  std::string folder_;
  std::unique_ptr<std::FILE, Close> file_;
  std::uint64_t size_ = 0;
};

// Predictions as arrays of NumPy: one in a .npy file, or several, by name, in an .npz archive. Rows are
// written as they come, in constant memory; the file is whole or not there (AtomicFile). Not thread-safe.
class PredictedArrays {
 public:
  struct Column {
    std::string name;
    DType dtype = DType::float32;  // float32, float64, int32 or int64
    std::int64_t width = 0;        // of a row; 0: the array is [n]
    bool is_unsigned = false;      // of int64: the bits are those of uint64
  };
  enum class Format : std::uint8_t { npy, npz };
  // REQUIRES one column for npy.
  PredictedArrays(Fs& fs, std::string path, Format format, std::vector<Column> columns);
  // The next row's numbers of a column. REQUIRES as many as its width says.
  void add(std::size_t column, std::span<const double> numbers);
  // The same of a column of int64.
  void add_ids(std::size_t column, std::span<const std::uint64_t> ids);
  void finish();

 private:
  std::string header_of(std::size_t column) const;

  Fs& fs_;
  std::string path_;
  Format format_;
  std::vector<Column> columns_;
  std::vector<Spool> spools_;
};

}  // namespace varscope
