#include "launch/process/failure.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>

#include "common/transport/mpi/mpi_job.h"
#include "launch/process/launcher.h"
#include "launch/process/signals.h"

namespace varscope {
namespace {

// Plain memory, because a signal handler reads it.
char g_who[256] = "";
char g_file[4096] = "";
char g_sigterm_file[4096] = "";
char g_interrupt_file[4096] = "";
char g_latest[4096] = "";
char g_go_on[16384] = "";  // "go on with: COMMAND"
bool g_is_resumed = false;
bool g_tells_go_on = false;
OnSigterm g_on_sigterm = OnSigterm::ends;
bool g_all_are_here = true;
std::vector<Neighbour> g_neighbours;  // not changed once SIGTERM is handled
std::atomic_flag g_reporting;
std::atomic<bool> g_has_told_go_on = false;

constexpr const char* kGoOn = "go on with: ";

template <std::size_t N>
void set(char (&to)[N], const std::string& from) {
  std::strncpy(to, from.c_str(), N - 1);
  to[N - 1] = '\0';
}

// A line that is put together in a signal handler.
class Line {
 public:
  Line() {
    add("varscope: ");
    add(g_who);
    if (g_who[0] != '\0') add(": ");
  }
  void add(const char* text) {
    const std::size_t n = std::min(std::strlen(text), sizeof text_ - 1 - n_);  // room for the line's end
    std::memcpy(text_ + n_, text, n);
    n_ += n;
  }
  void end() { text_[n_++] = '\n'; }
  const char* text() const { return text_; }
  std::size_t size() const { return n_; }

