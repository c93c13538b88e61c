#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/base/clock.h"
#include "common/transport/reports.h"

namespace varscope {

// The means of sums over samples, 0 for none. A loss that is no number is nan, never -nan.
inline double mean_loss(const BatchSums& s) {
  const double loss = s.samples == 0 ? 0 : s.loss / s.total();
  return std::isnan(loss) ? std::abs(loss) : loss;
}
inline double mean_accuracy(const BatchSums& s) { return s.samples == 0 ? 0 : s.correct / s.total(); }

inline double seconds_since(std::int64_t ns) { return static_cast<double>(now_ns() - ns) * 1e-9; }

// How many samples a run has seen, and how fast: since its first step was complete, and in a window of steps.
class RunSpeed {
 public:
  // A step is complete.
  void add(const BatchSums& step) {
    if (first_step_ns_ == 0) {
      first_step_ns_ = now_ns();
    } else {
      samples_ += step.samples;
    }
    total_samples_ += step.samples;
    window_ += step;
  }
  std::int64_t total_samples() const { return total_samples_; }
  // 0 until the second step is complete.
  double samples_per_s() const {
    return first_step_ns_ == 0
               ? 0
               : static_cast<double>(samples_) / std::max(1e-9, seconds_since(first_step_ns_));
  }
  const BatchSums& window() const { return window_; }
  double window_samples_per_s() const {
    return static_cast<double>(window_.samples) / std::max(1e-9, seconds_since(window_started_ns_));
  }
  void start_window() {
    window_ = {};
    window_started_ns_ = now_ns();
  }

 private:
  std::int64_t first_step_ns_ = 0;
  std::int64_t samples_ = 0;  // since then
  std::int64_t total_samples_ = 0;
  BatchSums window_;
  std::int64_t window_started_ns_ = now_ns();
};

}  // namespace varscope
