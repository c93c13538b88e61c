#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace varscope::bench {

// The real program, started as its users start it.

using Args = std::vector<std::string>;

// A directory of its own, removed at the end.
class ScratchDir {
 public:
  ScratchDir();
  ~ScratchDir();
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Starts a command, its output into a file, on this core alone where one is given and there are as many. It
// gets SIGTERM when the calling thread ends. Whoever calls waits for it (waitpid). Throws std::runtime_error.
pid_t start_command(const Args& command, const std::string& output, std::optional<int> core = {});

// Binds the calling thread, and those that it will start, to this core, where there are as many.
void pin_to_core(int core);

// What is in a file; "" where there is none.
std::string text_of_file(const std::string& file);

// Runs a command to its end, its output into a file. Throws std::runtime_error with what it printed when that
// is not code 0, or takes more than 300 s.
void run_command(const Args& command, const std::string& output);

// What a run says at its end in its metrics.jsonl: samples per second from the first step on. Throws
// std::runtime_error when it does not.
double speed_in(const std::string& metrics_file);

// Ranks outnumber cores in benchmarks, and root may run them; the user's own settings come first.
void set_mpi_environment();

}  // namespace varscope::bench
