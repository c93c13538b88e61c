#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/base/tensor.h"

namespace varscope {

// How often values of which size occur, from the smallest float32 to the largest: a bucket is an eighth of an
// octave (at most 12.5 % wide), so that histograms of parts add up exactly to that of the whole. Counts are
// exact; sums are of doubles and depend on the order of additions in their last bits. Values that are not
// finite are counted apart and are in nothing else. float64 values are put where their float32 belongs.
class Histogram {
 public:
  struct Bucket {
    double left, right;  // left <= v < right; of negative values left < v <= right
    std::int64_t count;
  };

  // Adds n values. Throws Error(argument) for a dtype other than float32 and float64.
  void add(DType dtype, const std::byte* values, std::int64_t n);
  Histogram& operator+=(const Histogram& other);

  std::int64_t count() const { return count_; }  // of finite values
  std::int64_t not_finite() const { return not_finite_; }
  double min() const { return min_; }  // 0 where there are none, as all below
  double max() const { return max_; }
  double sum() const { return sum_; }
  double sum_of_squares() const { return sum_of_squares_; }
  // Those with values, from left to right.
  std::vector<Bucket> buckets() const;

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& count_& not_finite_& min_& max_& sum_& sum_of_squares_& places_;
  }
  // Whether received counts make sense: places in order, within bounds, positive, and with the sum that they
  // claim.
  bool is_sound() const;

 private:
  // Sign, exponent and the first three bits of the mantissa of a float32, in the order of the values.
  static constexpr int kPlaces = 1 << 12;
  using Places = std::vector<std::pair<std::uint16_t, std::int64_t>>;  // with counts; none is empty; in order

  template <class T>
  void add_values(const T* values, std::int64_t n);
  void add_limits(double min, double max);

  std::int64_t count_ = 0;
  std::int64_t not_finite_ = 0;
  double min_ = 0, max_ = 0;
  double sum_ = 0, sum_of_squares_ = 0;
  Places places_;
};

}  // namespace varscope
