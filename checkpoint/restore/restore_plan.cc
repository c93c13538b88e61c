#include "checkpoint/restore/restore_plan.h"

#include <fmt/ranges.h>

#include <map>
#include <set>
#include <string_view>

#include "common/base/error.h"

namespace varscope {
namespace {

// The whole variables of a table; the first part stands for all.
std::map<std::string_view, const VariableSpec*> wholes(const VariableTable& table) {
  std::map<std::string_view, const VariableSpec*> all;
  for (const VariableSpec& v : table.variables()) all.try_emplace(v.full_name(), &v);
  return all;
}

std::string text_of(const VariableSpec& v) {
  if (v.is_table())
    return fmt::format("table \"{}\" {} of {} units, {} ids", v.name, to_string(v.dtype), v.shape[1],
                       to_string(v.table->ids));
  return fmt::format("variable \"{}\" {} {}", v.full_name(), to_string(v.dtype), v.full_shape().str());
}

// Both are tables: what their values mean.
void compare_tables(const VariableSpec& saved, const VariableSpec& wanted,
                    std::vector<std::string>& conflicts) {
  const std::string who = fmt::format("table \"{}\"", wanted.name);
  if (saved.shape[1] != wanted.shape[1])
    conflicts.push_back(fmt::format("{} has {} units in the checkpoint and {} in the model", who,
                                    saved.shape[1], wanted.shape[1]));
  if (saved.table->ids != wanted.table->ids)
    conflicts.push_back(fmt::format("{} has {} ids in the checkpoint and {} in the model", who,
                                    to_string(saved.table->ids), to_string(wanted.table->ids)));
  if (saved.dtype != wanted.dtype)
    conflicts.push_back(fmt::format("{} is {} in the checkpoint and {} in the model", who,
                                    to_string(saved.dtype), to_string(wanted.dtype)));
}

std::string slots_text(const std::vector<RowSlot>& slots) {
  if (slots.empty()) return "no slots";
  std::vector<std::string> texts;
  texts.reserve(slots.size());
  for (const RowSlot& s : slots) texts.push_back(fmt::format("{} [{}]", s.name, s.n_elements));
  return fmt::format("{} {}", slots.size() == 1 ? "the slot" : "the slots", fmt::join(texts, ", "));
}

// Both are tables: what a run may go on with though it was otherwise.
void note_life(const VariableSpec& saved, const VariableSpec& wanted, std::vector<std::string>& changes) {
  const auto compare = [&](const char* key, const auto& before, const auto& now, const auto& text) {
    if (before != now)
      changes.push_back(fmt::format("table \"{}\": {} is {} in the checkpoint and {} in the model",
                                    wanted.name, key, text(before), text(now)));
  };
  const auto number = [](std::int64_t n) { return n == 0 ? std::string("off") : std::to_string(n); };
  const auto word = [](auto choice) { return std::string(to_string(choice)); };
  const TableSpec &before = *saved.table, &now = *wanted.table;
  compare("expire_steps", before.expire_steps, now.expire_steps, number);
  compare("max_rows", before.max_rows, now.max_rows, number);
  compare("when_full", before.when_full, now.when_full, word);
  compare("absent", before.absent, now.absent, word);
  compare("max_waiting", before.max_waiting, now.max_waiting, number);
}

// Both are tables: what else a run needs to go on.
void compare_rows(const Manifest& manifest, const VariableSpec& saved, const VariableSpec& wanted,
                  const RowSlots& row_slots, std::vector<std::string>& conflicts) {
  // Of a dense variable first values are history; a table's rows still come into being.
  if (saved.initializer != wanted.initializer)
    conflicts.push_back(
        fmt::format("rows of table \"{}\" begin with {} in the checkpoint and with {} in the model",
                    wanted.name, saved.initializer.str(), wanted.initializer.str()));
  if (saved.table->parts != wanted.table->parts)
    conflicts.push_back(fmt::format("table \"{}\" has {} parts in the checkpoint and {} in the model",
                                    wanted.name, saved.table->parts, wanted.table->parts));
  // The counts of ids that wait would be of another goal.
  if (saved.table->entry != wanted.table->entry)
    conflicts.push_back(fmt::format("table \"{}\" has entry {} in the checkpoint and {} in the model",
                                    wanted.name, saved.table->entry, wanted.table->entry));
  const TableRecord* record = find_table(manifest, saved.name);
  const auto slots = row_slots.find(wanted.name);
  if (record == nullptr || slots == row_slots.end() || record->slots == slots->second) return;
  conflicts.push_back(fmt::format("table \"{}\" has rows with {} in the checkpoint and with {} in the job",
                                  wanted.name, slots_text(record->slots), slots_text(slots->second)));
}

void compare(const VariableSpec& saved, const VariableSpec& wanted, std::vector<std::string>& conflicts) {
  if (saved.is_table() != wanted.is_table()) {
    conflicts.push_back(fmt::format("variable \"{}\" is {} in the checkpoint and {} in the model",
                                    wanted.full_name(), saved.is_table() ? "a table" : "no table",
                                    wanted.is_table() ? "a table" : "no table"));
    return;
  }
  if (saved.is_table()) return compare_tables(saved, wanted, conflicts);
  if (saved.full_shape() != wanted.full_shape()) {
    conflicts.push_back(fmt::format("variable \"{}\" has shape {} in the checkpoint and {} in the model",
                                    wanted.full_name(), saved.full_shape().str(), wanted.full_shape().str()));
  }
  if (saved.dtype != wanted.dtype) {
    conflicts.push_back(fmt::format("variable \"{}\" is {} in the checkpoint and {} in the model",
                                    wanted.full_name(), to_string(saved.dtype), to_string(wanted.dtype)));
  }
}

void compare_optimizers(const Manifest& manifest, const std::vector<std::string>& slots,
                        const std::string& optimizer, std::vector<std::string>& conflicts) {
  if (optimizer != manifest.optimizer) {
    conflicts.push_back(fmt::format("the optimizer is \"{}\" in the checkpoint and \"{}\" in the job",
                                    manifest.optimizer, optimizer));
  }
  const std::set<std::string> have(manifest.slots.begin(), manifest.slots.end()),
      want(slots.begin(), slots.end());
  for (const std::string& slot : want) {
    if (!have.contains(slot))
      conflicts.push_back(fmt::format("optimizer slot \"{}\" is missing in the checkpoint", slot));
  }
  for (const std::string& slot : have) {
    if (!want.contains(slot))
      conflicts.push_back(fmt::format("optimizer slot \"{}\" is in the checkpoint but not in the job", slot));
  }
}

std::vector<std::string> names_of(const std::vector<UnmatchedVariable>& variables) {
  std::vector<std::string> names;
  names.reserve(variables.size());
  for (const UnmatchedVariable& v : variables) names.push_back(v.name);
  return names;
}

}  // namespace

std::vector<std::string> RestorePlan::problems(Extra with) const {
  std::vector<std::string> all = conflicts;
  for (const UnmatchedVariable& v : missing) all.push_back(v.text);
  if (with == Extra::include) {
    for (const UnmatchedVariable& v : extra) all.push_back(v.text);
  }
  return all;
}

std::vector<std::string> RestorePlan::missing_names() const { return names_of(missing); }
std::vector<std::string> RestorePlan::extra_names() const { return names_of(extra); }

RestorePlan plan_values(const Manifest& manifest, const VariableTable& wanted) {
  const auto have = wholes(manifest.variables), want = wholes(wanted);
  RestorePlan plan;
  for (const VariableSpec& v : wanted.variables()) {
    if (want.at(v.full_name()) != &v) continue;  // another part of it
    const auto saved = have.find(v.full_name());
    if (saved == have.end()) {
      plan.missing.push_back({v.full_name(), text_of(v) + " is missing in the checkpoint"});
      continue;
    }
    plan.found.push_back(v.full_name());
    compare(*saved->second, v, plan.conflicts);
  }
  for (const VariableSpec& v : manifest.variables.variables()) {
    if (have.at(v.full_name()) == &v && !want.contains(v.full_name()))
      plan.extra.push_back({v.full_name(), text_of(v) + " is in the checkpoint but not in the model"});
  }
  return plan;
}

RestorePlan plan_restore(const Manifest& manifest, const VariableTable& wanted,
                         const std::vector<std::string>& slots, const std::string& optimizer,
                         const RowSlots& row_slots) {
  RestorePlan plan = plan_values(manifest, wanted);
  std::vector<std::string> conflicts;
  compare_optimizers(manifest, slots, optimizer, conflicts);
  const auto have = wholes(manifest.variables), want = wholes(wanted);
  for (const std::string& name : plan.found) {
    const VariableSpec &saved = *have.at(name), &other = *want.at(name);
    if (saved.is_table() && other.is_table()) {
      compare_rows(manifest, saved, other, row_slots, conflicts);
      note_life(saved, other, plan.changes);
      continue;
    }
    if (!slots.empty() && want.at(name)->trainable && !have.at(name)->trainable) {
      conflicts.push_back(fmt::format(
          "variable \"{}\" is trained in the model but was not in the checkpoint, which has no slots of it",
          name));
    }
  }
  plan.conflicts.insert(plan.conflicts.begin(), conflicts.begin(), conflicts.end());
  return plan;
}

void refuse(const std::string& path, const char* what, const std::vector<std::string>& problems,
            const char* hint) {
  if (problems.empty()) return;
  fail(ErrorKind::checkpoint, "checkpoint {} does not fit {} ({} difference{}):\n  {}\n{}", path, what,
       problems.size(), problems.size() == 1 ? "" : "s", fmt::join(problems, "\n  "), hint);
}

}  // namespace varscope
