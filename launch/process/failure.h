#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace varscope {

// What SIGTERM means for a rank: `ends` the process; or it `saves`, that is asks for a checkpoint and the
// end.
enum class OnSigterm : std::uint8_t { ends, saves };

// Another rank of the job on this host.
struct Neighbour {
  pid_t pid = 0;
  std::string who;  // "worker 1 on n3 (rank 2)"
};

// One failure, one message: of all ranks that fail for the same reason at about the same time, the first one
// prints. They settle it by creating a file in the run's directory, which keeps the message for later.
// Set up by the main thread; what the handlers of signals do needs no lock and no memory.
class FailureReport {
 public:
  // Until set_file(), every rank that fails prints for itself. `who` begins the line: "rank 2 (worker 1 on
  // host n3)".
  static void set_who(const std::string& who);
  // Files <stem>.txt and <stem>-sigterm.txt, and so on: the same for all ranks of this attempt; nobody has
  // made them yet.
  static void set_file(const std::string& stem);
  // The command that goes on with the job. It is told only where there is a checkpoint to go on from: where
  // `latest` (the path of LATEST) exists, or it `is_resumed`; and not under a launcher, which tells it
  // itself.
  static void set_go_on(const std::string& command, const std::string& latest, bool is_resumed);
  // "go on with: COMMAND", or "" where there is nothing to tell.
  static std::string go_on();
  // Whether a line about a signal has told it already.
  static bool has_told_go_on();
  // Prints "varscope: <who>: <message>" on standard error, in one write(2), unless another rank has already
  // reported.
  static void print(const std::string& message);

  // The ranks on this host whose death is looked for when SIGTERM comes, which is what mpirun sends to the
  // survivors; `all_are_here`: the job has no ranks on other hosts.
  static void set_neighbours(std::vector<Neighbour> neighbours, bool all_are_here);
  // From now on SIGTERM prints, once per job, which rank has died, or else that the job is to end.
  static void on_sigterm(OnSigterm what);
  // The job has ended well on all ranks, with a code that mpirun takes for a failure: it sends SIGTERM to
  // those that leave last, who have nothing to say.
  static void ignore_sigterm();

  // For the handlers of SIGINT and SIGHUP; async-signal-safe. The first: what is about to happen, once per
  // job. The second: that the process ends now.
  static void say_interrupted(int signal);
  static void say_ended(int signal);
};

}  // namespace varscope