 private:
  char text_[20000];
  std::size_t n_ = 0;
};

bool has_go_on() {
  return g_tells_go_on && g_go_on[0] != '\0' && (g_is_resumed || access(g_latest, F_OK) == 0);
}

void add_go_on(Line& line) {
  if (!has_go_on()) return;
  line.add("; ");
  line.add(g_go_on);
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

void nap_ms(long ms) {
  const timespec nap{0, ms * 1'000'000};
  nanosleep(&nap, nullptr);
}

// In a signal handler. The first of all ranks speaks.
void report_in_handler(const char* file, const Line& line) {
  if (!claim(file, line.text(), line.size())) return;
  // A pipe may be full of step lines: mpirun, for one, reads nothing between the signals with which it ends a
  // job. Nobody waits longer than the nap below; the file has the line.
  for (int tries = 0; tries < 200; ++tries) {
    pollfd out{STDERR_FILENO, POLLOUT, 0};
    if (poll(&out, 1, 0) == 1 && write(STDERR_FILENO, line.text(), line.size()) >= 0) return;
    nap_ms(1);
  }
}

// Gone, or dead and not yet heard of by its parent. In a signal handler.
bool is_dead(pid_t pid) {
  if (kill(pid, 0) != 0) return errno == ESRCH;
  char path[32] = "/proc/", digits[16], stat[512];
  int n = 0;
  for (auto rest = static_cast<unsigned>(pid); rest > 0 && n < 15; rest /= 10)
    digits[n++] = static_cast<char>('0' + rest % 10);
  char* to = path + std::strlen(path);
  while (n > 0) *to++ = digits[--n];
  std::memcpy(to, "/stat", 6);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT;
  const ssize_t size = read(fd, stat, sizeof stat);
  close(fd);
  // "pid (name) S ...": the name may hold anything.
  for (ssize_t i = size - 3; i > 0; --i) {
    if (stat[i] == ')') return stat[i + 2] == 'Z' || stat[i + 2] == 'X';
  }
  return false;
}

// Names the dead among the neighbours; false when all of them live.
bool add_dead(Line& line) {
  constexpr int kMostNamed = 4;
  int found = 0;
  for (const Neighbour& n : g_neighbours) {
    if (!is_dead(n.pid)) continue;
    if (++found > kMostNamed) break;
    if (found > 1) line.add(", ");
    line.add(n.who.c_str());
  }
  if (found > kMostNamed) line.add(" and more");
  if (found > 0)
    line.add(found == 1 ? " has died (killed, crashed or out of memory)"
                        : " have died (killed, crashed or out of memory)");
  return found > 0;
}

// The others wait for whoever can name the dead.
void add_reason(Line& line) {
  if (add_dead(line)) return;
  const bool saves = g_on_sigterm == OnSigterm::saves;
  line.add(saves ? "got SIGTERM: " : "ended by SIGTERM: ");
  if (g_all_are_here) {
    line.add(saves ? "the job is to end; it saves a checkpoint first, if it is left the time"
                   : "the launcher ended the job");
    return;
  }
  nap_ms(100);
  line.add(
      saves
          ? "a rank on another host has died, or the job is to end (then it saves a checkpoint, if it is left "
            "the time)"
          : "a rank on another host has died, or the launcher ended the job");
}

Line sigterm_line() {
  Line line;
  add_reason(line);
  add_go_on(line);
  line.end();
  return line;
}

// mpirun sends SIGTERM twice, and any thread may get it: the process must not end under the hands of the one
// that speaks. And it sends SIGKILL to all as soon as the first rank has ended (its sleep() before SIGKILL is
// cut short by SIGCHLD): nobody ends before the one that speaks can have spoken.
void end_on_sigterm() {
  if (g_reporting.test_and_set()) return;
  report_in_handler(g_file, sigterm_line());
  nap_ms(300);
  _exit(128 + SIGTERM);
}

void go_on_after_sigterm() {
  const int saved = errno;
  if (g_file[0] != '\0' && access(g_file, F_OK) == 0) end_on_sigterm();  // a rank has failed and said why
  if (!g_reporting.test()) {
    g_has_told_go_on = has_go_on();
    report_in_handler(g_sigterm_file, sigterm_line());
  }
  ask_to_stop();
  errno = saved;
}

void handle_sigterm(int) { g_on_sigterm == OnSigterm::saves ? go_on_after_sigterm() : end_on_sigterm(); }

const char* name_of(int signal) { return signal == SIGHUP ? "SIGHUP" : "SIGINT"; }

std::string line_of(const std::string& message) {
  std::string text = message;
  std::replace(text.begin(), text.end(), '\r', ' ');
  return std::string("varscope: ") + g_who + (g_who[0] != '\0' ? ": " : "") + text + "\n";
}

}  // namespace

void FailureReport::set_who(const std::string& who) { set(g_who, who); }
void FailureReport::set_file(const std::string& stem) {
  set(g_file, stem + ".txt");
  set(g_sigterm_file, stem + "-sigterm.txt");
  if (launched_by_mpi())
    set(g_interrupt_file, stem + "-interrupt.txt");  // else nobody is there to settle it with
}

void FailureReport::set_go_on(const std::string& command, const std::string& latest, bool is_resumed) {
  g_tells_go_on = false;
  // A command that does not fit is no command.
  const bool fits = !command.empty() && command.size() + std::strlen(kGoOn) < sizeof g_go_on;
  set(g_go_on, fits ? kGoOn + command : "");
  set(g_latest, latest);
  g_is_resumed = is_resumed;
  g_tells_go_on = !has_launcher();
}

std::string FailureReport::go_on() { return has_go_on() ? g_go_on : ""; }

bool FailureReport::has_told_go_on() {
  if (g_has_told_go_on) return true;
  std::ifstream in(g_sigterm_file);  // another rank may have been the one that spoke
  const std::string said{std::istreambuf_iterator<char>(in), {}};
  return said.find(kGoOn) != std::string::npos;
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

void FailureReport::set_neighbours(std::vector<Neighbour> neighbours, bool all_are_here) {
  g_neighbours = std::move(neighbours);
  g_all_are_here = all_are_here;
}

void FailureReport::on_sigterm(OnSigterm what) {
  g_on_sigterm = what;
  struct sigaction action {};
  action.sa_handler = handle_sigterm;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
}

void FailureReport::ignore_sigterm() {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  sigaction(SIGTERM, &action, nullptr);
}

void FailureReport::say_interrupted(int signal) {
  Line line;
  line.add("got ");
  line.add(name_of(signal));
  line.add(": the job ends after its next step, with a checkpoint where any are configured");
  if (signal == SIGINT) line.add("; a second SIGINT ends it at once");
  line.end();
  report_in_handler(g_interrupt_file, line);
}

void FailureReport::say_ended(int signal) {
  if (g_reporting.test_and_set()) return;  // it has failed and says so
  Line line;
  line.add("ended by a second ");
  line.add(name_of(signal));
  add_go_on(line);
  line.end();
  report_in_handler(g_file, line);
}

}  // namespace varscope
