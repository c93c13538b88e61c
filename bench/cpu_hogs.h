#pragma once

#include <sys/types.h>

#include <vector>

namespace varscope::bench {

// The session a process belongs to. Linux shares the CPU between sessions first (autogroups), then between
// the processes of one.
enum class HogSession { ours, own };

// Processes that burn the CPU and never sleep, from construction to destruction. The destructor ends and
// reaps them; should the thread that made them die without it, killed by a signal, the kernel kills them.
// Throws std::system_error when one cannot be started. Make it before the process has other threads.
class CpuHogs {
 public:
  explicit CpuHogs(int n, HogSession session = HogSession::ours);
  ~CpuHogs();
  CpuHogs(const CpuHogs&) = delete;
  CpuHogs& operator=(const CpuHogs&) = delete;
  const std::vector<pid_t>& pids() const { return pids_; }

 private:
  void end_all();
  std::vector<pid_t> pids_;
};

}  // namespace varscope::bench
