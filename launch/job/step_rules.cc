#include "launch/job/step_rules.h"

#include <algorithm>

namespace varscope {

bool carries_state(const WorkerModel& model) {
  const std::vector<const Variable*> variables = model.model.graph.variables();
  return model.train->streams() > 0 && std::ranges::any_of(variables, &Variable::is_local);
}

StepRule step_rule_of(const JobConfig& job, bool carries_state) {
  const ClusterConfig& c = job.cluster;
  if (c.consistency == Consistency::bsp) return {};
  const bool is_dynamic = c.dealing == DealingChoice::to_whoever_asks ||
                          (c.dealing == DealingChoice::automatic && !carries_state);
  return {c.consistency, c.staleness, is_dynamic ? Dealing::to_whoever_asks : Dealing::in_place};
}

}  // namespace varscope
