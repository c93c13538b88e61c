#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "common/config/job_config.h"
#include "common/config/metric_names.h"

namespace varscope {

// What early stopping has seen; kept in checkpoints.
struct StopState {
  std::string metric;
  bool has_best = false;
  double best = 0;              // of all evaluations
  std::int64_t best_step = 0;   // the first one with it
  double reference = 0;         // the last value that counted as better
  std::int64_t n_since = 0;     // evaluations since then
  std::int64_t last_step = -1;  // the last evaluation that is counted here
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& metric& has_best& best& best_step& reference& n_since& last_step;
  }
};

// Early stopping with patience (Prechelt, "Early Stopping - But When?", 1998; as Keras's EarlyStopping
// counts): training is over after `patience` evaluations in a row that are not better than the last better
// one by more than min_delta. NaN is never better. A value.
class EarlyStop {
 public:
  // Goes on from `state`, where that is of the same metric; else from nothing.
  EarlyStop(StopConfig rule, MetricOrder order, const std::optional<StopState>& state)
      : rule_(std::move(rule)), order_(order) {
    if (state && state->metric == rule_.metric) state_ = *state;
    state_.metric = rule_.metric;
  }

  // An evaluation after `step`; one that is counted already changes nothing.
  void add(std::int64_t step, double value) {
    if (step <= state_.last_step) return;
    state_.last_step = step;
    ++state_.n_since;
    if (value != value) return;
    if (!state_.has_best || gain(value, state_.reference) > rule_.min_delta) {
      state_.reference = value;
      state_.n_since = 0;
    }
    if (!state_.has_best || gain(value, state_.best) > 0) {
      state_.best = value;
      state_.best_step = step;
    }
    state_.has_best = true;
  }
  bool is_over() const { return state_.n_since >= rule_.patience; }
  const StopState& state() const { return state_; }
  const StopConfig& rule() const { return rule_; }

 private:
  double gain(double value, double before) const {
    return order_ == MetricOrder::larger ? value - before : before - value;
  }

  StopConfig rule_;
  MetricOrder order_;
  StopState state_;
};

}  // namespace varscope
