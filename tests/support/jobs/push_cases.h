#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/jobs/push_exchange.h"

// Runs of SSP and ASP for tests, and what they must come to.
namespace varscope::testing {

// How often the rounds of a proof are done: VARSCOPE_PROOF_ROUNDS times as often for a long run.
inline int proof_rounds(int rounds) {
#ifdef VARSCOPE_SANITIZED
  rounds = (rounds + 2) / 3;  // each takes ten times as long
#endif
  const char* factor = std::getenv("VARSCOPE_PROOF_ROUNDS");
  return rounds * (factor != nullptr ? std::max(1, std::atoi(factor)) : 1);
}

inline PushExchange exchange_of(Consistency consistency, std::int64_t staleness, Dealing dealing) {
  PushExchange e;
  e.variables = counting_variables();
  e.rule = {consistency, staleness, dealing};
  if (consistency == Consistency::ssp) e.staleness = staleness;
  return e;
}

inline PushExchange ssp(std::int64_t staleness, Dealing dealing = Dealing::in_place) {
  return exchange_of(Consistency::ssp, staleness, dealing);
}
inline PushExchange asp(Dealing dealing = Dealing::in_place) {
  return exchange_of(Consistency::asp, 0, dealing);
}

// With tables beside the variables.
inline PushExchange with_rows(PushExchange e, int n_leaves) {
  std::vector<VariableSpec> all = counting_variables().variables();
  all.push_back(counting_table("user/table", n_leaves, 8));
  all.push_back(counting_table("item/table", n_leaves, 1));
  e.variables = VariableTable(std::move(all));
  return e;
}

// What every run must be, whatever its timing.
inline void expect_right(const PushExchange& e, const PushResult& result) {
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.reads.n_wrong, 0) << result.reads.text();
  ASSERT_TRUE(result.finish);
  std::vector<std::int64_t> all;
  for (std::int64_t step = e.first + 1; step <= e.steps; ++step) all.push_back(step);
  EXPECT_EQ(result.reported, all);
}

// Worker 1 keeps its first ticket until worker 0 has read for `lag` steps more.
class SlowWorker {
 public:
  explicit SlowWorker(std::int64_t lag) : lag_(lag) {}
  void join(PushExchange& e) {
    e.on_read = [this](WorkerId w, Clock step) {
      if (w == WorkerId(1)) has_ticket_ = true;
      if (w == WorkerId(0) && step.value >= 1 + lag_) is_far_ = true;
    };
    // Worker 0 begins when the other one has its ticket: else it might do the whole step by itself.
    e.may_push = [this](WorkerId w, Clock step) {
      if (w == WorkerId(0)) return has_ticket_.load();
      return step.value > 1 || is_far_.load();
    };
  }

 private:
  std::int64_t lag_;
  std::atomic<bool> has_ticket_ = false, is_far_ = false;
};

}  // namespace varscope::testing
