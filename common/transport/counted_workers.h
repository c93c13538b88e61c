#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/types.h"

namespace varscope {

// The workers whose gradients make a step, where there are backup workers (docs/consistency.md). A value
// type. On the wire and in a record: a bit for each worker, the lowest bit of the first byte is worker 0.
class CountedWorkers {
 public:
  CountedWorkers() = default;
  // None of so many.
  explicit CountedWorkers(int n_workers) : is_counted_(static_cast<std::size_t>(n_workers), false) {}
  static CountedWorkers all(int n_workers);
  // Throws Error(protocol) unless the bytes name one of n workers at least, and nobody else.
  static CountedWorkers from_bytes(std::string_view bytes, int n_workers);

  void add(WorkerId worker) { is_counted_[static_cast<std::size_t>(worker.value)] = true; }
  bool has(WorkerId worker) const { return is_counted_[static_cast<std::size_t>(worker.value)]; }
  int count() const;
  int n_workers() const { return static_cast<int>(is_counted_.size()); }
  IdRange<WorkerId> ids() const { return IdRange<WorkerId>(is_counted_.size()); }  // of all workers
  std::string to_bytes() const;
  friend bool operator==(const CountedWorkers&, const CountedWorkers&) = default;

 private:
  std::vector<bool> is_counted_;
};

// What a push says where only some workers' gradients count: the body of its message. All pushes of a step
// say the same, so that servers need no word of the coordinator. The sum of a bucket's pushes is multiplied
// by a factor: what all samples of the step weigh over what the counted ones weigh; in moving averages of
// statistics, which are of samples, their number counts and not their weight.
struct CountedPush {
  double gradient_scale = 1, average_scale = 1;  // 1 or more
  CountedWorkers counted;

  std::string to_bytes() const;
  static std::size_t n_bytes(int n_workers);
  // Throws Error(protocol) that names the rank.
  static CountedPush from_bytes(std::string_view body, int n_workers, Rank from);
  friend bool operator==(const CountedPush&, const CountedPush&) = default;
};

}  // namespace varscope
