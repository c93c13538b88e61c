#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace varscope {

// Integers that cannot be mixed up: a ServerId is not a WorkerId.
template <class Tag, class Int>
struct StrongId {
  Int value{};
  constexpr StrongId() = default;
  constexpr explicit StrongId(Int v) : value(v) {}
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
};

using Rank = StrongId<struct RankTag, int>;             // position in the job, 0-based
using ServerId = StrongId<struct ServerTag, int>;       // 0 .. S-1
using WorkerId = StrongId<struct WorkerTag, int>;       // 0 .. W-1
using BucketId = StrongId<struct BucketTag, int>;       // index into the BucketPlan
using Clock = StrongId<struct ClockTag, std::int64_t>;  // steps pushed; 0 is the initial value

// Borrowed memory, the unit of scatter and gather. The owner keeps it alive until the request completes.
struct Piece {
  std::byte* data = nullptr;
  std::size_t n_bytes = 0;
};
struct ConstPiece {
  const std::byte* data = nullptr;
  std::size_t n_bytes = 0;
};

}  // namespace varscope
