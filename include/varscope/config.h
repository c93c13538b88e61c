#pragma once

// The config of a job: JobConfig, a struct with a member for every key; load_config reads one from YAML, with
// overrides as `--set` takes them, and checks it.

#include "common/config/job_config.h"
#include "launch/job/load_config.h"
