#include "launch/job/replay.h"

#include <algorithm>
#include <set>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/config/binder.h"
#include "launch/job/run_differences.h"
#include "launch/job/step_rules.h"
#include "launch/process/version.h"

namespace varscope {
namespace {

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// The recorded run's checkpoints, by their steps: in its own directory, or where the config says.
std::map<std::int64_t, std::vector<std::string>> checkpoints_of(const TrainOptions& options, Fs& fs) {
  const JobConfig recorded = load_config(options.config, options.overrides);
  std::map<std::int64_t, std::vector<std::string>> paths;
  for (const std::string& dir : {join_path(options.replay, "checkpoints"), recorded.checkpoint_dir()}) {
    for (const CheckpointName& c : list_checkpoints(fs, dir)) paths[c.step].push_back(c.path);
  }
  return paths;
}

// Throws Error(checkpoint) for what is no directory of a run.
void check_directory(Fs& fs, const std::string& dir) {
  if (!fs.is_directory(dir)) fail(ErrorKind::checkpoint, "--replay {}: there is no such directory", dir);
  const std::string above = parent_path(dir);
  if (dir == record_dir(above) && fs.is_directory(tickets_dir(above))) {
    fail(ErrorKind::checkpoint, "--replay {}: this is the record of a run; name the run's directory, {}", dir,
         above);
  }
}

// Whether the checkpoint is the one whose values the record begins with there: a later start of the run,
// which recorded nothing, or another run may have put its own in its place.
bool begins_with(Fs& fs, const std::string& run_dir, Clock step, const std::string& checkpoint) {
  const RecordHeader header = read_header(fs, segment_path(tickets_dir(run_dir), step));
  try {
    return load_manifest(fs, checkpoint).manifest.id == header.checkpoint_id;
  } catch (const Error&) {
    return true;  // what is wrong with it is said where it is used
  }
}

std::string text_of(const std::vector<Clock>& steps) {
  std::string text;
  for (const Clock step : steps) text += fmt::format("{}{}", text.empty() ? "" : ", ", step.value);
  return text;
}

}  // namespace

JobConfig load_job(const TrainOptions& options) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.replay.empty())
    overrides.push_back(fmt::format("job.run_dir=\"{}-replay\"", without_slashes(options.replay)));
  return load_config(options.config, overrides);
}

void prepare_replay(const TrainOptions& options, PreparedStart& start, Fs& fs, const VerifyFiles& verify) {
  const std::string dir = without_slashes(options.replay);
  check_directory(fs, dir);
  const auto checkpoints = checkpoints_of(options, fs);
  std::vector<Clock> steps = replayable_steps(fs, dir);
  std::erase_if(steps, [&](Clock s) { return s.value > 0 && !checkpoints.contains(s.value); });
  std::map<Clock, std::string> begins;
  std::vector<Clock> replaced;
  std::erase_if(steps, [&](Clock s) {
    if (s.value == 0) return false;
    for (const std::string& path : checkpoints.at(s.value)) {
      if (begins_with(fs, dir, s, path)) return begins.emplace(s, path), false;
    }
    replaced.push_back(s);
    return true;
  });
  std::string others;
  if (!replaced.empty()) {
    others = fmt::format(
        "; of step {} there is only another checkpoint than the recorded one: a later start of the run has "
        "written it, or it was resharded",
        text_of(replaced));
  }
  if (steps.empty()) {
    fail(ErrorKind::checkpoint,
         "the record in {} begins at no step whose values are there: neither at the start of the run nor at "
         "one of its checkpoints{}",
         dir, others);
  }
  const Clock from(options.from.value_or(steps.back().value));
  if (std::ranges::find(steps, from) == steps.end()) {
    fail(ErrorKind::config, "--from {}: {} can be replayed from step {}{}", from.value, dir, text_of(steps),
         others);
  }
  StartPacket& packet = start.packet;
  packet.replay = recorded_run(fs, dir, from);
  for (const std::string& why : packet.replay.warnings) {
    start.warnings.push_back(
        fmt::format("the record ends early, as it does when ranks are killed; what follows is replayed in no "
                    "order: {}",
                    why));
  }
  if (from.value == 0) return;
  packet.resume_path = begins.at(from);
  Verification v = verify_whole(fs, packet.resume_path, verify);
  std::string text;
  for (const std::string& p : v.problems) text += "\n  " + p;
  if (!text.empty()) fail(ErrorKind::checkpoint, "cannot replay from {}:{}", packet.resume_path, text);
  packet.run_id = v.manifest->run_id;
  packet.attempt = v.manifest->attempt;
  start.manifest = std::move(v.manifest);
}

