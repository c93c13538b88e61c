#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/config/job_config.h"
#include "common/variables/constraint.h"
#include "common/variables/variable_table.h"

namespace varscope {

// One slice's share of a norm: sums of squares over n_groups groups. Element i of the slice counts for group
// first_group + i mod n_groups of the norm, or, where groups are rows, first_group + i / row_length. Of a
// table a slice is a part, and all its rows are one group.
struct NormTerm {
  int variable;        // index into the VariableTable
  std::int64_t slice;  // index in slice_variable(); of a table the part
  int norm;            // index into NormPlan::norms()
  std::int64_t first_group;
  std::int64_t n_groups;
  ServerId server;
  std::int64_t place;           // of the first sum among all sums of its server
  std::int64_t row_length = 0;  // of what the slice has of each row; 0: groups are no rows
};

// Euclidean norms that reach over slices, hence over servers.
struct Norm {
  std::string name;  // of the variable; "" is the norm over all of them
  Constraint rule;   // what the norm is held against; clipping is max_norm
  std::int64_t n_groups = 1;
  std::int64_t place = 0;  // of the first group among all groups
};

// Which slices make which norms, and in which order their sums of squares are added: by (variable name,
// slice or part), so that a norm's bits do not depend on servers, workers or time. A pure function of
// (variables, clip, number of servers): every server makes the same one, and nothing needs to be agreed on. A
// value.
class NormPlan {
 public:
  // Norms of the mean gradients of the trained variables for optimizer.clip: one per variable, over all of
  // its parts, or one of all. Empty unless clip.needs_norms().
  static NormPlan of_gradients(const VariableTable& variables, const ClipConfig& clip, int n_servers);
  // Norms of values after the update, for constraints of trained variables: over all axes but the last, or of
  // each row, over all parts of a variable. Empty when there are none. Without tables, whose rows are whole
  // where they are updated (ps/tables/row_norms.h).
  static NormPlan of_values(const VariableTable& variables, int n_servers);

  bool empty() const { return terms_.empty(); }
  const std::vector<Norm>& norms() const { return norms_; }
  const std::vector<NormTerm>& terms() const { return terms_; }  // in the order of addition
  // nullptr when the slice has no part in any norm.
  const NormTerm* find(int variable, std::int64_t slice) const;
  std::int64_t n_sums(ServerId server) const { return n_sums_[server]; }
  std::int64_t n_groups() const { return n_groups_; }  // of all norms
  IdRange<ServerId> servers() const { return n_sums_.ids(); }
  int n_servers() const { return static_cast<int>(n_sums_.size()); }

  // A term's sum of squares over group `group` of its n_groups.
  using SumOf = std::function<double(const NormTerm& term, std::int64_t group)>;
  struct Factors {
    std::vector<double> of_groups;  // by Norm::place; what has the norm is multiplied by it
    std::optional<double> bad;      // a norm's sum that is not finite; there is none
  };
  // Adds the sums in the order of terms(). A norm that is not finite scales nothing, its factors are 1: by
  // such a factor one bad element would spread over all that has a part in the norm.
  Factors factors(const SumOf& sum_of) const;
  // The variables that a norm which is not finite is due to, by full name, with a sum that is not; "" with
  // `bad` where only all of them together are too large.
  std::map<std::string, double> not_finite(const VariableTable& variables, const SumOf& sum_of,
                                           double bad) const;
  // Of a term's first group in Factors::of_groups.
  std::size_t place_of_factors(const NormTerm& term) const {
    return static_cast<std::size_t>(norms_[static_cast<std::size_t>(term.norm)].place + term.first_group);
  }

 private:
  NormPlan(std::size_t n_variables, int n_servers) : first_term_(n_variables, -1), n_sums_(n_servers, 0) {}
  // What elements are grouped by.
  enum class Groups : std::uint8_t { one, last_axis, rows };
  static Groups groups_of(const VariableSpec& variable);
  int add_norm(const std::string& name, const Constraint& rule, std::int64_t n_groups);
  void add_terms(const VariableSpec& variable, int index, int norm, Groups groups);
  void add_parts(const VariableSpec& table, int index, int norm);

  std::vector<Norm> norms_;
  std::vector<NormTerm> terms_;
  std::vector<std::int64_t> first_term_;  // by variable; -1: none
  IdVector<ServerId, std::int64_t> n_sums_;
  std::int64_t n_groups_ = 0;
};

}  // namespace varscope
