#pragma once

#include <cstddef>
#include <vector>

#include "common/base/tensor.h"
#include "ps/update/optimizer.h"

namespace varscope::testing {

// One variable whole, with its slots and its gradient: what servers do slice by slice, done at once. The
// value must outlive it.
class LoneOptimizer {
 public:
  LoneOptimizer(const OptimizerConfig& config, Tensor& value)
      : optimizer_(config), value_(value), gradient_(value.dtype(), value.shape()) {
    for (std::size_t i = 0; i < optimizer_.slots().size(); ++i)
      slots_.emplace_back(value.dtype(), value.shape());
    for (Tensor& slot : slots_) memory_.push_back(slot.view().bytes());
    optimizer_.start_slots(value.dtype(), value.view().bytes(), memory_, value.n_elements());
  }
  LoneOptimizer(const LoneOptimizer&) = delete;
  LoneOptimizer& operator=(const LoneOptimizer&) = delete;

  Tensor& gradient() { return gradient_; }
  // Applies the gradient.
  void update(int step) {
    optimizer_.update(value_.dtype(), value_.view().bytes(), gradient_.view().bytes(), memory_,
                      value_.n_elements(), UpdateStep::whole(Clock(step)));
  }

 private:
  Optimizer optimizer_;
  Tensor& value_;
  Tensor gradient_;
  std::vector<Tensor> slots_;
  std::vector<std::byte*> memory_;
};

}  // namespace varscope::testing
