#include "launch/commands/launch_job.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "checkpoint/directory/scan.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "launch/job/load_config.h"
#include "launch/observe/run_speed.h"
#include "launch/process/launcher.h"
#include "launch/process/mpirun_report.h"

namespace varscope {
namespace {

constexpr std::array kForwarded{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

// Those and SIGCHLD. Not SIGHUP where it is ignored (nohup): a signal that is blocked would come all the
// same.
sigset_t watched_signals() {
  struct sigaction hangup {};
  sigaction(SIGHUP, nullptr, &hangup);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  for (const int signal : kForwarded) {
    if (signal != SIGHUP || hangup.sa_handler != SIG_IGN) sigaddset(&set, signal);
  }
  return set;
}

int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

const char* name_of(int signal) {
  switch (signal) {
    case SIGINT:
      return "SIGINT";
    case SIGTERM:
      return "SIGTERM";
    case SIGHUP:
      return "SIGHUP";
    default:
      return "SIGQUIT";
  }
}

[[noreturn]] void fail_system(const char* call) {
  fail(ErrorKind::io, "launch: {}: {}", call, std::strerror(errno));
}

// One of our standard streams. Holds what could not be written yet, so that nobody waits for a slow reader.
class Sink {
 public:
  explicit Sink(int fd) : fd_(fd), most_(isatty(fd) != 0 ? 256 : PIPE_BUF) {}
  void add(std::string_view text) {
    if (!is_dead_) pending_.append(text);
  }
  bool is_full() const { return pending_.size() >= 64 << 10; }
  bool is_empty() const { return pending_.empty(); }
  bool is_dead() const { return is_dead_; }
  pollfd poll_entry() const { return {pending_.empty() ? -1 : fd_, POLLOUT, 0}; }
  // After poll() has found room. Small pieces: one that does not fit would be waited for. Returns why nothing
  // can be written any more, once; else "".
  std::string write_some() {
    const ssize_t n = write(fd_, pending_.data(), std::min(pending_.size(), most_));
    if (n >= 0) {
      pending_.erase(0, static_cast<std::size_t>(n));
      return "";
    }
    if (errno == EINTR || errno == EAGAIN) return "";
    is_dead_ = true;
    pending_.clear();
    return std::strerror(errno);
  }

 private:
  int fd_;
  std::size_t most_;
  std::string pending_;
  bool is_dead_ = false;
};

bool are_one_terminal(int a, int b) {
  struct stat sa {
  }, sb{};
  return isatty(a) != 0 && isatty(b) != 0 && fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
         sa.st_rdev == sb.st_rdev;
}

// What the job prints, on its way to our own standard streams. Where both are one terminal, lines of both
// replace the line of progress, which is drawn anew with the next step.
class Screen {
 public:
  explicit Screen(std::string script)
      : script_(std::move(script)),
        out_(STDOUT_FILENO),
        err_(STDERR_FILENO),
        is_one_(are_one_terminal(STDOUT_FILENO, STDERR_FILENO)) {}

  bool takes_out() const { return is_one_ ? !err_.is_full() : !out_.is_full(); }
  bool takes_err() const { return !err_.is_full(); }
  void add_out(std::string_view bytes) {
    if (!is_one_) return out_.add(bytes);
    part_.append(bytes);
    const std::size_t end = part_.rfind('\n');
    if (end == std::string::npos) return;
    clear();
    err_.add(std::string_view(part_).substr(0, end + 1));
    part_.erase(0, end + 1);
  }
  void add(const std::vector<MpirunReport::Shown>& all) {
    for (const auto& shown : all) shown.is_progress ? progress(shown.text) : line(shown.text);
  }
  void say(const std::string& text) { line(script_ + ": " + text); }
  // At the end: what has no line's end yet.
  void finish() {
    clear();
    if (!part_.empty()) err_.add(part_ + "\n");
    part_.clear();
  }
  std::array<pollfd, 2> poll_entries() const { return {out_.poll_entry(), err_.poll_entry()}; }
  bool is_empty() const { return out_.is_empty() && err_.is_empty(); }
  void write_some(const pollfd& out, const pollfd& err) {
    if (out.revents != 0) {
      const std::string why = out_.write_some();
      if (!why.empty())
        say("cannot write to standard output: " + why + "; the job goes on, and what it prints is lost");
    }
    if (err.revents != 0) err_.write_some();
  }

 private:
  void line(const std::string& text) {
    clear();
    err_.add(text + "\n");
  }
  void progress(const std::string& text) {
    err_.add("\r\x1b[K" + text);
    has_progress_ = !text.empty();
  }
  void clear() {
    if (has_progress_) err_.add("\r\x1b[K");
    has_progress_ = false;
  }

  std::string script_;
  Sink out_, err_;
  bool is_one_;
  std::string part_;  // of a line of standard output
  bool has_progress_ = false;
};

struct Pipe {
  int read_end = -1, write_end = -1;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) fail_system("pipe");
    read_end = ends[0];
    write_end = ends[1];
  }
  void close_read() {
    close(read_end);
    read_end = -1;
  }
};

[[noreturn]] void become(const std::vector<std::string>& words, const Pipe& out, const Pipe& err,
                         const Pipe& failed) {
  setpgid(0, 0);  // Ctrl-C reaches mpirun through us alone: a second one of its own would leave ranks behind
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  for (const int signal : {SIGPIPE, SIGTTOU, SIGXFSZ}) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(out.write_end, STDOUT_FILENO);
  dup2(err.write_end, STDERR_FILENO);
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  const int why = errno;
  [[maybe_unused]] const ssize_t n = write(failed.write_end, &why, sizeof why);
  _exit(127);
}

// Whether a process has a handler for this signal by now.
bool catches(pid_t pid, int signal) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("SigCgt:")) continue;
    return (std::strtoull(line.c_str() + 7, nullptr, 16) >> (signal - 1) & 1) != 0;
  }
  return false;
}

