#include "common/placement/norm_plan.h"

#include <algorithm>
#include <cmath>

namespace varscope {
namespace {

// Indices of the variables that `wanted`, by name.
template <class Wanted>
std::vector<int> by_name(const VariableTable& variables, Wanted wanted) {
  std::vector<int> indices;
  for (std::size_t v = 0; v < variables.size(); ++v) {
    if (wanted(variables[v])) indices.push_back(static_cast<int>(v));
  }
  std::ranges::sort(indices, {},
                    [&](int v) -> const std::string& { return variables[static_cast<std::size_t>(v)].name; });
  return indices;
}

}  // namespace

NormPlan NormPlan::of_gradients(const VariableTable& variables, const ClipConfig& clip, int n_servers) {
  NormPlan plan(variables.size(), n_servers);
  if (!clip.needs_norms()) return plan;
  const Constraint rule = Constraint::max_norm(clip.limit);
  const bool is_global = clip.type == ClipType::global_norm;
  if (is_global) plan.add_norm("", rule, 1);
  std::map<std::string, int> norm_of;
  for (int v : by_name(variables, [](const VariableSpec& spec) { return spec.trainable; })) {
    const VariableSpec& spec = variables[static_cast<std::size_t>(v)];
    if (is_global) {
      plan.add_terms(spec, v, 0, Groups::one);
      continue;
    }
    const auto [it, is_new] = norm_of.try_emplace(spec.full_name(), static_cast<int>(plan.norms_.size()));
    if (is_new) plan.add_norm(spec.full_name(), rule, 1);
    plan.add_terms(spec, v, it->second, Groups::one);
  }
  return plan;
}

NormPlan NormPlan::of_values(const VariableTable& variables, int n_servers) {
  NormPlan plan(variables.size(), n_servers);
  std::map<std::string, int> norm_of;
  const auto wanted = [](const VariableSpec& v) {
    return v.trainable && v.constraint.needs_norms() && !v.is_table();
  };
  for (int v : by_name(variables, wanted)) {
    const VariableSpec& spec = variables[static_cast<std::size_t>(v)];
    const Shape& full = spec.full_shape();
    const Groups groups = groups_of(spec);
    const std::int64_t n = groups == Groups::one    ? 1
                           : groups == Groups::rows ? full[0]
                                                    : full[full.rank() - 1];
    const auto [it, is_new] = norm_of.try_emplace(spec.full_name(), static_cast<int>(plan.norms_.size()));
    if (is_new) plan.add_norm(spec.full_name(), spec.constraint, n);
    plan.add_terms(spec, v, it->second, groups);
  }
  return plan;
}

NormPlan::Groups NormPlan::groups_of(const VariableSpec& variable) {
  const std::size_t rank = variable.full_shape().rank();
  if (variable.constraint.is_by_row() && rank == 2) return Groups::rows;
  return rank > 1 ? Groups::last_axis : Groups::one;
}

int NormPlan::add_norm(const std::string& name, const Constraint& rule, std::int64_t n_groups) {
  norms_.push_back({name, rule, n_groups, n_groups_});
  n_groups_ += n_groups;
  return static_cast<int>(norms_.size()) - 1;
}

void NormPlan::add_parts(const VariableSpec& table, int index, int norm) {
  first_term_[static_cast<std::size_t>(index)] = static_cast<std::int64_t>(terms_.size());
  for (int part = 0; part < table.table->parts; ++part) {
    const ServerId server = table.owner(part, n_servers());
    terms_.push_back({index, part, norm, 0, 1, server, n_sums_[server]++});
  }
}

void NormPlan::add_terms(const VariableSpec& variable, int index, int norm, Groups groups) {
  if (variable.is_table()) return add_parts(variable, index, norm);
  const std::vector<Slice> slices = slice_variable(variable.shape, variable.dtype);
  const std::size_t axis = groups == Groups::rows ? 0 : variable.shape.rank() - 1;  // that the groups are of
  const std::int64_t part_begin =
      groups != Groups::one && variable.is_part() ? variable.part.offset[axis] : 0;
  if (!slices.empty())
    first_term_[static_cast<std::size_t>(index)] = static_cast<std::int64_t>(terms_.size());
  for (std::size_t i = 0; i < slices.size(); ++i) {
    const ServerId server = variable.owner(static_cast<std::int64_t>(i), n_servers());
    std::int64_t& place = n_sums_[server];
    NormTerm term{index, static_cast<std::int64_t>(i), norm, 0, 1, server, place};
    if (groups != Groups::one) {
      term.first_group = part_begin + slices[i].offset[axis];
      term.n_groups = slices[i].extent[axis];
    }
    if (groups == Groups::rows) term.row_length = slices[i].extent[1];
    place += term.n_groups;
    terms_.push_back(term);
  }
}

const NormTerm* NormPlan::find(int variable, std::int64_t slice) const {
  const std::int64_t first = first_term_[static_cast<std::size_t>(variable)];
  return first < 0 ? nullptr : &terms_[static_cast<std::size_t>(first + slice)];
}

NormPlan::Factors NormPlan::factors(const SumOf& sum_of) const {
  Factors result{std::vector<double>(static_cast<std::size_t>(n_groups_), 0), {}};
  for (const NormTerm& term : terms_) {
    double* const sums = &result.of_groups[place_of_factors(term)];
    for (std::int64_t g = 0; g < term.n_groups; ++g) sums[g] += sum_of(term, g);
  }
  for (const Norm& norm : norms_) {
    for (std::int64_t g = norm.place; g < norm.place + norm.n_groups; ++g) {
      double& group = result.of_groups[static_cast<std::size_t>(g)];
      if (std::isfinite(group)) {
        group = norm.rule.scale(std::sqrt(group));
      } else {
        result.bad = group;
        group = 1;
      }
    }
  }
  return result;
}

std::map<std::string, double> NormPlan::not_finite(const VariableTable& variables, const SumOf& sum_of,
                                                   double bad) const {
  std::map<std::string, double> found;
  for (const NormTerm& term : terms_) {
    for (std::int64_t g = 0; g < term.n_groups; ++g) {
      if (const double sum = sum_of(term, g); !std::isfinite(sum))
        found.emplace(variables[static_cast<std::size_t>(term.variable)].full_name(), sum);
    }
  }
  if (found.empty()) found.emplace("", bad);
  return found;
}

}  // namespace varscope
