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

// A worker that drops its part of a step goes on as if it had never begun it.
void check_backups(const JobConfig& job, const Graph& graph, bool is_sequential) {
  const auto refuse = [&](const std::string& what) {
    const ConfigNode* node = job.root.find_path("cluster.backup_workers");
    fail_at(node != nullptr ? *node : job.root, job.file, "cluster.backup_workers",
            "does not go with " + what);
  };
  if (carries_state(graph, is_sequential)) {
    refuse(fmt::format(
        "\"{}\", a state that is carried from step to step over the text: a dropped step would be "
        "missing in it; remove the key",
        first_state(graph)->name()));
  }
  for (const Variable* v : graph.variables()) {
    if (v->spec().compression.has_residual()) {
      refuse(
          fmt::format("the compression of \"{}\", which keeps on each worker what its gradients have lost: "
                      "of a dropped one nobody can say what that is; remove the key, or take fp16 or bf16",
                      v->name()));
    }
  }
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
  if (c.consistency == Consistency::bsp) return {.delay = c.delay, .backups = c.backup_workers};
  const bool is_dynamic = c.dealing == DealingChoice::to_whoever_asks ||
                          (c.dealing == DealingChoice::automatic && !carries_state);
  return {c.consistency, c.staleness, is_dynamic ? Dealing::to_whoever_asks : Dealing::in_place};
}

void check_rule_of_model(const JobConfig& job, const Graph& graph, bool is_sequential) {
  const ClusterConfig& cluster = job.cluster;
  if (cluster.backup_workers > 0) check_backups(job, graph, is_sequential);
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

void check_backups_of_cluster(const JobConfig& job, const ClusterMap& cluster) {
  const std::int64_t backups = job.cluster.backup_workers, workers = cluster.n_workers();
  if (backups == 0) return;
  const auto refuse = [&](const char* path, const std::string& text) {
    const ConfigNode* node = job.root.find_path(path);
    fail_at(node != nullptr ? *node : job.root, job.file, path, text);
  };
  if (backups >= workers) {
    refuse(
        "cluster.backup_workers",
        fmt::format("{} is too many for {} worker{}: a step needs one at least; set it to {}, or have more "
                    "workers: more ranks of mpirun, or --workers of varscope plan",
                    backups, workers, workers == 1 ? "" : "s",
                    workers == 1 ? "0" : fmt::format("{} or less", workers - 1)));
  }
  if (cluster.logical_workers == workers) return;
  refuse("cluster.logical_workers",
         fmt::format("{} does not go with cluster.backup_workers and {} workers: of a worker all or nothing "
                     "counts; remove the key, or set it to {}",
                     cluster.logical_workers, workers, workers));
}

}  // namespace varscope
