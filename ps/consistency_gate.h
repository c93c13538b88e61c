#pragma once

#include <cstdint>
#include <limits>

#include "common/base/types.h"

namespace varscope {

// May a worker at clock c read a value that holds the steps up to `applied`? Stale synchronous parallel (Ho
// et al., NIPS 2013) lets it read when applied >= c - staleness; BSP is staleness 0, ASP is unbounded. A
// value type.
class ConsistencyGate {
 public:
  static ConsistencyGate bsp() { return ConsistencyGate(0); }
  static ConsistencyGate ssp(std::int64_t staleness) { return ConsistencyGate(staleness); }
  static ConsistencyGate asp() { return ConsistencyGate(std::numeric_limits<std::int64_t>::max()); }

  bool may_read(Clock reader, Clock applied) const { return reader.value - applied.value <= staleness_; }

 private:
  explicit ConsistencyGate(std::int64_t staleness) : staleness_(staleness) {}
  std::int64_t staleness_;
};

}  // namespace varscope
