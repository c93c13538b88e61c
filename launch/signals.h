#pragma once

#include "common/run_requests.h"

namespace varscope {

// From now on SIGUSR1 asks this process for a checkpoint, and SIGUSR2 for a checkpoint and the end; returns
// where. mpirun hands both on to every rank. The handlers do nothing but set the request.
RunRequests& watch_user_signals();
// SIGTERM too asks for a checkpoint and the end. Not under mpirun, which sends SIGTERM when a rank has died
// and SIGKILL soon after: there is nobody left to save with.
void stop_on_sigterm();

}  // namespace varscope
