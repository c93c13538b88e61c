#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "worker/kernels/blas.h"

namespace varscope::bench {

// The matrix products of a perceptron's forward pass, on memory of their own, nothing else.
class Products {
 public:
  // `widths`: of the input and of each layer.
  Products(std::int64_t rows, std::vector<std::int64_t> widths) : rows_(rows), widths_(std::move(widths)) {
    for (std::size_t i = 0; i < widths_.size(); ++i) {
      values_.emplace_back(static_cast<std::size_t>(rows * widths_[i]), 0.5F);
      if (i > 0) weights_.emplace_back(static_cast<std::size_t>(widths_[i - 1] * widths_[i]), 0.01F);
    }
  }
  void run() {
    for (std::size_t i = 0; i + 1 < widths_.size(); ++i) {
      gemm<float>(Transpose::no, Transpose::no, rows_, widths_[i + 1], widths_[i],
                  {values_[i].data(), widths_[i]}, {weights_[i].data(), widths_[i + 1]}, 0.0F,
                  {values_[i + 1].data(), widths_[i + 1]});
    }
  }

 private:
  std::int64_t rows_;
  std::vector<std::int64_t> widths_;
  std::vector<std::vector<float>> weights_, values_;
};

}  // namespace varscope::bench
