#include "launch/failure.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace varscope {
namespace {

// Plain memory, because a signal handler reads it.
char g_who[256] = "";
char g_file[4096] = "";
char g_sigterm_line[4096] = "";
std::size_t g_sigterm_length = 0;
std::atomic_flag g_reporting;

template <std::size_t N>
void set(char (&to)[N], const std::string& from) {
  std::strncpy(to, from.c_str(), N - 1);
}

// True for the first rank that asks; async-signal-safe.
bool claim(const char* line, std::size_t length) {
  if (g_file[0] == '\0') return true;
  const int fd = open(g_file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return errno != EEXIST;
  [[maybe_unused]] const ssize_t n = write(fd, line, length);
  close(fd);
  return true;
}

void report(const char* line, std::size_t length) {
  if (!claim(line, length)) return;
  // A pipe that is full of step lines may refuse for a moment; nobody waits longer than the nap below.
  for (int tries = 0; tries < 200; ++tries) {
    const ssize_t n = write(STDERR_FILENO, line, length);
    if (n >= 0 || (errno != EAGAIN && errno != EINTR)) return;
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

// mpirun sends SIGTERM twice, and any thread may get it: the process must not end under the hands of the one
// that speaks. And it sends SIGKILL to all as soon as the first rank has ended (its sleep() before SIGKILL is
// cut short by SIGCHLD): nobody ends before the one that speaks can have spoken.
void handle_sigterm(int) {
  if (g_reporting.test_and_set()) return;
  report(g_sigterm_line, g_sigterm_length);
  const timespec nap{0, 300'000'000};
  nanosleep(&nap, nullptr);
  _exit(128 + SIGTERM);
}

std::string line_of(const std::string& message) {
  std::string text = message;
  for (char& c : text) {
    if (c == '\r') c = ' ';
  }
  return std::string("varscope: ") + g_who + (g_who[0] != '\0' ? ": " : "") + text + "\n";
}

}  // namespace

void FailureReport::set_who(const std::string& who) { set(g_who, who); }
void FailureReport::set_file(const std::string& file) { set(g_file, file); }

void FailureReport::print(const std::string& message) {
  const std::string line = line_of(message);
  g_reporting.test_and_set();  // the process is about to end: SIGTERM shall not be quicker
  report(line.data(), line.size());
}

void FailureReport::on_sigterm(const std::string& message) {
  set(g_sigterm_line, line_of(message));
  g_sigterm_length = std::strlen(g_sigterm_line);
  struct sigaction action {};
  action.sa_handler = handle_sigterm;
  sigaction(SIGTERM, &action, nullptr);
}

void FailureReport::ignore_sigterm() {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace varscope
