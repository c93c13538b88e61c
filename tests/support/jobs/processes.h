#pragma once

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace varscope::testing {

// From where the descriptor stands to the end. The /proc file of a process that dies meanwhile ends with
// ESRCH (proc(5)): there is nothing in it any more.
inline std::string read_to_end(int descriptor, const std::string& name) {
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t n = read(descriptor, buffer, sizeof buffer);
    if (n > 0) {
      text.append(buffer, static_cast<std::size_t>(n));
    } else if (n == 0) {
      return text;
    } else if (errno == ESRCH) {
      return "";
    } else if (errno != EINTR) {
      throw std::runtime_error("cannot read " + name + ": " + std::strerror(errno));
    }
  }
}

// "" when there is no such file.
inline std::string read_text(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return "";
  try {
    std::string text = read_to_end(descriptor, path);
    close(descriptor);
    return text;
  } catch (...) {
    close(descriptor);
    throw;
  }
}

// What follows the name in /proc/<pid>/stat, from the state's letter on; "" when the process is gone. The
// name may hold blanks and brackets.
inline std::string stat_after_name(pid_t pid) {
  const std::string stat = read_text("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t end = stat.rfind(") ");
  return end == std::string::npos ? "" : stat.substr(end + 2);
}

// A letter of proc(5): R, S, D, T, ...; 'X' when the process is gone, 'Z' until its parent has heard of it.
inline char state_of(pid_t pid) {
  const std::string stat = stat_after_name(pid);
  return stat.empty() ? 'X' : stat[0];
}

inline bool is_alive(pid_t pid) {
  const char state = state_of(pid);
  return state != 'X' && state != 'Z';
}

}  // namespace varscope::testing
