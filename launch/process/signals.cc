#include "launch/process/signals.h"

#include <signal.h>

namespace varscope {
namespace {

RunRequests g_requests;  // a handler gets no argument of ours

void on_save_signal(int) { g_requests.ask(kRequestSave); }
void on_stop_signal(int) { g_requests.ask(kRequestStop); }

void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

}  // namespace

RunRequests& watch_user_signals() {
  set_handler(SIGUSR1, on_save_signal);
  set_handler(SIGUSR2, on_stop_signal);
  return g_requests;
}

void ask_to_stop() { g_requests.ask(kRequestStop); }

void stop_on_sigterm() { set_handler(SIGTERM, on_stop_signal); }

}  // namespace varscope
