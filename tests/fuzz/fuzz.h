#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "worker/data/dataset.h"

namespace varscope::testing {

// Bytes as a file that has a path and lies in memory.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::uint8_t> bytes) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    std::span<const std::uint8_t> rest = bytes;
    while (fd_ >= 0 && !rest.empty()) {
      const ssize_t n = ::write(fd_, rest.data(), rest.size());
      if (n <= 0) break;
      rest = rest.subspan(static_cast<std::size_t>(n));
    }
    if (fd_ < 0 || !rest.empty()) std::abort();
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

// What a reader may do with any bytes: read them, or throw one of these. Anything else is a finding.
template <class Read>
int expect_data_or_error(Read read) {
  try {
    read();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::data || e.kind() == ErrorKind::config) return 0;
    std::fprintf(stderr, "an error of the wrong kind: %s\n", e.what());
    std::abort();
  }
  return 0;
}

// All samples of a data set, through the batches that training reads; of their values nothing is expected.
inline void read_all(const Dataset& data) {
  const SampleSpec spec = data.spec();
  const auto per_batch = std::min<std::int64_t>(data.size(), 64);
  if (Batch::n_bytes(spec, DType::float32, per_batch) > 64 << 20) return;
  const Batch batch(spec, DType::float32, per_batch);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(per_batch));
  for (std::int64_t begin = 0; begin < std::min<std::int64_t>(data.size(), 1024); begin += per_batch) {
    const std::int64_t n = std::min(per_batch, data.size() - begin);
    std::iota(rows.begin(), rows.end(), begin);
    data.read(std::span(rows).first(static_cast<std::size_t>(n)), batch.view(n));
    if (data.target() != Target::classes) continue;
    const TensorView y = batch.view(n).y;
    for (std::int64_t i = 0; i < y.n_elements(); ++i) {
      if (y.data<std::int32_t>()[i] < 0 || y.data<std::int32_t>()[i] >= data.n_classes()) std::abort();
    }
  }
  (void)data.content();
  (void)data.schema();
}

}  // namespace varscope::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
