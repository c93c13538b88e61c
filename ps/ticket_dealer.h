#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "common/base/ids.h"
#include "common/config/step_rule.h"
#include "common/placement/cluster.h"
#include "ps/record/recorded_order.h"

namespace varscope {

// Who computes what where pushes are applied one by one. A ticket is some leaves of a step: dealt in place it
// is a worker's own leaves, and each worker goes through the steps by itself; dealt to whoever asks it is one
// leaf, the lowest that is left. Samples and random draws belong to the ticket, not to who has it. Steps are
// opened in their order; only tickets of open steps are dealt. A value type.
class TicketDealer {
 public:
  struct Ticket {
    Clock step;
    int leaf_begin = 0;
    int index = 0;  // among those of its step
  };
  // `first`: the last step that is over. `recorded` may be null: the run whose dealing is repeated, as far as
  // its record goes.
  TicketDealer(const StepRule& rule, const ClusterMap& cluster, Clock first,
               const RecordedTickets* recorded = nullptr)
      : is_dynamic_(rule.is_dynamic()),
        cluster_(cluster),
        first_(first),
        opened_(first),
        next_(cluster.n_workers(), Clock(first.value + 1)) {
    if (recorded == nullptr || !is_dynamic_) return;
    recorded_ = recorded->of_workers();
    n_dealt_ = recorded->n_dealt();
  }

  bool is_dynamic() const { return is_dynamic_; }
  int per_step() const { return is_dynamic_ ? cluster_.logical_workers : cluster_.n_workers(); }
  // Which of a step's tickets a report of the worker is of; nothing where it can have none such.
  std::optional<int> index_of(WorkerId worker, int leaf_begin) const {
    if (is_dynamic_)
      return leaf_begin >= 0 && leaf_begin < per_step() ? std::optional(leaf_begin) : std::nullopt;
    return leaf_begin == cluster_.leaves_of(worker).begin ? std::optional(worker.value) : std::nullopt;
  }
  // Over all steps, from 0 on.
  std::int64_t number_of(const Ticket& ticket) const {
    return (ticket.step.value - 1) * per_step() + ticket.index;
  }
  // Leaves of the ticket with this index.
  int n_leaves(int index) const { return is_dynamic_ ? 1 : cluster_.leaves_of(WorkerId(index)).size(); }

  // REQUIRES: the step after the last one that was opened.
  void open(Clock step) { opened_ = step; }
  Clock opened() const { return opened_; }
  // Nothing when the worker has had all that it may.
  std::optional<Ticket> take(WorkerId worker) {
    if (is_dynamic_) {
      std::deque<std::int64_t>& recorded = recorded_[worker.value];
      if (!recorded.empty()) {
        const Clock step(recorded.front() / per_step() + 1);
        if (step > opened_) return std::nullopt;
        const auto leaf = static_cast<int>(recorded.front() % per_step());
        recorded.pop_front();
        return Ticket{step, leaf, leaf};
      }
      const Clock step(first_.value + 1 + n_dealt_ / per_step());
      if (step > opened_) return std::nullopt;
      const auto leaf = static_cast<int>(n_dealt_++ % per_step());
      return Ticket{step, leaf, leaf};
    }
    if (next_[worker] > opened_) return std::nullopt;
    const Clock step = next_[worker];
    ++next_[worker].value;
    return Ticket{step, cluster_.leaves_of(worker).begin, worker.value};
  }

 private:
  bool is_dynamic_;
  const ClusterMap& cluster_;
  Clock first_;
  Clock opened_;
  std::int64_t n_dealt_ = 0;                          // dynamic
  std::map<int, std::deque<std::int64_t>> recorded_;  // by worker, what is left of it
  IdVector<WorkerId, Clock> next_;                    // in place: the step of its next ticket
};

}  // namespace varscope
