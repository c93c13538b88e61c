#pragma once

#include "common/transport/run_requests.h"

namespace varscope {

// From now on SIGUSR1 asks this process for a checkpoint, and SIGUSR2 for a checkpoint and the end; returns
// where. mpirun hands both on to every rank. The handlers do nothing but set the request. The first SIGINT
// (Ctrl-C) asks as SIGUSR2 and says so in a line; the second one ends the process. SIGHUP (the terminal is
// gone) asks as SIGUSR2, unless it was ignored (nohup).
RunRequests& watch_user_signals();
// The same request as by SIGUSR2; async-signal-safe.
void ask_to_stop();
// SIGTERM too asks for a checkpoint and the end. For jobs without mpirun; under it see FailureReport.
void stop_on_sigterm();

// For every command: a file that grows beyond its limit (ulimit -f) is an error of that write, EFBIG, instead
// of the end of the process by SIGXFSZ. And no file of ours shall get the number of a standard stream that
// was closed.
void be_robust();
// For training: a standard output or error that nobody reads any more (| head) ends no job.
void ignore_sigpipe();

}  // namespace varscope
