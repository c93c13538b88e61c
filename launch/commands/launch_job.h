#pragma once

#include <string>
#include <vector>

namespace varscope {

struct LaunchOptions {
  std::string script;               // the launch script's name: begins each line of ours
  std::string go_on;                // the command that goes on with the job; "": nothing is told of it
  std::vector<std::string> mpirun;  // mpirun and its options
  std::string program;              // varscope, as the ranks are to start it
  std::vector<std::string> words;   // of its command line: train CONFIG ...
};

// `varscope launch`: runs a job under mpirun for a launch script, and returns its exit code.
//   Output: what the job prints is shown as it comes, also the line of progress on a terminal. A reader that
//     goes away (| head) does not end the job.
//   Failures: what mpirun, MPI or ssh refuse, which rank or host has died, in one message; then the command
//     that goes on, where there is a checkpoint (launch/process/mpirun_report.h).
//   Signals: the first SIGINT or SIGTERM becomes mpirun's SIGUSR2 (a checkpoint, and the end with 75), the
//     second one ends the job, the third one kills mpirun. SIGHUP becomes SIGUSR2, unless it is ignored.
//     SIGQUIT ends the job. SIGUSR1 and SIGUSR2 are handed on. Ctrl-Z stops this process
//     alone: the job goes on.
// Throws Error(config) when mpirun cannot be started, Error(io).
int launch_job(const LaunchOptions& options);

// Open MPI's daemons and ranks share memory through files; where the limit for files is lower than these,
// they hang. Throws Error(config).
void check_file_limit();

}  // namespace varscope
