#include "tests/support/jobs/job.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace varscope::testing {
namespace {

using Time = std::chrono::steady_clock;
constexpr auto kPollInterval = std::chrono::milliseconds(2);

double seconds_since(Time::time_point start) {
  return std::chrono::duration<double>(Time::now() - start).count();
}

pid_t parent_of(pid_t pid) {  // -1 when the process is gone
  int parent = -1;
  return std::sscanf(stat_after_name(pid).c_str(), "%*c %d", &parent) == 1 ? parent : -1;
}

std::vector<pid_t> all_pids() {
  std::vector<pid_t> pids;
  for (const std::string& name : names_in("/proc")) {
    if (std::isdigit(static_cast<unsigned char>(name[0])) != 0) pids.push_back(std::atoi(name.c_str()));
  }
  return pids;
}

std::vector<pid_t> descendants_of(pid_t root) {
  std::map<pid_t, std::vector<pid_t>> children;
  for (pid_t pid : all_pids()) children[parent_of(pid)].push_back(pid);
  std::vector<pid_t> found = children[root];
  for (std::size_t i = 0; i < found.size(); ++i) {
    for (pid_t child : children[found[i]]) found.push_back(child);
  }
  return found;
}

// What a process waits for: its state, and the kernel's name for it.
std::string state_text(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid) + "/";
  std::string command = read_text(proc + "cmdline");
  std::replace(command.begin(), command.end(), '\0', ' ');
  return "process " + std::to_string(pid) + " " + state_of(pid) + " in " + read_text(proc + "wchan") + ": " +
         command.substr(0, 300) + "\n";
}

// The stacks of its threads, where there is a gdb that may look.
std::string stacks_text(pid_t pid) {
  const std::string gdb = "timeout 5 gdb -p " + std::to_string(pid) +
                          " -batch -ex 'thread apply all bt 16' 2>/dev/null </dev/null";
  FILE* stacks = popen(gdb.c_str(), "r");
  if (stacks == nullptr) return "";
  std::string text;
  char line[1024];
  while (fgets(line, sizeof line, stacks) != nullptr) {
    if (line[0] == '#' || line[0] == 'T') text += std::string("  ") + line;
  }
  pclose(stacks);
  return text;
}

// Whatever cannot be told is left out: the job has failed, and is about to be killed.
std::string states_text(pid_t root, std::vector<pid_t> pids) {
  constexpr double kEnough_s = 10;
  const auto start = Time::now();
  pids.insert(pids.begin(), root);
  std::string text;
  for (const pid_t pid : pids) {
    try {
      text += state_text(pid);
      if (seconds_since(start) < kEnough_s) text += stacks_text(pid);
    } catch (const std::exception& e) {
      text += std::string(e.what()) + "\n";
    }
  }
  return text;
}

// OMPI_COMM_WORLD_RANK of a process that runs varscope by now; -1 for any other.
int rank_of(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid);
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink(proc + "/exe", error);
  if (error || program != std::filesystem::canonical(VARSCOPE_BINARY)) return -1;
  std::istringstream environment(read_text(proc + "/environ"));
  const std::string key = "OMPI_COMM_WORLD_RANK=";
  for (std::string entry; std::getline(environment, entry, '\0');) {
    if (entry.starts_with(key)) return std::atoi(entry.c_str() + key.size());
  }
  return -1;
}

