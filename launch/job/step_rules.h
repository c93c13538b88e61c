#pragma once

#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "launch/job/job_setup.h"

namespace varscope {

// Whether recurrent layers carry their state from step to step: then it stays on its worker.
bool carries_state(const WorkerModel& model);

// The rule that the config asks for. `carries_state`: what automatic dealing depends on.
StepRule step_rule_of(const JobConfig& job, bool carries_state);

}  // namespace varscope