// mpirun, from its start to its end.
class Mpirun {
 public:
  explicit Mpirun(const LaunchOptions& options) : screen_(options.script) {
    std::vector<std::string> words = options.mpirun;
    words.push_back(options.program);
    words.insert(words.end(), options.words.begin(), options.words.end());
    Pipe failed;
    pid_ = fork();
    if (pid_ < 0) fail_system("fork");
    if (pid_ == 0) become(words, out_, err_, failed);
    for (Pipe* p : {&out_, &err_, &failed}) close(p->write_end);
    int why = 0;
    const bool has_failed = read(failed.read_end, &why, sizeof why) == sizeof why;
    failed.close_read();
    if (!has_failed) return;
    waitpid(pid_, nullptr, 0);
    fail(ErrorKind::config,
         "{}: cannot start {}: {}; tools/install_packages.sh installs Open MPI, MPIRUN names another",
         options.script, words[0], std::strerror(why));
  }

  MpirunReport::End run(int signals) {
    started_ns_ = now_ns();
    while (!is_over()) turn(signals);
    screen_.add(report_.take_rest());
    screen_.finish();
    return report_.end({code_, was_killed_, was_asked_, n_hard_ > 0});
  }
  int code() const { return code_; }
  bool was_asked() const { return was_asked_; }
  void say(const std::string& text) { screen_.say(text); }
  void flush() {
    while (!screen_.is_empty()) {
      auto sinks = screen_.poll_entries();
      if (poll(sinks.data(), sinks.size(), -1) < 0 && errno != EINTR) return;
      screen_.write_some(sinks[0], sinks[1]);
    }
  }

 private:
  // Somebody (ssh) may hold the pipes for longer than mpirun lives.
  bool is_over() const {
    if (!has_ended_) return false;
    const bool reads = screen_.takes_out() && screen_.takes_err();
    return reads && ((out_.read_end < 0 && err_.read_end < 0) || seconds_since(quiet_since_ns_) > 0.5);
  }

