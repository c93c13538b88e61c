#include "launch/job/start_values.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/base/text.h"
#include "launch/job/finite_advice.h"
#include "launch/job/run_differences.h"
#include "ps/checkpointing/restore.h"
#include "ps/coordinator_state.h"
#include "ps/update/optimizer.h"

namespace varscope {
namespace {

// "a, b and 3 more"
std::string short_list(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 8;
  if (names.size() <= kMost + 1) return comma_list(names);
  return fmt::format("{} and {} more", fmt::join(names.begin(), names.begin() + kMost, ", "),
                     names.size() - kMost);
}

const ConfigNode& node_at(const JobConfig& job, std::string_view path) {
  const ConfigNode* node = job.root.find_path(path);
  return node != nullptr ? *node : job.root;
}

std::optional<std::set<std::string>> selected_variables(const JobConfig& job,
                                                        const std::vector<std::string>& model) {
  const std::vector<std::string>& entries = job.checkpoint.variables;
  if (entries.empty()) return std::nullopt;
  std::set<std::string> selected;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    bool matches = false;
    for (const std::string& name : model) {
      if (!is_within(name, entries[i])) continue;
      selected.insert(name);
      matches = true;
    }
    if (matches) continue;
    const std::string path = fmt::format("checkpoint.variables.{}", i);
    fail_at(
        node_at(job, path), job.file, path,
        fmt::format("the model has {} \"{}\"{}", entries[i].ends_with('/') ? "nothing below" : "no variable",
                    entries[i], did_you_mean(entries[i], with_scopes(model))));
  }
  return selected;
}

void check_new_names(const JobConfig& job, const std::vector<std::string>& model,
                     const std::map<std::string, std::string>& new_names) {
  std::map<std::string, std::string> taken;  // name in the checkpoint: variable
  for (const std::string& variable : model) {
    const auto it = new_names.find(variable);
    const std::string& name = it == new_names.end() ? variable : it->second;
    const auto [other, is_free] = taken.try_emplace(name, variable);
    if (is_free) continue;
    fail_at(node_at(job, "checkpoint.rename"), job.file, "checkpoint.rename",
            fmt::format("variables \"{}\" and \"{}\" would both be \"{}\" in the checkpoint", other->second,
                        variable, name));
  }
}

// Why the run would not go on where it stopped in its data.
struct RunDifferences {
  std::vector<std::string> order;  // in which samples are visited
  std::vector<std::string> data;   // the samples
};
// Of a stream: what its records would no longer mean. The schema stays that of the checkpoint, and the
// directory may be another one, with the same files.
std::vector<std::string> differences_of_reading(const std::map<std::string, std::string>& before,
                                                const JobConfig& job) {
  std::vector<std::string> lines = config_differences(before, job, ConfigPart::data);
  std::erase_if(lines, [](const std::string& line) {
    constexpr std::array kOthers = {"follow",     "late",        "consumed",
                                    "event_time", "bad_records", "max_bad_share"};
    return std::ranges::any_of(
        kOthers, [&](const char* key) { return line.starts_with(fmt::format("data.train.{}:", key)); });
  });
  return lines;
}

RunDifferences differences_of_run(const JobConfig& job, const ModelFacts& facts, const Manifest& m) {
  RunDifferences differences;
  if (m.coordinator_state.empty()) {
    differences.order.push_back(
        fmt::format("it {} and has no place in the data to go on from; evaluate it with varscope eval "
                    "--checkpoint, start a new run from its values with warm_start, or resume from a "
                    "checkpoint that a run has written",
                    made_by(m) == Provenance::saver ? "was saved by a program" : "was imported from a file"));
    return differences;
  }
  const CoordinatorState saved = from_manifest_text(m.coordinator_state);
  const auto compare = [](const char* name, std::int64_t before, std::int64_t now,
                          std::vector<std::string>& lines) {
    if (before != now)
      lines.push_back(fmt::format("{}: {} in the checkpoint, {} in the config", name, before, now));
  };
  compare("train.batch", saved.batch, job.train.batch, differences.order);
  compare("job.seed", saved.seed, job.job.seed, differences.order);
  compare("samples in data.train", saved.dataset_size, facts.train_samples, differences.data);
  const std::optional<ComparedRun> run = compared_run(m);
  if (!run) return differences;
  const auto add = [&](std::vector<std::string> lines) {
    differences.data.insert(differences.data.end(), lines.begin(), lines.end());
  };
  if (job.follow() != nullptr) {
    add(differences_of_reading(run->config, job));
    return differences;
  }
  add(data_differences("data.train", run->train, facts.train));
  if (differences.data.empty()) return differences;
  add(file_differences(run->model, facts.model));
  add(config_differences(run->config, job, ConfigPart::data));  // may be why
  return differences;
}

// What the model's values would no longer mean. Of keys that decide the variables the plan has told.
std::vector<std::string> differences_of_model(const JobConfig& job, const Manifest& m,
                                              const RestorePlan& plan) {
  const std::optional<ComparedRun> run = compared_run(m);
  if (!run) return {};
  std::vector<std::string> lines = config_differences(run->config, job, ConfigPart::meaning);
  const bool is_told = !plan.conflicts.empty() || !plan.missing.empty() || !plan.extra.empty();
  std::erase_if(lines, [&](const std::string& line) {
    const std::string path = line.substr(0, line.find(": "));
    const std::string key = path.substr(path.rfind('.') + 1);
    return is_told && path.starts_with("model.layers.") &&
           (key == "units" || key == "scope" || key == "name" || key == "filters" || key == "vocabulary" ||
            path.ends_with(".table." + key));
  });
  return lines;
}

RowSlots row_slots(const Optimizer& optimizer, const VariableTable& saved) {
  RowSlots of_tables;
  for (const VariableSpec& v : saved.variables()) {
    if (!v.is_table()) continue;
    std::vector<RowSlot>& slots = of_tables[v.name];
    if (!v.trainable) continue;
    for (const Slot& slot : optimizer.row_slots())
      slots.push_back({slot.name, slot.is_per_row ? 1 : v.shape[1]});
  }
  return of_tables;
}

AssignmentMap assignment_map(const JobConfig& job) {
  if (job.warm_start->map.is_null()) return {};
  const ConfigNode& map = job.warm_start->map;
  if (map.entries.empty()) {
    fail_at(map, job.file, "warm_start.map",
            "empty: no variable would get its value; leave it out to take all by their own names");
  }
  std::vector<AssignmentMap::Entry> entries;
  for (const ConfigEntry& e : map.entries) {
    entries.push_back({e.key, e.value.scalar});
    if (const std::string problem = entry_problem(entries.back()); !problem.empty())
      fail_at(e.key_mark, job.file, join_keys("warm_start.map", e.key), problem);
  }
  try {
    return AssignmentMap(std::move(entries));
  } catch (const Error& e) {
    fail_at(map, job.file, "warm_start.map", e.what());
  }
}

// All entries that are not used, each with its place.
void refuse_unused(const JobConfig& job, const WarmStart& warm_start, const std::string& path) {
  if (warm_start.unused().empty()) return;
  if (job.warm_start->map.is_null()) {
    fail_at(node_at(job, "warm_start.from"), job.file, "warm_start.from",
            fmt::format("checkpoint {} has none of the model's variables; say "
                        "with warm_start.map which go where",
                        path));
  }
  std::string text;
  for (const AssignmentMap::Unused& u : warm_start.unused()) {
    const ConfigEntry& e = job.warm_start->map.entries[u.entry];
    text += fmt::format("{}{}{}: not used: {}", text.empty() ? "" : "\n  ", position_of(e.key_mark, job.file),
                        join_keys("warm_start.map", e.key), u.why);
  }
  throw Error(ErrorKind::config, text);
}

}  // namespace