RecordHeader record_header(const StartPacket& start, const ClusterMap& cluster, const ModelFacts& facts) {
  RecordHeader header{.program_version = kVersion,
                      .start_id = start.start_id,
                      .servers = cluster.n_servers(),
                      .workers = cluster.n_workers(),
                      .logical_workers = cluster.logical_workers,
                      .rule = step_rule_of(start.job, facts.carries_state),
                      .variables = facts.table.digest().hex(),
                      .settings = hyperparameters(start.job)};
  header.settings.erase("cluster.logical_workers");
  header.settings["train.eval_every_epochs"] = std::to_string(start.job.train.eval_every_epochs);
  // Where compression keeps something back, what says when that is flushed.
  const auto is_lossy = [](const VariableSpec& v) { return v.compression.has_residual(); };
  if (std::ranges::any_of(facts.table.variables(), is_lossy)) {
    header.settings["cluster.drain_every_steps"] = std::to_string(start.job.cluster.drain_every_steps);
    header.settings["cluster.settle_steps"] = std::to_string(start.job.cluster.settle_steps);
    header.settings["checkpoint.every_steps"] = std::to_string(start.job.checkpoint.every_steps);
  }
  header.settings["the samples of data.train"] = facts.train.content.hex();
  header.settings["the samples of data.test"] = facts.test.content.hex();
  return header;
}

void check_replay(const RecordedRun& run, const RecordHeader& now) {
  const RecordHeader& then = run.header;
  std::string text;
  const auto compare = [&](const std::string& what, const auto& before, const auto& after) {
    if (before != after) text += fmt::format("\n  {}: {} in the recorded run, {} now", what, before, after);
  };
  compare("version of varscope", then.program_version, now.program_version);
  compare("servers (cluster.servers)", then.servers, now.servers);
  compare("workers", then.workers, now.workers);
  compare("logical workers (cluster.logical_workers)", then.logical_workers, now.logical_workers);
  compare("cluster.consistency", std::string(choice_name(kConsistencies, then.rule.consistency)),
          std::string(choice_name(kConsistencies, now.rule.consistency)));
  compare("cluster.staleness", then.rule.staleness, now.rule.staleness);
  compare("cluster.backup_workers", then.rule.backups, now.rule.backups);
  const auto dealing = [](const RecordHeader& h) { return h.rule.is_dynamic() ? "dynamic" : "static"; };
  if (then.rule.consistency == now.rule.consistency)
    compare("cluster.dealing", std::string(dealing(then)), std::string(dealing(now)));
  std::set<std::string> names;
  for (const auto& settings : {then.settings, now.settings}) {
    for (const auto& [name, value] : settings) names.insert(name);
  }
  for (const char* compared :
       {"cluster.consistency", "cluster.staleness", "cluster.backup_workers", "cluster.dealing"})
    names.erase(compared);
  const auto value = [](const RecordHeader& h, const std::string& name) {
    const auto it = h.settings.find(name);
    return it == h.settings.end() ? std::string("nothing") : it->second;
  };
  for (const std::string& name : names) compare(name, value(then, name), value(now, name));
  if (text.empty()) compare("the variables of the model", then.variables, now.variables);
  if (text.empty()) return;
  fail(ErrorKind::config,
       "{} can only be replayed as it was started:{}\n  its config is {}; it had {} server{} and {} worker{}",
       run.dir, text, join_path(run.dir, "job.yaml"), then.servers, then.servers == 1 ? "" : "s",
       then.workers, then.workers == 1 ? "" : "s");
}

std::string record_note(const JobConfig& job) {
  const char* drains = job.cluster.consistency == Consistency::bsp
                           ? ""
                           : "; all workers come together where a checkpoint is cut";
  return fmt::format("  record       {}{}; --replay {} does the same again", record_dir(job.run_dir()),
                     drains, job.run_dir());
}

std::vector<std::string> replay_notes(const RecordedRun& run) {
  std::string cuts = "no step of it is compared";
  if (!run.compared.empty()) {
    cuts = fmt::format("values are compared after {} of its steps, the last is {}", run.compared.size(),
                       *run.compared.rbegin());
  }
  return {fmt::format("replay of {}: steps {} to {}, where the record ends; {}; nothing is saved", run.dir,
                      run.from.value + 1, run.last.value, cuts)};
}

}  // namespace varscope
