#include "bench/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <nlohmann/json.hpp>

#include "common/base/clock.h"

namespace varscope::bench {
namespace {

constexpr double kTakeLimit_s = 300;

[[noreturn]] void become(const Args& command, const std::string& output, std::optional<int> core,
                         pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // mpirun then ends its ranks
  if (getppid() != parent) _exit(127);
  if (core) pin_to_core(*core);
  const int out = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), in = open("/dev/null", O_RDONLY);
  if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(127);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

}  // namespace

ScratchDir::ScratchDir()
    : path_((std::filesystem::temp_directory_path() / "varscope-bench-XXXXXX").string()) {
  if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make a directory " + path_);
}

ScratchDir::~ScratchDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string text_of_file(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void pin_to_core(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof(set), &set);  // fails where there is no such core, and then changes nothing
}

pid_t start_command(const Args& command, const std::string& output, std::optional<int> core) {
  const pid_t parent = getpid(), pid = fork();
  if (pid == 0) become(command, output, core, parent);
  if (pid < 0) throw std::runtime_error("cannot fork");
  return pid;
}

void run_command(const Args& command, const std::string& output) {
  const pid_t pid = start_command(command, output);
  const std::int64_t deadline = now_ns() + static_cast<std::int64_t>(kTakeLimit_s * 1e9);
  int status = 0;
  bool late = false;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (!late && now_ns() > deadline) {
      late = true;
      kill(pid, SIGTERM);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  throw std::runtime_error(fmt::format("{} {}:\n{}", fmt::join(command, " "),
                                       late ? fmt::format("took over {} s", kTakeLimit_s) : "failed",
                                       text_of_file(output)));
}

double speed_in(const std::string& metrics_file) {
  std::ifstream in(metrics_file);
  for (std::string line; std::getline(in, line);) {
    const auto record = nlohmann::json::parse(line);
    if (record.at("event") == "finish") return record.at("samples_per_s").get<double>();
  }
  throw std::runtime_error(metrics_file + " has no finish record");
}

void set_mpi_environment() {
  for (const char* name :
       {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"}) {
    setenv(name, "1", 0);
  }
  setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 0);
}

}  // namespace varscope::bench
