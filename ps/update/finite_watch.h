#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/placement/bucket_plan.h"
#include "common/transport/reports.h"
#include "ps/store/parameter_shard.h"

namespace varscope {

// Keeps an eye on a shard: the first NaN or infinity in each variable's value and in each of its slots, and
// when it came to be. Whoever makes values tells it where there is something to look for. One thread;
// borrows plan and shard.
class FiniteWatch {
 public:
  FiniteWatch(const BucketPlan& plan, ParameterShard& shard) : plan_(plan), shard_(shard) {}

  // Step `clock` has just changed elements [begin, begin + n) of the bucket.
  void look(BucketId id, std::int64_t begin, std::int64_t n, Clock clock);
  // All values and slots, before the first step.
  void look_at_all();
  // Of something else than an element: a norm.
  void add(NotFiniteFinding finding);

  bool has_found() const { return n_found_ > 0; }
  // In the order in which they were found: at most kMostFindings; `n_more` counts the others.
  FiniteReport report() const;

 private:
  static constexpr std::size_t kMostFindings = 64;
  void look_at(const Bucket& bucket, int slot, std::byte* memory, std::int64_t begin, std::int64_t n,
               Clock clock);

  const BucketPlan& plan_;
  ParameterShard& shard_;
  struct Known {
    std::int64_t clock = 0;
    std::size_t index = 0;  // in findings_, where it has a place there
  };
  std::map<std::pair<int, int>, Known> known_;  // by variable and slot (-1: the value)
  std::vector<NotFiniteFinding> findings_;
  std::int64_t n_found_ = 0;
};

}  // namespace varscope