void check_warm_start_map(const JobConfig& job) {
  if (job.warm_start) assignment_map(job);
}

CheckpointNames checkpoint_names(const JobConfig& job, const VariableTable& table) {
  const std::vector<std::string> model = whole_names(table);
  std::optional<std::set<std::string>> selected = selected_variables(job, model);
  std::map<std::string, std::string> new_names;
  for (const ConfigEntry& e : job.checkpoint.rename.entries) {
    const std::string& variable = e.value.scalar;
    const std::string path = join_keys("checkpoint.rename", e.key);
    if (std::ranges::find(model, variable) == model.end()) {
      fail_at(e.value, job.file, path,
              fmt::format("the model has no variable \"{}\"{}", variable, did_you_mean(variable, model)));
    }
    if (selected && !selected->contains(variable))
      fail_at(e.value, job.file, path, fmt::format("\"{}\" is not among checkpoint.variables", variable));
    const auto [other, is_new] = new_names.try_emplace(variable, e.key);
    if (!is_new) {
      fail_at(e.key_mark, job.file, path,
              fmt::format("variable \"{}\" has the name \"{}\" already", variable, other->second));
    }
  }
  check_new_names(job, model, new_names);
  return {std::move(selected), std::move(new_names)};
}

StartValues::StartValues(Fs& fs, const StartPacket& start, const ModelFacts& facts,
                         std::optional<Manifest> decoded)
    : seed_(static_cast<std::uint64_t>(start.job.job.seed)),
      path_(start.resume_path.empty() ? start.warm_start_path : start.resume_path),
      names_(checkpoint_names(start.job, facts.table)),
      is_resumed_(!start.resume_path.empty()) {
  if (!path_.empty()) {
    manifest_ = decoded ? std::move(*decoded) : load_manifest(fs, path_).manifest;
    is_resumed_ ? plan_resume(start, facts) : plan_warm_start(fs, start, facts);
  }
  note_names(facts.table);
}

