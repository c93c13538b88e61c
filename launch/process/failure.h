#pragma once

#include <string>

namespace varscope {

// One failure, one message: of all ranks that fail for the same reason at about the same time, the first one
// prints. They settle it by creating a file in the run's directory, which keeps the message for later.
class FailureReport {
 public:
  // Until set_file(), every rank that fails prints for itself. `who` begins the line: "rank 2 (worker 1 on
  // host n3)".
  static void set_who(const std::string& who);
  // Files <stem>.txt and <stem>-sigterm.txt: the same for all ranks of this attempt; nobody has made them
  // yet.
  static void set_file(const std::string& stem);
  // Prints "varscope: <who>: <message>" on standard error, in one write(2), unless another rank has already
  // reported.
  static void print(const std::string& message);
  // From now on SIGTERM (which mpirun sends to the survivors when a rank has died) prints `message`, once per
  // job, and ends the process.
  static void on_sigterm(const std::string& message);
  // The same, but `then` is called in the handler instead of the end; a failure after that has its own line.
  static void on_sigterm(const std::string& message, void (*then)());
  // The job has ended well on all ranks, with a code that mpirun takes for a failure: it sends SIGTERM to
  // those that leave last, who have nothing to say.
  static void ignore_sigterm();
};

}  // namespace varscope