// Ranks outnumber cores: they must not be bound. ctest sets these too; a test may also be started by hand.
std::map<std::string, std::string> base_environment() {
  std::map<std::string, std::string> e;
  for (char** v = environ; *v != nullptr; ++v) {
    const std::string entry = *v;
    const std::size_t equals = entry.find('=');
    if (equals != std::string::npos) e[entry.substr(0, equals)] = entry.substr(equals + 1);
  }
  e["OMPI_MCA_rmaps_base_oversubscribe"] = "1";
  e["OMPI_MCA_hwloc_base_binding_policy"] = "none";
  if (geteuid() == 0) {
    e["OMPI_ALLOW_RUN_AS_ROOT"] = "1";
    e["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1";
  }
  return e;
}

[[noreturn]] void become(const Command& command, const std::string& out, const std::string& err,
                         pid_t parent) {
  setpgid(0, 0);
  for (const int s : {SIGINT, SIGHUP}) signal(s, SIG_DFL);  // a test that runs in the background ignores them
  // When ctest kills the test, mpirun must not live on; on SIGTERM it also ends ranks that are stopped.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);
  const int o = open(out.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  const int e = open(err.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  const int n = open("/dev/null", O_RDONLY);
  if (o < 0 || e < 0 || n < 0 || dup2(n, 0) < 0 || dup2(o, 1) < 0 || dup2(e, 2) < 0) _exit(127);
  std::map<std::string, std::string> merged = base_environment();
  for (const auto& [key, value] : command.environment) merged[key] = value;
  std::vector<std::string> entries;
  entries.reserve(merged.size());
  for (const auto& [key, value] : merged) entries.push_back(key + "=" + value);
  std::vector<char*> argv, env;
  for (const std::string& a : command.argv) argv.push_back(const_cast<char*>(a.c_str()));
  for (const std::string& v : entries) env.push_back(const_cast<char*>(v.c_str()));
  argv.push_back(nullptr);
  env.push_back(nullptr);
  execve(argv[0], argv.data(), env.data());
  _exit(127);
}

int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

double slowness_now() {
  constexpr double kSample_s = 0.03;
  const auto processor_s = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const auto start = Time::now();
  const double before = processor_s();
  while (processor_s() - before < kSample_s) continue;
  return std::max(1.0, seconds_since(start) / kSample_s);
}

Args operator+(Args a, const Args& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string config_file(const std::string& name) { return std::string(VARSCOPE_CONFIGS) + "/" + name; }

Args set(std::initializer_list<std::string> assignments) {
  Args args;
  for (const std::string& a : assignments) args.insert(args.end(), {"--set", a});
  return args;
}

bool has_fashion_mnist() {
  const char* root = std::getenv("VARSCOPE_DATA");
  const std::string plain =
      std::string(root == nullptr ? "data" : root) + "/fashion-mnist/train-images-idx3-ubyte";
  return std::filesystem::exists(plain) || std::filesystem::exists(plain + ".gz");
}

ScratchDir::ScratchDir() {
  std::string name = (std::filesystem::temp_directory_path() / "varscope-job-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr)
    throw std::runtime_error("mkdtemp " + name + ": " + std::strerror(errno));
  path_ = name;
}

ScratchDir::~ScratchDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  if (!(out << text) || !out.flush()) throw std::runtime_error("cannot write " + path);
}

void flip_byte(const std::string& path, std::uintmax_t offset) {
  std::string bytes = read_text(path);
  bytes.at(offset) = static_cast<char>(bytes.at(offset) ^ 0x40);
  write_text(path, bytes);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> names_in(const std::string& dir) {
  std::vector<std::string> names;
  DIR* open_dir = opendir(dir.c_str());
  if (open_dir == nullptr) return names;
  while (const dirent* entry = readdir(open_dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(open_dir);
  std::sort(names.begin(), names.end());
  return names;
}

Command varscope(const Args& args) { return {Args{VARSCOPE_BINARY} + args}; }

Command mpirun(int n_ranks, const Args& args) { return mpirun({Part{n_ranks, {}, args}}); }

Command mpirun(const std::vector<Part>& parts) {
  Args argv = {VARSCOPE_MPIEXEC, "--quiet"};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) argv.emplace_back(":");
    argv = argv + Args{"-n", std::to_string(parts[i].n_ranks)} + parts[i].wrapper + Args{VARSCOPE_BINARY} +
           parts[i].args;
  }
  return {argv};
}

bool is_line_of_open_mpi(const std::string& line) {
  static const std::regex peer_died("\\[[^ ]+:\\d+\\] Read -1, expected \\d+, errno = \\d+");
  static const std::regex socket_closed(
      "\\[warn\\] Epoll (ADD|MOD|DEL)\\(\\d+\\) on fd \\d+ failed\\. +Old events were \\d+; "
      "read change was \\d+ \\(\\w+\\); write change was \\d+ \\(\\w+\\)(; close change was \\d+ \\(\\w+\\))?: "
      "[A-Z][a-z ]+");
  return std::regex_match(line, peer_died) || std::regex_match(line, socket_closed);
}

bool is_warning_of_crowding(const std::string& line) {
  static const std::regex crowded("varscope: warning: \\d+ ranks .*on host .* share \\d+ processors?.*");
  return std::regex_match(line, crowded);
}

std::vector<std::string> messages_in(const std::string& err) {
  std::vector<std::string> found;
  for (const std::string& line : lines_of(err)) {
    if (line.starts_with("varscope:") && !is_warning_of_crowding(line)) found.push_back(line);
  }
  return found;
}

std::vector<std::string> Ended::messages() const { return messages_in(err); }

std::vector<std::string> Ended::errors() const {
  std::vector<std::string> found = messages();
  std::erase_if(found, [](const std::string& line) { return line.starts_with("varscope: warning:"); });
  return found;
}

std::vector<std::string> Ended::noise() const {
  std::vector<std::string> found;
  bool after_message = false;
  for (const std::string& line : lines_of(err)) {
    if (line.starts_with("varscope:")) {
      after_message = true;
    } else if (!line.starts_with("step ") && !(after_message && line.starts_with("  ")) &&
               !is_line_of_open_mpi(line)) {
      found.push_back(line);
    }
  }
  return found;
}

std::string Ended::all() const {
  std::ostringstream text;
  text << "code " << code << (in_time ? "" : " (killed at its deadline)") << " after " << seconds
       << " s\n--- out\n"
       << out << "--- err\n"
       << err << "---\n"
       << stuck;
  return text.str();
}

Job::Job(const Command& command) {
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (pid_ == 0) become(command, dir_ / "out", dir_ / "err", parent);
}

Job::~Job() {
  if (!ended()) kill_all();
}

bool Job::ended() {
  int status = 0;
  if (!code_ && waitpid(pid_, &status, WNOHANG) == pid_) code_ = code_of(status);
  return code_.has_value();
}

void Job::send_signal(int signal) const { kill(pid_, signal); }

bool Job::wait_until(const std::function<bool()>& true_now, double seconds) {
  const auto start = Time::now();
  double limit = seconds;
  for (;;) {
    const bool was_over = ended();
    if (true_now()) return true;
    if (was_over) return false;
    if (seconds_since(start) >= limit) limit = seconds * slowness_now();
    if (seconds_since(start) >= limit) return false;
    std::this_thread::sleep_for(kPollInterval);
  }
}

std::vector<pid_t> Job::rank_pids(int n_ranks, double seconds) {
  std::vector<pid_t> pids;
  const bool found = wait_until(
      [&] {
        pids.assign(static_cast<std::size_t>(n_ranks), -1);
        for (pid_t pid : descendants_of(pid_)) {
          const int rank = rank_of(pid);
          if (rank >= 0 && rank < n_ranks) pids[static_cast<std::size_t>(rank)] = pid;
        }
        return std::find(pids.begin(), pids.end(), -1) == pids.end();
      },
      seconds);
  return found ? pids : std::vector<pid_t>();
}

std::string Job::out() const { return read_text(dir_ / "out"); }
std::string Job::err() const { return read_text(dir_ / "err"); }

std::int64_t Job::last_step() const {
  const std::string text = err();
  const std::size_t at = text.rfind("step ");
  return at == std::string::npos ? 0 : std::atoll(text.c_str() + at + 5);
}

Ended Job::wait(double seconds) {
  const auto start = Time::now();
  Ended e;
  e.in_time = wait_until([&] { return ended(); }, seconds);
  e.seconds = seconds_since(start);
  if (!e.in_time) {
    e.stuck = states_text(pid_, descendants_of(pid_));
    kill_all();
  }
  e.code = *code_;
  e.out = out();
  e.err = err();
  return e;
}

// Ranks have process groups of their own, so mpirun's group alone is not enough.
void Job::kill_all() {
  const std::vector<pid_t> ranks = descendants_of(pid_);
  for (pid_t pid : ranks) kill(pid, SIGKILL);
  kill(-pid_, SIGKILL);
  int status = 0;
  if (waitpid(pid_, &status, 0) == pid_) code_ = code_of(status);
}

Ended run(const Command& command, double seconds) { return Job(command).wait(seconds); }

Summary summary_of(const std::string& out) {
  Summary s;
  static const std::regex resumed("  start        resumed from .* at step ([0-9,]+)");
  static const std::regex epoch("epoch \\d+  step \\d+  training loss ([0-9.e+-]+) .*");
  static const std::regex test("  test         loss ([0-9.e+-]+), accuracy ([0-9.e+-]+)");
  static const std::regex checkpoint("checkpoint of step (\\d+) .*");
  static const std::regex finished("finished at step (\\d+) .*");
  static const std::regex hash("  values hash  ([0-9a-f]{32})");
  for (const std::string& line : lines_of(out)) {
    std::smatch m;
    if (std::regex_match(line, m, resumed)) {
      std::string digits = m[1];
      std::erase(digits, ',');
      s.first_step = std::stoll(digits);
    } else if (std::regex_match(line, m, epoch)) {
      s.epoch_losses.push_back(std::stod(m[1]));
    } else if (std::regex_match(line, m, test)) {
      s.test_loss = std::stod(m[1]);
      s.test_accuracy = std::stod(m[2]);
    } else if (std::regex_match(line, m, checkpoint)) {
      s.checkpoints.push_back(std::stoll(m[1]));
    } else if (std::regex_match(line, m, finished)) {
      s.step = std::stoll(m[1]);
    } else if (std::regex_match(line, m, hash)) {
      s.hash = m[1];
    }
  }
  return s;
}

Summary train(const Command& command, std::string_view may_say) {
  const Ended ended = run(command);
  EXPECT_EQ(ended.code, 0) << ended.all();
  for (const std::string& message : ended.messages())
    EXPECT_TRUE(!may_say.empty() && message.find(may_say) != std::string::npos) << message << ended.all();
  EXPECT_TRUE(ended.noise().empty()) << ended.all();
  const Summary summary = summary_of(ended.out);
  EXPECT_GE(summary.step, 0) << ended.all();
  EXPECT_EQ(summary.hash.size(), 32U) << ended.all();
  return summary;
}

}  // namespace varscope::testing
