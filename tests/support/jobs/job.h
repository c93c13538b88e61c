#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/jobs/processes.h"

namespace varscope::testing {

// Tests that start the real program as its users do: alone, or on several ranks by mpirun.

using Args = std::vector<std::string>;
Args operator+(Args a, const Args& b);

// The bundled config of that name; and "--set", KEY=VALUE for each of `assignments`.
std::string config_file(const std::string& name);
Args set(std::initializer_list<std::string> assignments);

// True when the Fashion-MNIST files are where VARSCOPE_DATA says.
bool has_fashion_mnist();

// Time limits are for a plain build; a sanitizer makes the program several times slower.
#ifdef VARSCOPE_SANITIZED
inline constexpr double kSlowness = 4;
#else
inline constexpr double kSlowness = 1;
#endif

// Until a job has made its first steps and saves. Ample: an fsync can take a minute where others write to the
// disk too.
inline constexpr double kStartSeconds = 180 * kSlowness;

// How many times as long as on a quiet machine things take now: what a moment of processor time costs in
// time. At least 1.
double slowness_now();

// A directory of its own for one test, removed at the end.
class ScratchDir {
 public:
  ScratchDir();
  ~ScratchDir();
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void write_text(const std::string& path, const std::string& text);
void flip_byte(const std::string& path, std::uintmax_t offset);
std::vector<std::string> lines_of(const std::string& text);
std::vector<std::string> names_in(const std::string& dir);  // sorted; none when there is no such directory

// What to start, and in which environment (on top of the test's own).
struct Command {
  Args argv;
  std::map<std::string, std::string> environment = {};
};
Command varscope(const Args& args);
Command mpirun(int n_ranks, const Args& args);
// One application file: `n_ranks` started by `wrapper` (may be empty) and varscope with `args`, for each
// part.
struct Part {
  int n_ranks;
  Args wrapper;
  Args args;
};
Command mpirun(const std::vector<Part>& parts);

// What Open MPI and the libraries below it print by themselves while a job ends; we have no hand in it:
//   [host:pid] Read -1, expected 4096, errno = 3       a peer died while its memory was being read
//   [warn] Epoll MOD(1) on fd 32 failed. ...           PMIx closed a socket that libevent still watched
bool is_line_of_open_mpi(const std::string& line);

// The lines of standard error that begin with "varscope:", but for is_warning_of_crowding().
std::vector<std::string> messages_in(const std::string& err);
// That a job of a test has more ranks than this machine has processors.
bool is_warning_of_crowding(const std::string& line);

struct Ended {
  int code = 0;         // the exit code, or 128 + the signal
  bool in_time = true;  // false: still there at its deadline, and was killed
  double seconds = 0;   // that wait() took
  std::string out, err;
  std::string stuck;  // killed at its deadline: what its processes were doing then

  // messages_in(err); errors() are those that are no warnings.
  std::vector<std::string> messages() const;
  std::vector<std::string> errors() const;
  // Lines of standard error that are none of messages(), of their indented continuations, of the step lines
  // and of those that Open MPI has (is_line_of_open_mpi()).
  std::vector<std::string> noise() const;
  std::string all() const;  // everything, for a failure's text
};

// A running command in a process group of its own; standard output and error go to files.
// Whatever is left of it, ranks included, is killed by the destructor.
class Job {
 public:
  explicit Job(const Command& command);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // False when `true_now` is not true within `seconds`, or the job has ended before. The seconds are those of
  // a quiet machine: where they are over and others want the processors too, they count slowness_now() times.
  bool wait_until(const std::function<bool()>& true_now, double seconds);
  // Process ids by rank, once all have been started; empty when that does not happen within `seconds`.
  std::vector<pid_t> rank_pids(int n_ranks, double seconds);
  std::string out() const;
  std::string err() const;
  std::int64_t last_step() const;  // of the step lines on standard error; 0 before the first
  bool ended();
  pid_t pid() const { return pid_; }   // likewise
  void send_signal(int signal) const;  // to the process that was started: the program itself, or mpirun
  // Waits for the end; kills what is still there after `seconds`, as wait_until() counts them.
  Ended wait(double seconds);

 private:
  void kill_all();
  ScratchDir dir_;
  pid_t pid_ = -1;
  std::optional<int> code_;
};

Ended run(const Command& command, double seconds = 60 * kSlowness);

// What the console printed at the end of a run and on the way there.
struct Summary {
  std::int64_t first_step = 0;  // it resumed from
  std::int64_t step = -1;       // it finished at; -1: it did not
  std::string hash;
  double test_loss = -1, test_accuracy = -1;
  std::vector<double> epoch_losses;
  std::vector<std::int64_t> checkpoints;  // steps, in order
};
Summary summary_of(const std::string& out);

// Runs to the end, expects code 0 and a silent standard error, and returns the summary. A message with the
// words `may_say` is let pass, where there are such words.
Summary train(const Command& command, std::string_view may_say = {});

}  // namespace varscope::testing
