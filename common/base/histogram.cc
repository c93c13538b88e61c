#include "common/base/histogram.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

// Of a float32's bits: what stays are sign, exponent and three bits of the mantissa.
constexpr int kShift = 20;
constexpr std::uint32_t kSign = 1U << 11, kInfinity = 0x7f800000U >> kShift;

// The bucket by the bits of a float: signs first.
std::uint32_t key_of(float v) { return std::bit_cast<std::uint32_t>(v + 0.0F) >> kShift; }  // -0 is 0

float as_float(float v) { return v; }
// A finite double stays finite.
float as_float(double v) {
  constexpr double kMost = std::numeric_limits<float>::max();
  return static_cast<float>(std::isfinite(v) ? std::clamp(v, -kMost, kMost) : v);
}

std::uint16_t place_of(std::uint32_t key) {
  return static_cast<std::uint16_t>((key & kSign) != 0 ? kSign - 1 - (key & (kSign - 1)) : kSign + key);
}

// The smallest size in the bucket of a key without its sign; beyond the last one 2^128, which is no float.
double edge(std::uint32_t key) {
  return key >= kInfinity ? std::ldexp(1.0, 128) : static_cast<double>(std::bit_cast<float>(key << kShift));
}

}  // namespace

template <class T>
void Histogram::add_values(const T* values, std::int64_t n) {
  std::array<std::int64_t, kPlaces> counts{};
  for (std::int64_t i = 0; i < n; ++i) ++counts[key_of(as_float(values[i]))];
  std::int64_t not_finite = 0;
  for (const std::uint32_t sign : {0U, kSign}) {
    for (std::uint32_t key = kInfinity; key < kSign; ++key)
      not_finite += std::exchange(counts[sign + key], 0);
  }
  not_finite_ += not_finite;
  if (n == not_finite) return;

  // Four sums side by side: one would wait for each of its additions.
  std::array<double, 4> sums{}, squares{};
  T min = std::numeric_limits<T>::infinity(), max = -min;
  for (std::int64_t i = 0; i < n; ++i) {
    const T v = values[i];
    if (not_finite > 0 && !std::isfinite(v)) continue;
    const auto lane = static_cast<std::size_t>(i & 3);
    sums[lane] += static_cast<double>(v);
    squares[lane] += static_cast<double>(v) * static_cast<double>(v);
    min = std::min(min, v);
    max = std::max(max, v);
  }
  Histogram added;
  added.count_ = n - not_finite;
  added.min_ = static_cast<double>(min);
  added.max_ = static_cast<double>(max);
  added.sum_ = sums[0] + sums[1] + (sums[2] + sums[3]);
  added.sum_of_squares_ = squares[0] + squares[1] + (squares[2] + squares[3]);
  for (std::uint32_t key = 2 * kSign; key-- > kSign;) {
    if (counts[key] > 0) added.places_.emplace_back(place_of(key), counts[key]);
  }
  for (std::uint32_t key = 0; key < kSign; ++key) {
    if (counts[key] > 0) added.places_.emplace_back(place_of(key), counts[key]);
  }
  *this += added;
}

void Histogram::add(DType dtype, const std::byte* values, std::int64_t n) {
  switch (dtype) {
    case DType::float32:
      return add_values(reinterpret_cast<const float*>(values), n);
    case DType::float64:
      return add_values(reinterpret_cast<const double*>(values), n);
    default:
      fail(ErrorKind::argument, "a histogram of {} is not possible, only of float32 and float64",
           to_string(dtype));
  }
}

Histogram& Histogram::operator+=(const Histogram& other) {
  not_finite_ += other.not_finite_;
  if (other.count_ == 0) return *this;
  min_ = count_ == 0 ? other.min_ : std::min(min_, other.min_);
  max_ = count_ == 0 ? other.max_ : std::max(max_, other.max_);
  count_ += other.count_;
  sum_ += other.sum_;
  sum_of_squares_ += other.sum_of_squares_;
  Places both;
  both.reserve(places_.size() + other.places_.size());
  auto a = places_.begin();
  for (const auto& [place, count] : other.places_) {
    while (a != places_.end() && a->first < place) both.push_back(*a++);
    const bool is_in_both = a != places_.end() && a->first == place;
    both.emplace_back(place, count + (is_in_both ? (a++)->second : 0));
  }
  both.insert(both.end(), a, places_.end());
  places_ = std::move(both);
  return *this;
}

std::vector<Histogram::Bucket> Histogram::buckets() const {
  std::vector<Bucket> buckets;
  buckets.reserve(places_.size());
  for (const auto& [place, count] : places_) {
    if (place >= kSign) {
      buckets.push_back({edge(place - kSign), edge(place - kSign + 1), count});
    } else {
      buckets.push_back({-edge(kSign - place), -edge(kSign - 1 - place), count});
    }
  }
  return buckets;
}

bool Histogram::is_sound() const {
  std::int64_t left = count_;
  int before = -1;
  for (const auto& [place, count] : places_) {
    if (place <= before || place >= kPlaces || count <= 0 || count > left) return false;
    before = place;
    left -= count;
  }
  return left == 0 && not_finite_ >= 0;
}

}  // namespace varscope
