// A stream that is learnt from while answers are given: V10, V11 and the rest of V12.
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/serve/serve_figures.h"

namespace varscope::bench {
namespace {

namespace fs = std::filesystem;

constexpr Goal kFollowGoal{Bound::at_least, 0.9};
constexpr Goal kMedianGoal{Bound::at_most, 6}, kTailGoal{Bound::at_most, 8}, kIdleGoal{Bound::at_most, 0.01};

// What this thread starts may run on any core while this is there: a job has more threads than one.
class AllCores {
 public:
  AllCores() {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t all;
    CPU_ZERO(&all);
    for (long core = sysconf(_SC_NPROCESSORS_CONF); core-- > 0;)
      CPU_SET(static_cast<std::size_t>(core), &all);
    sched_setaffinity(0, sizeof all, &all);
  }
  ~AllCores() { sched_setaffinity(0, sizeof before_, &before_); }
  AllCores(const AllCores&) = delete;
  AllCores& operator=(const AllCores&) = delete;

 private:
  cpu_set_t before_ = {};
};

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A row of numbers and a class that follows from them.
std::string row_of(std::int64_t n, int columns) {
  std::string row;
  double sum = 0;
  for (int c = 0; c < columns; ++c) {
    const double x = static_cast<double>((n * 7919 + c * 104729) % 2001 - 1000) / 1000;
    sum += c % 3 == 0 ? x : 0;
    row += fmt::format("{:.3f},", x);
  }
  return row + (sum > 0 ? "1\n" : "0\n");
}

// The job on such rows, which reads as `source` says. In one process, or more.
void write_job(const std::string& file, const std::string& run, const std::string& source,
               const std::string& more) {
  std::ofstream(file) << fmt::format(
      R"(job: {{name: m, run_dir: {}}}
cluster: {{logical_workers: 1}}
data:
  cache: none
  train: {{type: csv, {}, schema: {{label: {{column: y, classes: ["0", "1"]}}{}}}}}
model:
  loss: softmax_cross_entropy
  layers:
    - {{type: dense, scope: hidden0, units: 256, activation: relu}}
    - {{type: dense, scope: hidden1, units: 128, activation: relu}}
    - {{type: dense, scope: output, units: 2}}
optimizer: {{type: sgd, learning_rate: 0.05}}
{})",
      run, source, more.empty() ? "" : ", features: {x: {columns: [c0, c1, c2]}}",
      more.empty() ? "train: {batch: 128, shuffle: false}\ncheckpoint: {at_end: false}\n" : more);
}

double speed_of(const ServeBenchOptions& options, const std::string& dir, const std::string& name) {
  fs::remove_all(dir + "/run-" + name);
  run_command({options.program, "train", dir + "/" + name + ".yaml"}, dir + "/output");
  return speed_in(dir + "/run-" + name + "/metrics.jsonl");
}

// A process that gets SIGTERM at the end.
class Started {
 public:
  explicit Started(pid_t pid) : pid_(pid) {}
  ~Started() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
  }
  Started(const Started&) = delete;
  Started& operator=(const Started&) = delete;
  double cpu_seconds() const { return cpu_seconds_of(pid_); }

 private:
  pid_t pid_;
};