namespace {

// What follows from a line of ConfigPart::training.
std::string effect_of_change(std::string_view difference, const JobConfig& job) {
  const std::string_view key = difference.substr(0, difference.find(':'));
  // In other modes there are no bits to keep.
  std::string text = job.cluster.consistency == Consistency::bsp
                         ? "; the bits will differ from those of a run that was not changed"
                         : "; the run goes on with it";
  if (key == "cluster.consistency" && difference.find("backup workers") != std::string_view::npos)
    return text + "; what backup workers make late is dropped, and counts in no epoch";
  if (key == "cluster.consistency")
    return text + ", and each sample of an epoch is learnt exactly once all the same";
  const OptimizerType type = job.optimizer.type;
  // Other rules change values little by little.
  constexpr std::array kKeys = {"optimizer.learning_rate", "optimizer.beta", "optimizer.l1", "optimizer.l2"};
  if (type != OptimizerType::ftrl || std::ranges::find(kKeys, key) == kKeys.end()) return text;
  return text + "; ftrl makes each value from its sums and this: it jumps at its next gradient";
}

}  // namespace

void StartValues::plan_resume(const StartPacket& start, const ModelFacts& facts) {
  const Optimizer optimizer(start.job.optimizer);
  const RestorePlan plan = plan_restore(*manifest_, names_.in_checkpoint(facts.table), optimizer.slot_names(),
                                        to_string(start.job.optimizer.type),
                                        row_slots(optimizer, names_.in_checkpoint(facts.table)));
  const bool partial = start.job.checkpoint.partial_restore;
  std::vector<std::string> problems = partial ? plan.conflicts : plan.problems(RestorePlan::Extra::include);
  const RunDifferences of_run = differences_of_run(start.job, facts, *manifest_);
  problems.insert(problems.end(), of_run.order.begin(), of_run.order.end());
  if (start.allow_other_data) {
    other_data_ = of_run.data;
  } else {
    problems.insert(problems.end(), of_run.data.begin(), of_run.data.end());
  }
  const std::vector<std::string> of_model = differences_of_model(start.job, *manifest_, plan);
  if (!partial) problems.insert(problems.end(), of_model.begin(), of_model.end());
  std::string advice = "nothing was restored; use the config it was made with";
  advice += plan.missing.empty() || partial
                ? ", or start a new run in another job.run_dir"
                : ", start a new run in another job.run_dir, or give missing variables "
                  "initial values with checkpoint.partial_restore: true";
  if (!of_run.data.empty() && !start.allow_other_data)
    advice += "; --allow-other-data goes on with the data as they are now";
  refuse(path_, "the job, which cannot resume", problems, advice.c_str());
  for (const std::string& line : other_data_)
    warnings_.push_back(line + "; the run goes on with it (--allow-other-data), and LINEAGE says so");
  if (plan.found.empty()) {
    fail(ErrorKind::checkpoint,
         "checkpoint {} has none of the model's variables: there is nothing to go on from; use the config "
         "it was made with, checkpoint.rename, or start a new run in another job.run_dir",
         path_);
  }
  if (start.job.warm_start)
    notes_.push_back("  warm start   ignored: the run goes on from its own checkpoint");
  for (const UnmatchedVariable& v : plan.missing) {
    missing_.insert(v.name);
    warnings_.push_back(v.text + ": it starts with initial values (checkpoint.partial_restore)");
  }
  for (const UnmatchedVariable& v : plan.extra) warnings_.push_back(v.text + ": it is left out");
  for (const std::string& line : plan.changes) notes_.push_back("  table        " + line);
  const std::optional<ComparedRun> saved = compared_run(*manifest_);
  if (!saved) return;
  for (const std::string& line : of_model) warnings_.push_back(line + "; the values are of another model");
  std::vector<std::string> of_test = data_differences("data.test", saved->test, facts.test);
  if (saved->test.is_known() && facts.test.is_known() && saved->test.samples != facts.test.samples) {
    of_test.push_back(fmt::format("data.test: {} samples in the checkpoint's run, {} now",
                                  saved->test.samples, facts.test.samples));
  }
  for (const std::string& line : of_test)
    warnings_.push_back(line + "; evaluations are not to be compared with earlier ones");
  for (const std::string& line : config_differences(saved->config, start.job, ConfigPart::training))
    warnings_.push_back(line + effect_of_change(line, start.job));
}

