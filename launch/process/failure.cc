#include "launch/process/failure.h"

#include <fcntl.h>
#include <poll.h>
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
char g_sigterm_file[4096] = "";
char g_sigterm_line[4096] = "";
std::size_t g_sigterm_length = 0;
void (*g_sigterm_then)() = nullptr;
std::atomic_flag g_reporting;

template <std::size_t N>
void set(char (&to)[N], const std::string& from) {
  std::strncpy(to, from.c_str(), N - 1);
}

// True for the first rank that asks; async-signal-safe.
bool claim(const char* file, const char* line, std::size_t length) {
  if (file[0] == '\0') return true;
  const int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return errno != EEXIST;
  [[maybe_unused]] const ssize_t n = write(fd, line, length);
  close(fd);
  return true;
}

// In a signal handler. The first of all ranks speaks.
void report_in_handler(const char* file, const char* line, std::size_t length) {
  if (!claim(file, line, length)) return;
  // A pipe may be full of step lines: mpirun, for one, reads nothing between the signals with which it ends a
  // job. Nobody waits longer than the nap below; the file has the line.
  for (int tries = 0; tries < 200; ++tries) {
    pollfd out{STDERR_FILENO, POLLOUT, 0};
    if (poll(&out, 1, 0) == 1 && write(STDERR_FILENO, line, length) >= 0) return;
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

// mpirun sends SIGTERM twice, and any thread may get it: the process must not end under the hands of the one
// that speaks. And it sends SIGKILL to all as soon as the first rank has ended (its sleep() before SIGKILL is
// cut short by SIGCHLD): nobody ends before the one that speaks can have spoken.
void end_on_sigterm(int) {
  if (g_reporting.test_and_set()) return;
  report_in_handler(g_file, g_sigterm_line, g_sigterm_length);
  const timespec nap{0, 300'000'000};
  nanosleep(&nap, nullptr);
  _exit(128 + SIGTERM);
}

void go_on_after_sigterm(int signal) {
  const int saved = errno;
  if (g_file[0] != '\0' && access(g_file, F_OK) == 0)
    end_on_sigterm(signal);  // a rank has failed and said why
  if (!g_reporting.test()) report_in_handler(g_sigterm_file, g_sigterm_line, g_sigterm_length);
  g_sigterm_then();
  errno = saved;
}

void set_sigterm(const std::string& line, void (*handler)(int)) {
  set(g_sigterm_line, line);
  g_sigterm_length = std::strlen(g_sigterm_line);
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
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
void FailureReport::set_file(const std::string& stem) {
  set(g_file, stem + ".txt");
  set(g_sigterm_file, stem + "-sigterm.txt");
}

void FailureReport::print(const std::string& message) {
  const std::string line = line_of(message);
  g_reporting.test_and_set();  // the process is about to end: SIGTERM shall not be quicker
  if (!claim(g_file, line.data(), line.size())) return;
  // However slow the reader is: for most errors there is no file.
  while (write(STDERR_FILENO, line.data(), line.size()) < 0 && (errno == EAGAIN || errno == EINTR)) {
    pollfd out{STDERR_FILENO, POLLOUT, 0};
    poll(&out, 1, 1000);
  }
}

void FailureReport::on_sigterm(const std::string& message) { set_sigterm(line_of(message), end_on_sigterm); }

void FailureReport::on_sigterm(const std::string& message, void (*then)()) {
  g_sigterm_then = then;
  set_sigterm(line_of(message), go_on_after_sigterm);
}

void FailureReport::ignore_sigterm() {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace varscope
