#pragma once

#include <cstddef>
#include <span>

#include "common/base/tensor.h"

namespace varscope {

// Memory that is used again and again, and grows to the most that was asked for. Aligned to kAlignment; not
// initialized. Movable.
class GrowingBytes {
 public:
  // n bytes, whose contents are lost when there were fewer. What earlier calls returned is invalid then.
  std::span<std::byte> of(std::size_t n) {
    if (n > capacity_) {
      capacity_ = n + n / 4;
      memory_ = allocate_aligned(capacity_);
    }
    return {memory_.get(), n};
  }
  std::byte* data() const { return memory_.get(); }
  std::size_t capacity() const { return capacity_; }

 private:
  AlignedBytes memory_;
  std::size_t capacity_ = 0;
};

}  // namespace varscope
