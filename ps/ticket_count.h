#pragma once

#include <cstdint>
#include <set>

#include "common/base/types.h"

namespace varscope {

// Which tickets (docs/consistency.md) have been applied to one thing: all up to some number, and some behind
// it. The tickets of step t are numbered (t - 1) * per_step and up. A value type.
class TicketCount {
 public:
  TicketCount() = default;
  // Those of steps up to `first` are in.
  TicketCount(Clock first, int per_step) : per_step_(per_step), below_(first.value * per_step) {}

  // False when it was in before.
  bool add(std::int64_t number) {
    if (number < below_ || !behind_.empty()) {
      if (number < below_ || !behind_.insert(number).second) return false;
    } else if (number != below_) {
      behind_.insert(number);
    } else {
      ++below_;
    }
    while (!behind_.empty() && *behind_.begin() == below_) {
      behind_.erase(behind_.begin());
      ++below_;
    }
    return true;
  }
  // The last step of which, and of all before, every ticket is in.
  Clock low() const { return Clock(below_ / per_step_); }

 private:
  std::int64_t per_step_ = 1;
  std::int64_t below_ = 0;  // all numbers below this are in
  std::set<std::int64_t> behind_;
};

}  // namespace varscope
