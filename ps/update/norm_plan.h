#pragma once

#include <cstdint>
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