  void turn(int signals) {
    const auto sinks = screen_.poll_entries();
    std::array<pollfd, 5> all{
        pollfd{signals, POLLIN, 0}, pollfd{screen_.takes_out() ? out_.read_end : -1, POLLIN, 0},
        pollfd{screen_.takes_err() ? err_.read_end : -1, POLLIN, 0}, sinks[0], sinks[1]};
    if (!screen_.takes_out() || !screen_.takes_err()) quiet_since_ns_ = now_ns();
    const bool has_to_look = has_ended_ || waiting_ != 0;
    const int n = poll(all.data(), all.size(), has_to_look ? 20 : -1);
    if (n < 0 && errno != EINTR) fail_system("poll");
    if (n < 0) return;
    if (all[0].revents != 0) take_signal(signals);
    if (all[1].revents != 0) read_from(out_, [this](std::string_view bytes) { screen_.add_out(bytes); });
    if (all[2].revents != 0)
      read_from(err_, [this](std::string_view bytes) { screen_.add(report_.take(bytes)); });
    screen_.write_some(all[3], all[4]);
    if (waiting_ != 0) send(waiting_);
  }

  template <class Take>
  void read_from(Pipe& pipe, Take take) {
    char buffer[16384];
    const ssize_t n = read(pipe.read_end, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) return;
    quiet_since_ns_ = now_ns();
    if (n <= 0) return pipe.close_read();
    take(std::string_view(buffer, static_cast<std::size_t>(n)));
  }

  void take_signal(int signals) {
    signalfd_siginfo info{};
    if (read(signals, &info, sizeof info) != sizeof info) return;
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCHLD) return reap();
    if (signal == SIGUSR1 || signal == SIGUSR2) {
      was_asked_ = was_asked_ || signal == SIGUSR2;
      return send(signal);
    }
    if (signal == SIGQUIT) return end_hard(signal);
    // A terminal that closes may send more than one, and USR2 may have been the scheduler's first word before
    // its SIGTERM.
    const bool is_first = signal == SIGHUP || (signal == SIGTERM ? !was_asked_ : !was_interrupted_);
    was_interrupted_ = true;
    if (!is_first) return end_hard(signal);
    if (!was_asked_ || signal != SIGHUP) {
      screen_.say(
          fmt::format("got {0}: the job makes a checkpoint and ends{1}", name_of(signal),
                      signal == SIGHUP ? "" : fmt::format("; a second {} ends it at once", name_of(signal))));
    }
    was_asked_ = true;
    send(SIGUSR2);
  }

  // mpirun answers SIGTERM with SIGTERM and, a second later, SIGKILL to all ranks.
  void end_hard(int signal) {
    was_asked_ = true;
    waiting_ = 0;
    if (++n_hard_ == 1) {
      screen_.say(fmt::format("got {}: the job ends now", name_of(signal)));
      kill(pid_, SIGTERM);
    } else {
      screen_.say(fmt::format("got {}: killing mpirun", name_of(signal)));
      kill(pid_, SIGKILL);
    }
  }

  // One that mpirun does not know of yet would kill it: later, then; and it would hand it to nobody.
  void send(int signal) {
    constexpr double kStart_s = 5;
    waiting_ = 0;
    if (has_ended_) return;
    if (catches(pid_, signal) || seconds_since(started_ns_) > kStart_s) {
      kill(pid_, signal);
    } else {
      waiting_ = signal;
    }
  }

  void reap() {
    int status = 0;
    if (has_ended_ || waitpid(pid_, &status, WNOHANG) != pid_) return;
    has_ended_ = true;
    quiet_since_ns_ = now_ns();
    code_ = code_of(status);
    was_killed_ = WIFSIGNALED(status);
  }

  Screen screen_;
  Pipe out_, err_;
  MpirunReport report_;
  pid_t pid_ = -1;
  std::int64_t started_ns_ = 0, quiet_since_ns_ = 0;
  int waiting_ = 0;  // a signal for mpirun
  bool was_asked_ = false, was_interrupted_ = false;
  int n_hard_ = 0;
  bool has_ended_ = false, was_killed_ = false;
  int code_ = 0;
};

