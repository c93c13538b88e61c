#include "checkpoint/restore/assignment_map.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

using Entry = AssignmentMap::Entry;

bool is_scope(const std::string& name) { return name.ends_with('/'); }
// "" for the root.
std::string prefix_of(const std::string& scope) { return scope == "/" ? "" : scope; }

// Where the entry would take the variable's value from; nothing when it is not about this variable.
std::optional<std::string> source_of(const Entry& entry, const std::string& variable) {
  if (!is_within(variable, entry.to)) return std::nullopt;
  if (!is_scope(entry.to)) return entry.from;
  return prefix_of(entry.from) + variable.substr(prefix_of(entry.to).size());
}

// A variable's own name comes before any scope, then longer prefixes before shorter ones.
std::pair<std::size_t, std::size_t> precedence(const Entry& entry) {
  const std::size_t in_model = is_scope(entry.to) ? prefix_of(entry.to).size() : std::string::npos;
  return {in_model, prefix_of(entry.from).size()};
}

std::string meant(const std::string& name, const std::vector<std::string>& names) {
  return did_you_mean(name, with_scopes(names));
}

std::string why_unused(const Entry& entry, const std::vector<std::string>& model,
                       const std::vector<std::string>& checkpoint) {
  const auto within = [](const std::string& where) {
    return [&where](const std::string& name) { return is_within(name, where); };
  };
  const char* kind = is_scope(entry.from) ? "nothing below" : "no variable";
  if (std::ranges::none_of(model, within(entry.to)))
    return fmt::format("the model has {} \"{}\"{}", kind, entry.to, meant(entry.to, model));
  if (std::ranges::none_of(checkpoint, within(entry.from)))
    return fmt::format("the checkpoint has {} \"{}\"{}", kind, entry.from, meant(entry.from, checkpoint));
  const std::set<std::string> there(checkpoint.begin(), checkpoint.end());
  const bool meets = std::ranges::any_of(model, [&](const std::string& variable) {
    const auto source = source_of(entry, variable);
    return source && there.contains(*source);
  });
  return meets ? "other entries with longer prefixes take all of its variables"
               : fmt::format("no name below \"{}\" in the checkpoint is one below \"{}\" in the model",
                             entry.from, entry.to);
}

}  // namespace

bool is_within(const std::string& name, const std::string& scope_or_variable) {
  if (!is_scope(scope_or_variable)) return name == scope_or_variable;
  return name.starts_with(prefix_of(scope_or_variable));
}

std::vector<std::string> with_scopes(const std::vector<std::string>& names) {
  std::vector<std::string> all = names;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    for (std::size_t at = name.find('/'); at != std::string::npos; at = name.find('/', at + 1)) {
      if (seen.insert(name.substr(0, at + 1)).second) all.push_back(name.substr(0, at + 1));
    }
  }
  return all;
}

std::string entry_problem(const Entry& entry) {
  if (entry.from.empty() || entry.to.empty()) return "a name must not be empty; the root is \"/\"";
  if (is_scope(entry.from) != is_scope(entry.to)) {
    return fmt::format(
        "a scope (\"{}\") cannot go to a variable or a variable to a scope; write a '/' at the end "
        "of both names, or of neither",
        is_scope(entry.from) ? entry.from : entry.to);
  }
  return "";
}

AssignmentMap::AssignmentMap(std::vector<Entry> entries) : entries_(std::move(entries)) {
  std::map<std::string_view, std::string_view> variables;
  for (const Entry& entry : entries_) {
    if (const std::string problem = entry_problem(entry); !problem.empty())
      fail(ErrorKind::argument, "assignment \"{}\" -> \"{}\": {}", entry.from, entry.to, problem);
    if (is_scope(entry.to)) continue;
    const auto [other, is_new] = variables.try_emplace(entry.to, entry.from);
    if (!is_new) {
      fail(ErrorKind::argument, "\"{}\" and \"{}\" are both assigned to variable \"{}\"", other->second,
           entry.from, entry.to);
    }
  }
}

AssignmentMap::Result AssignmentMap::resolve(const std::vector<std::string>& model,
                                             const std::vector<std::string>& checkpoint) const {
  const std::set<std::string> there(checkpoint.begin(), checkpoint.end());
  Result result;
  std::vector<bool> used(entries_.size(), false);
  for (const std::string& variable : model) {
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const auto source = source_of(entries_[i], variable);
      if (!source || !there.contains(*source)) continue;
      if (!best || precedence(entries_[i]) > precedence(entries_[*best])) best = i;
    }
    if (!best) {
      result.uncaptured.push_back(variable);
      continue;
    }
    used[*best] = true;
    result.sources[variable] = *source_of(entries_[*best], variable);
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!used[i]) result.unused.push_back({i, why_unused(entries_[i], model, checkpoint)});
  }
  return result;
}

}  // namespace varscope
