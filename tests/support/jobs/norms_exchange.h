#pragma once

#include <vector>

#include "tests/support/jobs/ps_exchange.h"

// Exchanges whose updates need norms over slices and servers, and what must come of them.
namespace varscope::testing {

VariableSpec with_constraint(VariableSpec v, const Constraint& constraint);

// Every constraint on every rank; slices of rows, of columns, and of parts; tables with norms of rows, which
// slices and parts cut; variables without any.
VariableTable constrained_table();
VariableTable without_constraints(const VariableTable& table);

// Momentum: no division by small numbers, so that double and float stay near each other.
Exchange norms_exchange(ClipType clip, double limit, const VariableTable& variables);

// The same run in double precision, on whole variables, straight from the definitions.
class NormsReference {
 public:
  NormsReference(const Exchange& e, int n_leaves);
  const std::vector<std::vector<double>>& values() const { return values_; }

 private:
  const VariableSpec& spec(std::size_t v) const { return e_.variables[v]; }
  void run_step(int step);
  void clip(std::vector<std::vector<double>>& gradients) const;
  void update(std::size_t v, const std::vector<double>& gradient);
  void constrain();  // by whole variable and column, or row

  const Exchange& e_;
  int n_leaves_;
  std::vector<std::vector<double>> values_, momentum_;
};

}  // namespace varscope::testing
