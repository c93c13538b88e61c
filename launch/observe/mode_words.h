#pragma once

#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "common/variables/variable_table.h"

namespace varscope {

// "BSP"; "SSP(2), dealing dynamic"; "ASP, dealing static"; "BSP, 1 backup worker".
std::string mode_text(const StepRule& rule);

// What the rule promises of a run and what it does not (docs/consistency.md), and what to know of momentum:
// lines of a header, "  label        text". `rule` is that of the job (launch/job/step_rules.h).
std::vector<std::string> mode_lines(const JobConfig& job, const StepRule& rule);

// The same of compressed variables: how they travel, when what is kept back of their gradients is sent, and
// what to know of momentum. Nothing where none are compressed.
std::vector<std::string> compression_lines(const JobConfig& job, const StepRule& rule,
                                           const VariableTable& variables);

}  // namespace varscope
