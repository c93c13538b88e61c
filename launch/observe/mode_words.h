#pragma once

#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "common/config/step_rule.h"

namespace varscope {

// "BSP"; "SSP(2), dealing dynamic"; "ASP, dealing static"; "BSP, 1 backup worker".
std::string mode_text(const StepRule& rule);

// What the rule promises of a run and what it does not (docs/consistency.md), and what to know of momentum:
// lines of a header, "  label        text". `rule` is that of the job (launch/job/step_rules.h).
std::vector<std::string> mode_lines(const JobConfig& job, const StepRule& rule);

}  // namespace varscope
