#include "launch/signals.h"

#include <signal.h>

namespace varscope {
namespace {

RunRequests g_requests;  // a handler gets no argument of ours

void ask_to_save(int) { g_requests.ask(kRequestSave); }
void ask_to_stop(int) { g_requests.ask(kRequestStop); }

void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

}  // namespace

RunRequests& watch_user_signals() {
  set_handler(SIGUSR1, ask_to_save);
  set_handler(SIGUSR2, ask_to_stop);
  return g_requests;
}

void stop_on_sigterm() { set_handler(SIGTERM, ask_to_stop); }

}  // namespace varscope
