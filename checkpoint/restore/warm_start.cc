#include "checkpoint/restore/warm_start.h"

#include <map>
#include <set>

#include "checkpoint/restore/names.h"
#include "checkpoint/restore/restore_plan.h"
#include "common/base/error.h"

namespace varscope {
namespace {

// "has shape [4, 3]", "is a table of 3 units"
std::string shape_words(const VariableSpec& v) {
  return v.is_table() ? fmt::format("is a table of {} units", v.shape[1])
                      : fmt::format("has shape {}", v.full_shape().str());
}

// Row i of a dense variable is that of id i.
std::string problem_of_rows(const VariableSpec& saved, const VariableSpec& wanted) {
  const VariableSpec &table = saved.is_table() ? saved : wanted, &dense = saved.is_table() ? wanted : saved;
  if (table.table->ids == IdType::string) {
    return fmt::format("{} in the checkpoint and {} in the model, and rows of texts have no numbers",
                       saved.is_table() ? "is a table of string ids" : "is no table",
                       wanted.is_table() ? "is a table of string ids" : "is no table");
  }
  const Shape& shape = dense.full_shape();
  if (shape.rank() == 2 && shape[1] == table.shape[1]) return "";
  return fmt::format("{} in the checkpoint and {} in the model", shape_words(saved), shape_words(wanted));
}

std::string problem_of_shapes(const VariableSpec& saved, const VariableSpec& wanted) {
  if (saved.is_table() != wanted.is_table()) return problem_of_rows(saved, wanted);
  if (saved.full_shape() == wanted.full_shape()) return "";
  if (saved.is_table())
    return fmt::format("has {} units in the checkpoint and {} in the model", saved.shape[1], wanted.shape[1]);
  return fmt::format("has shape {} in the checkpoint and {} in the model", saved.full_shape().str(),
                     wanted.full_shape().str());
}

// "" or what makes the values of `saved` no values of `wanted`.
std::string problem_of(const VariableSpec& saved, const VariableSpec& wanted) {
  const std::string who =
      saved.full_name() == wanted.full_name()
          ? fmt::format("variable \"{}\"", wanted.full_name())
          : fmt::format("variable \"{}\" for \"{}\"", saved.full_name(), wanted.full_name());
  std::string text;
  const auto add = [&](const std::string& problem) {
    if (!problem.empty()) text += fmt::format("{} {}", text.empty() ? who : ", and", problem);
  };
  if (saved.is_table() && wanted.is_table() && saved.table->ids != wanted.table->ids) {
    add(fmt::format("has {} ids in the checkpoint and {} in the model", to_string(saved.table->ids),
                    to_string(wanted.table->ids)));
  }
  add(problem_of_shapes(saved, wanted));
  if (saved.dtype != wanted.dtype)
    add(fmt::format("is {} in the checkpoint and {} in the model", to_string(saved.dtype),
                    to_string(wanted.dtype)));
  return text;
}

}  // namespace

WarmStart::WarmStart(const std::string& path, const Manifest& manifest, const VariableTable& model,
                     const AssignmentMap& map)
    : result_(map.resolve(whole_names(model), whole_names(manifest.variables))) {
  std::map<std::string_view, const VariableSpec*> saved, wanted;
  for (const VariableSpec& v : manifest.variables.variables()) saved.try_emplace(v.full_name(), &v);
  for (const VariableSpec& v : model.variables()) wanted.try_emplace(v.full_name(), &v);
  std::vector<std::string> problems;
  std::set<std::string_view> taken;
  for (const std::string& name : whole_names(model)) {
    const auto source = result_.sources.find(name);
    if (source == result_.sources.end()) continue;
    taken.insert(source->second);
    if (std::string p = problem_of(*saved.at(source->second), *wanted.at(name)); !p.empty())
      problems.push_back(std::move(p));
  }
  for (const std::string& name : whole_names(manifest.variables)) {
    if (!taken.contains(name)) extra_.push_back(name);
  }
  refuse(path, "the model", problems,
         "nothing was assigned; leave these variables out of warm_start.map, or make them alike");
}

std::optional<VariableSpec> WarmStart::saved_as(const VariableSpec& variable) const {
  const auto source = result_.sources.find(variable.full_name());
  if (source == result_.sources.end()) return std::nullopt;
  return renamed(variable, source->second);
}

}  // namespace varscope