void wait_until(const std::function<bool()>& is_true, const std::string& what) {
  for (int i = 0; i < 1200; ++i) {
    if (is_true()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  throw std::runtime_error(what + " has not come within a minute");
}

// The event time of the version that is served; 0 before the first.
double served_event(const ServerProcess& server) {
  return server.metric("varscope_version_event_time_seconds{").value_or(0);
}

// Records that come evenly: of each the time from its event to the moment at which a version is served that
// has learnt it. Between two versions these are evenly spread over the span between their event times.
class Ages {
 public:
  void served(double event, double now) {
    if (event <= newest_) return;
    for (double e = newest_ + 0.01; newest_ > 0 && e <= event; e += 0.01) ages_.push_back(now - e);
    newest_ = event;
  }
  double quantile(double p) {
    if (ages_.empty()) throw std::runtime_error("no version came after the first");
    std::ranges::sort(ages_);
    return ages_[std::min(ages_.size() - 1, static_cast<std::size_t>(p * static_cast<double>(ages_.size())))];
  }

 private:
  double newest_ = 0;
  std::vector<double> ages_;
};

}  // namespace

Figures measure_followed(const ServeBenchOptions& options) {
  const AllCores all_cores;
  const ScratchDir dir;
  constexpr int kColumns = 20;
  const int n_files = options.is_small ? 3 : 100, n_rows = options.is_small ? 256 : 4096;
  fs::create_directory(dir / "in");
  for (int f = 0; f < n_files; ++f) {
    std::ofstream out(dir / fmt::format("in/{:04}.csv", f));
    for (int c = 0; c < kColumns; ++c) out << 'c' << c << ',';
    out << "y\n";
    for (std::int64_t i = 0; i < n_rows; ++i) out << row_of(std::int64_t{f} * n_rows + i, kColumns);
  }
  std::ofstream(dir / "in/END") << "";
  write_job(dir / "followed.yaml", dir / "run-followed", "follow: " + dir / "in", "");
  write_job(dir / "files.yaml", dir / "run-files", "files: " + dir / "in/*.csv", "");
  return {compare(
      options.trials, "V10", fmt::format("followed files, {} rows each", n_rows), "samples/s", kFollowGoal,
      [&] { return speed_of(options, dir / "", "followed"); },
      [&] { return speed_of(options, dir / "", "files"); })};
}

// ingest -> files of up to 2 s -> a job in one process -> checkpoints each 2 s -> a server.
Figures measure_freshness(const ServeBenchOptions& options) {
  const AllCores all_cores;
  const ScratchDir dir;
  const double file_s = options.is_small ? 0.2 : 2, save_s = options.is_small ? 0.2 : 2;
  const double measured_s = options.is_small ? 3 : std::max(40.0, options.seconds);
  mkfifo((dir / "fifo").c_str(), 0600);
  fs::create_directory(dir / "in");
  write_job(
      dir / "job.yaml", dir / "run", "event_time: at, follow: " + dir / "in",
      fmt::format("train: {{batch: 128}}\ncheckpoint: {{every_seconds: {}, idle_save_s: 1}}\n", save_s));
  const Started ingest(start_command({options.program, "ingest", "--from", "fifo:" + dir / "fifo", "--to",
                                      dir / "in", "--header", "--max-seconds", fmt::format("{}", file_s)},
                                     dir / "ingest.out"));
  std::ofstream records(dir / "fifo");
  records << "at,c0,c1,c2,y\n";
  std::int64_t n = 0;
  const auto produce = [&] {
    for (int i = 0; i < 50; ++i) records << fmt::format("{:.3f},", unix_seconds()) << row_of(n++, 3);
    records.flush();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  };
  const Started train(start_command({options.program, "train", dir / "job.yaml"}, dir / "train.out"));
  const auto server = std::make_unique<ServerProcess>(Args{
      options.program, "serve", dir / "run", "--listen", "127.0.0.1:0", "--name", "m", "--poll-ms", "1000"});
  wait_until(
      [&] {
        produce();
        return served_event(*server) > 0;
      },
      "the first version");
  Ages ages;
  for (const double end = unix_seconds() + measured_s; unix_seconds() < end;) {
    produce();
    ages.served(served_event(*server), unix_seconds());
  }
  const std::string what =
      fmt::format("record to served, files of {:g} s, saves each {:g} s", file_s, save_s);
  Figures figures{plain_figure("V11", what + ": median", "s", {ages.quantile(0.5)}, kMedianGoal),
                  plain_figure("V11", what + ": p95", "s", {ages.quantile(0.95)}, kTailGoal)};
  // Nothing comes any more.
  std::this_thread::sleep_for(std::chrono::seconds(options.is_small ? 2 : 6));
  const double idle_s = options.is_small ? 1 : 10, before = train.cpu_seconds();
  std::this_thread::sleep_for(std::chrono::duration<double>(idle_s));
  figures.push_back(plain_figure("V12", "share of a core, idle follow", "",
                                 {std::max(1e-6, (train.cpu_seconds() - before) / idle_s)}, kIdleGoal));
  return figures;
}

}  // namespace varscope::bench
