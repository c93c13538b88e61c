#pragma once

#include "common/transport/run_requests.h"

namespace varscope {

// From now on SIGUSR1 asks this process for a checkpoint, and SIGUSR2 for a checkpoint and the end; returns
// where. mpirun hands both on to every rank. The handlers do nothing but set the request.
RunRequests& watch_user_signals();
// The same request as by SIGUSR2; async-signal-safe.
void ask_to_stop();
// SIGTERM too asks for a checkpoint and the end. For jobs without mpirun; under it see FailureReport.
void stop_on_sigterm();

}  // namespace varscope