// Whether the run that these words of `train` describe has a checkpoint. What is wrong with them has been
// said.
bool has_checkpoint(const std::vector<std::string>& words) {
  std::string config;
  std::vector<std::string> sets;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--set" && i + 1 < words.size()) {
      sets.push_back(words[++i]);
    } else if (words[i].starts_with("--set=")) {
      sets.push_back(words[i].substr(6));
    } else if (config.empty() && !words[i].starts_with("-")) {
      config = words[i];
    }
  }
  try {
    PosixFs fs;
    return !list_checkpoints(fs, load_config(config, sets).checkpoint_dir()).empty();
  } catch (const Error&) {
    return false;
  }
}

// Our own codes up to 6 want an edit before a restart; everything else came from a signal, from mpirun, or
// from a code of ours of 10 and above.
bool can_go_on(int code, bool was_asked) { return code > 6 || (code != 0 && was_asked); }

int run_mpirun(const LaunchOptions& options, int signals) {
  Mpirun mpirun(options);
  const MpirunReport::End end = mpirun.run(signals);
  if (!end.message.empty()) mpirun.say(end.message);
  const int code = mpirun.code();
  if (!options.go_on.empty() && !end.is_refusal && can_go_on(code, mpirun.was_asked())) {
    mpirun.say(has_checkpoint(options.words)
                   ? fmt::format("the job ended with code {}; to go on from its newest checkpoint: {}", code,
                                 options.go_on)
                   : fmt::format("the job ended with code {}, and it has no checkpoint to go on from", code));
  }
  mpirun.flush();
  return code;
}

// In a process group of its own, where Ctrl-C and Ctrl-Z do not reach it: the job goes on while the first
// process, which the shell knows, is stopped.
int work(const LaunchOptions& options, pid_t first, const sigset_t& watched) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != first) return static_cast<int>(ExitCode::internal);
  for (const int signal : {SIGPIPE, SIGTTOU}) ::signal(signal, SIG_IGN);
  const int signals = signalfd(-1, &watched, SFD_CLOEXEC);
  if (signals < 0) fail_system("signalfd");
  setenv(kLauncherVariable, isatty(STDERR_FILENO) != 0 ? kLauncherOnTerminal : kLauncherOnFile, 1);
  return run_mpirun(options, signals);
}

}  // namespace

void check_file_limit() {
  constexpr rlim_t kShared = 4 << 20;
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur >= kShared) return;
  fail(
      ErrorKind::config,
      "the limit for files is {} KiB (ulimit -f), and Open MPI shares memory through files of {} KiB: raise it, for "
      "example with ulimit -f unlimited",
      limit.rlim_cur >> 10, kShared >> 10);
}

int launch_job(const LaunchOptions& options) {
  check_file_limit();
  // A shell that starts us in the background ignores SIGINT; who sends it to us means it all the same.
  for (const int signal : {SIGINT, SIGQUIT}) ::signal(signal, SIG_DFL);
  const sigset_t watched = watched_signals();
  sigprocmask(SIG_BLOCK, &watched, nullptr);
  const pid_t first = getpid();
  const pid_t worker = fork();
  if (worker < 0) fail_system("fork");
  if (worker == 0) return work(options, first, watched);
  for (;;) {
    int signal = 0;
    if (sigwait(&watched, &signal) != 0) continue;
    int status = 0;
    if (signal != SIGCHLD) {
      kill(worker, signal);
    } else if (waitpid(worker, &status, WNOHANG) == worker) {
      return code_of(status);
    }
  }
}

}  // namespace varscope
