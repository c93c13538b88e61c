#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "common/base/types.h"

namespace varscope {

// Which ids have left the parts of a table since saves, so that a save of changes can name them. Each cut
// seals what has been added since the one before; what later saves of a part build on needs no names of
// before. A part with too many is given up: saves of it are of all of it, until one of them is built on. One
// thread adds, seals and forgets; while a sealed cut is being read another may call read().
class RemovedIds {
 public:
  explicit RemovedIds(std::size_t n_parts) : n_parts_(n_parts) {}

  // Nothing is remembered at first.
  void remember(bool is_on, Clock now);
  // `most`: ids of the part that are worth remembering.
  void add(std::size_t part, std::uint64_t id, std::size_t most);
  // REQUIRES for these two: nobody reads.
  void seal(Clock cut);
  void drop_forgotten();
  // Saves of the part will build on that of `cut`, or a later one. Takes effect with the next
  // drop_forgotten().
  void forget(std::size_t part, Clock cut);

  // Replaces `ids` by those of the part that have been added in steps after `since` and up to the last seal,
  // in no order, some several times. False: they are not known.
  bool read(std::size_t part, std::int64_t since, std::vector<std::uint64_t>& ids) const;
  std::size_t n_bytes() const;

 private:
  struct Segment {
    std::int64_t to = 0;                          // the cut that sealed it
    std::vector<std::vector<std::uint64_t>> ids;  // of each part; none while nothing has been added
    std::vector<bool> is_given_up;                // likewise
  };
  std::size_t n_parts_;
  bool is_on_ = false;
  bool is_any_forgotten_ = false;
  std::deque<Segment> sealed_;  // ascending
  Segment open_;
  // Of each part; empty unless it is on.
  std::vector<std::int64_t> from_;       // what was added in steps after this one is here
  std::vector<std::int64_t> forgotten_;  // what was added up to this one is not needed
  std::vector<std::uint32_t> n_;         // in all segments
};

}  // namespace varscope
