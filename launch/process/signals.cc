#include "launch/process/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "launch/process/failure.h"

namespace varscope {
namespace {

RunRequests g_requests;  // a handler gets no argument of ours
std::atomic_flag g_interrupted;

void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

bool is_ignored(int signal) {
  struct sigaction now {};
  return sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

void on_save_signal(int) { g_requests.ask(kRequestSave); }
void on_stop_signal(int) { g_requests.ask(kRequestStop); }

void on_interrupt(int signal) {
  const int saved = errno;
  if (g_interrupted.test_and_set()) {
    FailureReport::say_ended(signal);
    set_handler(signal, SIG_DFL);
    raise(signal);  // when this handler has returned: whoever waits for the process sees what ended it
  } else {
    FailureReport::say_interrupted(signal);
    g_requests.ask(kRequestStop);
  }
  errno = saved;
}

// More than one may come when a terminal closes.
void on_hangup(int signal) {
  const int saved = errno;
  if (!g_interrupted.test_and_set()) FailureReport::say_interrupted(signal);
  g_requests.ask(kRequestStop);
  errno = saved;
}

}  // namespace

RunRequests& watch_user_signals() {
  set_handler(SIGUSR1, on_save_signal);
  set_handler(SIGUSR2, on_stop_signal);
  set_handler(SIGINT, on_interrupt);
  if (!is_ignored(SIGHUP)) set_handler(SIGHUP, on_hangup);
  return g_requests;
}

void ask_to_stop() { g_requests.ask(kRequestStop); }

void stop_on_sigterm() { set_handler(SIGTERM, on_stop_signal); }

void be_robust() {
  set_handler(SIGXFSZ, SIG_IGN);
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    // The lowest free number is this one.
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
  }
}

void ignore_sigpipe() { set_handler(SIGPIPE, SIG_IGN); }

}  // namespace varscope
