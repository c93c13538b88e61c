#include "bench/cpu_hogs.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace varscope::bench {
namespace {

[[noreturn]] void burn(pid_t parent, HogSession session) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);  // it died before the line above
  if (session == HogSession::own) setsid();
  for (volatile unsigned turns = 0;;) turns = turns + 1;
}

}  // namespace

CpuHogs::CpuHogs(int n, HogSession session) {
  const pid_t parent = getpid();
  for (int i = 0; i < n; ++i) {
    const pid_t pid = fork();
    if (pid == 0) burn(parent, session);
    if (pid < 0) {
      const int error = errno;
      end_all();
      throw std::system_error(error, std::generic_category(), "fork");
    }
    pids_.push_back(pid);
  }
}

CpuHogs::~CpuHogs() { end_all(); }

void CpuHogs::end_all() {
  for (const pid_t pid : pids_) kill(pid, SIGKILL);
  for (const pid_t pid : pids_) {
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  pids_.clear();
}

}  // namespace varscope::bench
