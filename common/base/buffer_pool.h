#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "common/base/tensor.h"

namespace varscope {

// Keeps receive buffers warm between uses, by power-of-two size classes. Not thread-safe; owns idle buffers
// only.
class BufferPool {
 public:
  static std::size_t class_of(std::size_t n_bytes) {
    return std::bit_ceil(std::max<std::size_t>(n_bytes, 4096));
  }

  AlignedBytes take(std::size_t n_bytes) {
    auto& idle = idle_[class_of(n_bytes)];
    if (idle.empty()) return allocate_aligned(class_of(n_bytes));
    AlignedBytes buffer = std::move(idle.back());
    idle.pop_back();
    return buffer;
  }
  void give(AlignedBytes buffer, std::size_t n_bytes) {
    idle_[class_of(n_bytes)].push_back(std::move(buffer));
  }

 private:
  std::map<std::size_t, std::vector<AlignedBytes>> idle_;
};

}  // namespace varscope
