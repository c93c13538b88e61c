#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace varscope {

// Counter-based random numbers: Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
// easy as 1, 2, 3" (SC 2011). A draw is a pure function of (key, counter): no state, so any rank may draw any
// element.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// What a draw is for; part of the key, so that purposes never share a stream.
enum class RandomPurpose : std::uint32_t {
  initializer = 1,
  shuffle = 2,
  digits = 3,
  dropout = 4,
  test = 5,
  pairs = 6,
  friedman1 = 7,
  colour_shapes = 8,
  split = 9,
  clicks = 10,
  skipgram = 11
};

// The stream of (seed, purpose, stream): element i has 4 independent 32-bit words. `stream` is, for example,
// the hash of a variable's name, an epoch, or a step and logical worker. Pure; safe from any thread.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t stream);

  std::array<std::uint32_t, 4> words(std::uint64_t element) const;
  // The words of the elements from `first` on, many at once: to[4 * i + j] = words(first + i)[j].
  void words(std::uint64_t first, std::span<std::uint32_t> to) const;
  // Uniform in [0, 1), 53 bits, from the first two words of `element`.
  double uniform(std::uint64_t element) const;
  // Standard normal by Box and Muller (1958), from all words of `element`.
  double normal(std::uint64_t element) const;
  // Both of the elements from `first` on, mod 2^64, many at once: to[i] is that of first + i.
  void uniform(std::uint64_t first, std::span<double> to) const;
  void normal(std::uint64_t first, std::span<double> to) const;
  // Uniform in 0 .. bound-1 by Lemire's multiplication (2019); REQUIRES bound > 0. Bias below 2^-32 for our
  // bounds.
  std::uint64_t below(std::uint64_t element, std::uint64_t bound) const;

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 2> high_;
};

}  // namespace varscope
