#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/base/hash.h"

namespace varscope {

// h(id): a bijection of 64 bits that mixes them, the finalizer of Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators" (OOPSLA 2014), variant 13 of Stafford. The rows of a table are in its order
// wherever order matters: on the wire, in files, in sums.
constexpr std::uint64_t mix_row_id(std::uint64_t id) {
  id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9ULL;
  id = (id ^ (id >> 27)) * 0x94d049bb133111ebULL;
  return id ^ (id >> 31);
}
// The id with mix_row_id(id) == mixed.
constexpr std::uint64_t unmix_row_id(std::uint64_t mixed) {
  mixed = (mixed ^ (mixed >> 31) ^ (mixed >> 62)) * 0x319642b2d24d8ec3ULL;
  mixed = (mixed ^ (mixed >> 27) ^ (mixed >> 54)) * 0x96de1b173f119089ULL;
  return mixed ^ (mixed >> 30) ^ (mixed >> 60);
}
// The id of a row that is asked for by a string: its XXH3-64, with a seed where strings of one table are kept
// apart. With n different strings two share an id with a chance of about n^2 / 2^65.
std::uint64_t string_row_id(std::string_view text, std::uint64_t seed = 0);
// The part of an id whose mixed form is `mixed`: its highest bits. REQUIRES: n_parts is a power of two.
constexpr int row_part(std::uint64_t mixed, int n_parts) {
  const int bits = std::countr_zero(static_cast<unsigned>(n_parts));
  return bits == 0 ? 0 : static_cast<int>(mixed >> (64 - bits));
}

// The sum mod 2^128 of XXH3-128(id, values) over rows, the id being the seed: a hash of a set that does not
// depend on its order, and changes with one row as fast as that is hashed. M. Bellare and D. Micciancio, "A
// new paradigm for collision-free hashing: incrementality at reduced cost" (EUROCRYPT 1997), AdHash.
class RowHashSum {
 public:
  void add(std::uint64_t id, std::span<const std::byte> values);
  void remove(std::uint64_t id, std::span<const std::byte> values);
  RowHashSum& operator+=(const RowHashSum& other);
  Digest digest() const;  // big-endian, as Digest
  static RowHashSum from(const Digest& digest);
  friend bool operator==(const RowHashSum&, const RowHashSum&) = default;

 private:
  std::uint64_t low_ = 0, high_ = 0;
};

}  // namespace varscope
