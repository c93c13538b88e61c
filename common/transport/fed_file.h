#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/base/hash.h"
#include "common/base/types.h"

namespace varscope {

// A file of a directory that is followed, as server 0 deals it out: its records from `begin` on are learnt in
// steps of `batch` records, the last of which may be shorter. The same on every rank.
struct FedFile {
  std::string name;          // in the directory
  std::int64_t n_bytes = 0;  // of the file as server 0 has read it
  Digest digest;             // of these bytes
  std::int64_t records = 0;  // that are samples
  std::int64_t begin = 0;    // so many of them were learnt before, in an earlier start
  std::int64_t first = 1;    // the step of the record `begin`
  std::int64_t batch = 1;    // records of a step

  std::int64_t n_steps() const { return (records - begin + batch - 1) / batch; }
  std::int64_t last() const { return first + n_steps() - 1; }
  bool has(Clock clock) const { return clock.value >= first && clock.value <= last(); }
  // Of a step of this file: its records are [begin_of(step), end_of(step)).
  std::int64_t begin_of(Clock clock) const { return begin + (clock.value - first) * batch; }
  std::int64_t end_of(Clock clock) const { return std::min(records, begin_of(clock) + batch); }

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& name& n_bytes& digest& records& begin& first& batch;
  }
};

}  // namespace varscope
