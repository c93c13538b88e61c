#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "bench/program.h"

namespace varscope::bench {

inline constexpr int kServerCore = 0, kClientCore = 1;

// Processor time of all threads of a process, since its start.
double cpu_seconds_of(pid_t pid);

// A program that says "listening on http://127.0.0.1:PORT", on the servers' core; ended with this.
class ServerProcess {
 public:
  // at_once: it is killed. by_itself: it gets SIGTERM, and may end what it has started.
  enum class End : std::uint8_t { at_once, by_itself };
  // Waits until it listens. Throws std::runtime_error with what it printed when it ends before that, or does
  // not within `most_s` seconds.
  explicit ServerProcess(const Args& command, double most_s = 60, End end = End::at_once);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  int port() const { return port_; }
  // Waits until GET `path` is answered with 200. Throws as the constructor does.
  void wait_until_ready(const std::string& path = "/v2/health/ready", double most_s = 60) const;
  double cpu_seconds() const { return cpu_seconds_of(pid_); }
  // The number of the first line of /metrics that begins so; nothing where there is none.
  std::optional<double> metric(const std::string& name) const;

 private:
  void stop() const;
  [[noreturn]] void give_up(const std::string& why) const;
  ScratchDir dir_;
  std::string name_;
  End end_;
  pid_t pid_ = -1;
  int port_ = 0;
};

}  // namespace varscope::bench
