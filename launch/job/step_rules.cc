#include "launch/job/step_rules.h"

#include <algorithm>

#include "common/base/error.h"

namespace varscope {
namespace {

const Variable* first_state(const Graph& graph) {
  const std::vector<const Variable*> variables = graph.variables();
  const auto it = std::ranges::find_if(variables, &Variable::is_local);
  return it == variables.end() ? nullptr : *it;
}

// Rows of a table are whole, each on one server: they keep to their norms push by push.
void check_constraint(const JobConfig& job, const Variable& variable) {
  const VariableSpec& spec = variable.spec();
  if (!variable.trainable() || variable.is_local() || spec.is_table() || !spec.constraint.needs_norms())
    return;
  fail(
      ErrorKind::config,
      "{}: variable \"{}\" has constraint {}, which does not go with cluster.consistency: {}: a norm needs one "
      "version of the values over all servers, and only bsp has one; remove the constraint, or set "
      "cluster.consistency to bsp",
      variable.made_at().empty() ? job.file : variable.made_at(), spec.full_name(), spec.constraint.str(),
      choice_name(kConsistencies, job.cluster.consistency));
}

}  // namespace

bool carries_state(const Graph& graph, bool is_sequential) {
  return is_sequential && first_state(graph) != nullptr;
}

bool carries_state(const WorkerModel& model) {
  return carries_state(model.model.graph, model.train->streams() > 0);
}

StepRule step_rule_of(const JobConfig& job, bool carries_state) {
  const ClusterConfig& c = job.cluster;
  if (c.consistency == Consistency::bsp) return {.delay = c.delay};
  const bool is_dynamic = c.dealing == DealingChoice::to_whoever_asks ||
                          (c.dealing == DealingChoice::automatic && !carries_state);
  return {c.consistency, c.staleness, is_dynamic ? Dealing::to_whoever_asks : Dealing::in_place};
}

void check_rule_of_model(const JobConfig& job, const Graph& graph, bool is_sequential) {
  const ClusterConfig& cluster = job.cluster;
  if (cluster.consistency == Consistency::bsp) return;
  for (const Variable* v : graph.variables()) check_constraint(job, *v);
  if (cluster.dealing != DealingChoice::to_whoever_asks || !carries_state(graph, is_sequential)) return;
  const ConfigNode* node = job.root.find_path("cluster.dealing");
  fail_at(node != nullptr ? *node : job.root, job.file, "cluster.dealing",
          fmt::format(
              "dynamic does not go with \"{}\", a state that is carried from step to step over the text and "
              "so stays on its worker; set it to static, or remove it (auto)",
              first_state(graph)->name()));
}

}  // namespace varscope