// Of the values that the model takes.
std::vector<NotFiniteTensor> StartValues::not_finite_values(const VariableTable& model) const {
  std::set<std::string> taken;
  for (const VariableSpec& v : model.variables()) {
    if (const auto saved = saved_as(v)) taken.insert(saved->full_name());
  }
  std::vector<NotFiniteTensor> all = manifest_->not_finite;
  std::erase_if(all, [&](const NotFiniteTensor& t) {
    return !t.slot.empty() || !taken.contains(manifest_->variables.find(t.variable)->full_name());
  });
  return all;
}

void StartValues::plan_warm_start(Fs& fs, const StartPacket& start, const ModelFacts& facts) {
  warm_start_ = WarmStart(path_, *manifest_, facts.table, assignment_map(start.job));
  refuse_unused(start.job, warm_start_, path_);
  if (std::string warning = start_warning(fs, start, path_, not_finite_values(facts.table)); !warning.empty())
    warnings_.push_back(std::move(warning));
  const std::vector<std::string>& others = warm_start_.uncaptured();
  const std::optional<ComparedRun> saved = compared_run(*manifest_);
  if (saved && saved->train.is_known() && facts.train.is_known() &&
      saved->train.vocabulary != facts.train.vocabulary) {
    warnings_.push_back(fmt::format(
        "data.train has another vocabulary than the run of {}: values that belong to ids mean other words",
        path_));
  }
  std::string text =
      fmt::format("  warm start   {} of {} variables from {} (step {})", warm_start_.n_captured(),
                  warm_start_.n_captured() + others.size(), path_, manifest_->step);
  if (!others.empty()) text += "; initial values: " + short_list(others);
  notes_.push_back(std::move(text));
}

void StartValues::note_names(const VariableTable& model) {
  std::vector<std::string> left_out;
  for (const std::string& name : whole_names(model)) {
    VariableSpec v;
    v.name = name;
    if (!names_.holds(v)) left_out.push_back(name);
  }
  if (left_out.empty()) return;
  notes_.push_back(fmt::format(
      "  partly saved checkpoints hold {} of {} variables, "
      "not {}; --resume needs checkpoint.partial_restore",
      whole_names(model).size() - left_out.size(), whole_names(model).size(), short_list(left_out)));
}

// What the checkpoint calls the variable; nothing when its values do not come from there.
std::optional<VariableSpec> StartValues::saved_as(const VariableSpec& variable) const {
  if (!is_resumed_) return warm_start_.saved_as(variable);
  if (missing_.contains(names_.name_of(variable.full_name()))) return std::nullopt;
  return names_.in_checkpoint(variable);
}

// A run's own where a run wrote the checkpoint.
std::uint64_t StartValues::seed_of_rows() const {
  const std::string& state = manifest_->coordinator_state;
  return state.empty() ? seed_ : static_cast<std::uint64_t>(from_manifest_text(state).seed);
}

void StartValues::load(ParameterShard& shard, TableShards& tables, Fs& fs) const {
  if (!is_resumed_ || !missing_.empty()) shard.initialize(seed_);
  if (path_.empty()) return;
  const RestoreSource source{path_, is_resumed_ ? std::optional(Clock(manifest_->step)) : std::nullopt,
                             [this](const VariableSpec& variable) { return saved_as(variable); }, &*manifest_,
                             seed_of_rows()};
  restore_shard(shard, fs, source);
  restore_tables(tables, fs, source);
}

}  // namespace varscope
