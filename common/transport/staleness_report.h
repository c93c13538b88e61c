#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <boost/serialization/vector.hpp>

namespace varscope {

// How often something was 0, 1, 2, ...: each by itself, or in powers of two (0, 1, 2-3, 4-7, ...). Sums of
// tallies of one kind are exact. A value type.
struct Tally {
  bool in_powers = true;
  std::vector<std::int64_t> cells;  // none behind the last one that is not 0
  std::int64_t sum = 0;             // of the numbers, each as often as it came
  std::int64_t most = 0;            // the greatest number of all

  // REQUIRES number >= 0.
  void add(std::int64_t number) {
    const auto n = static_cast<std::uint64_t>(number);
    const auto cell = static_cast<std::size_t>(in_powers ? static_cast<std::uint64_t>(std::bit_width(n)) : n);
    if (cell >= cells.size()) cells.resize(cell + 1);
    ++cells[cell];
    sum += number;
    most = std::max(most, number);
  }
  std::int64_t count() const {
    std::int64_t n = 0;
    for (const std::int64_t cell : cells) n += cell;
    return n;
  }
  double mean() const { return cells.empty() ? 0 : static_cast<double>(sum) / static_cast<double>(count()); }
  // No number takes more cells than an integer has bits, or one by one than `most` says.
  bool is_sound() const {
    const auto last = static_cast<std::size_t>(
        in_powers ? std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(most, 0)))
                  : std::max<std::int64_t>(most, 0));
    return most >= 0 && sum >= 0 && (cells.empty() || cells.size() <= last + 1) &&
           std::ranges::none_of(cells, [](std::int64_t n) { return n < 0; });
  }
  // "3", or in powers "4-7".
  std::string name(std::size_t cell) const {
    if (!in_powers || cell < 2) return std::to_string(cell);
    const std::uint64_t least = std::uint64_t{1} << (cell - 1);
    return std::to_string(least) + "-" + std::to_string(2 * least - 1);
  }
  Tally& operator+=(const Tally& o);
  // What has come since `before`, an earlier state of this one. `most`: of the cell, where it has not grown.
  Tally since(const Tally& before) const;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& in_powers& cells& sum& most;
  }
};

// server -> coordinator where each push is applied by itself (SSP, ASP): how stale what was read and applied
// was, and what its workers waited for, since the start. Counts are of chunks (of whole slices) and of
// tables, which are applied and read as a whole. Times in nanoseconds. A value type.
struct StalenessReport {
  // Of what a ticket of step t is computed with: t - 1, less the last step of which, and of all before, every
  // push was in it.
  Tally leads;
  Tally delays;                 // pushes that were applied between what a push was computed with, and it
  std::int64_t n_answers = 0;   // values and acks
  std::int64_t gate_ns = 0;     // that they waited for other workers' pushes
  std::int64_t service_ns = 0;  // from a push or pull to its answer, without that
  std::int64_t n_holds = 0;     // cuts that held pushes of later steps
  std::int64_t held_ns = 0;     // that they held some
  std::int64_t bytes_up = 0;    // gradients
  std::int64_t bytes_down = 0;  // values
  StalenessReport& operator+=(const StalenessReport& o);
  // As Tally::since().
  StalenessReport since(const StalenessReport& before) const;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& leads& delays& n_answers& gate_ns& service_ns& n_holds& held_ns& bytes_up& bytes_down;
  }
};

}  // namespace varscope
