// Training speed beside processes that burn the CPU, over the quiet speed (docs/performance.md, P8). It
// starts the real program, quiet and beside as many hogs as there are cores in turns, so that both see the
// same machine:
//   busy [--pairs N] [--epochs N] [--hogs N] [--json FILE] [--smoke]
// The hogs are of this session, and then each of one of its own: Linux shares the CPU between sessions first.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "bench/cpu_hogs.h"
#include "bench/program.h"
#include "checkpoint/storage/atomic_file.h"

namespace varscope::bench {
namespace {

struct Options {
  int pairs = 5, epochs = 10;
  int hogs = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::string program = VARSCOPE_BINARY, config = VARSCOPE_CONFIG, mpirun = "mpirun", json_file;
  bool smoke = false;
};

struct Job {
  std::string name;
  int workers;  // and a server; 0: all in one process
};

double train(const Options& options, const Job& job) {
  const ScratchDir dir;
  Args command;
  if (job.workers > 0) command = {options.mpirun, "--quiet", "-n", std::to_string(1 + job.workers)};
  Args program = {options.program, "train", options.config, "--set", "job.run_dir=" + dir / "run", "--set",
                  "train.epochs=" + std::to_string(options.epochs),
                  // The disk is another matter.
                  "--set", "checkpoint.every_steps=0", "--set", "checkpoint.at_end=false"};
  if (options.smoke) program.insert(program.end(), {"--set", "data.train.samples=640"});
  command.insert(command.end(), program.begin(), program.end());
  run_command(command, dir / "output");
  return speed_in(dir / "run/metrics.jsonl");
}

struct Row {
  std::string job, hogs;
  Spread quiet, busy, ratio;  // samples/s; the ratio pair by pair
};

// A quiet take before each busy one: what else the machine does changes slowly.
Row measure(const Options& options, const Job& job, HogSession session) {
  std::vector<double> quiet, busy, ratio;
  for (int i = 0; i < options.pairs; ++i) {
    quiet.push_back(train(options, job));
    const CpuHogs hogs(options.hogs, session);
    busy.push_back(train(options, job));
    ratio.push_back(busy.back() / quiet.back());
  }
  return {job.name, session == HogSession::ours ? "same session" : "own sessions", Spread::of(quiet),
          Spread::of(busy), Spread::of(ratio)};
}

void print(const Row& r) {
  fmt::print("{:<20} {:<13} {:>9.0f} {:>9.0f}   {:>5.2f} [{:.2f} .. {:.2f}]\n", r.job, r.hogs, r.quiet.median,
             r.busy.median, r.ratio.median, r.ratio.min, r.ratio.max);
  std::fflush(stdout);
}

nlohmann::json to_json(const Spread& s) { return {{"median", s.median}, {"min", s.min}, {"max", s.max}}; }

void run(Options options) {
  if (options.smoke) options.pairs = options.epochs = 1;
  set_mpi_environment();
  fmt::print("{} hogs on {} cores, {} pairs of takes of {} epochs; samples/s\n", options.hogs,
             std::thread::hardware_concurrency(), options.pairs, options.epochs);
  fmt::print("{:<20} {:<13} {:>9} {:>9}   {:>5} [min .. max]\n", "job", "hogs", "quiet", "busy", "ratio");
  nlohmann::json rows = nlohmann::json::array();
  for (const Job& job :
       {Job{"1 server, 2 workers", 2}, Job{"1 server, 1 worker", 1}, Job{"one process", 0}}) {
    for (HogSession session : {HogSession::ours, HogSession::own}) {
      const Row row = measure(options, job, session);
      print(row);
      require_positive(row.job + " beside hogs over quiet", row.ratio);
      rows.push_back({{"job", row.job},
                      {"hogs", row.hogs},
                      {"quiet_samples_per_s", to_json(row.quiet)},
                      {"busy_samples_per_s", to_json(row.busy)},
                      {"ratio", to_json(row.ratio)}});
    }
  }
  if (!options.json_file.empty()) {
    PosixFs fs;
    write_named_file(fs, options.json_file, rows.dump(2) + "\n");
  }
}

int main_of(int argc, char** argv) {
  Options options;
  CLI::App app("Training speed beside processes that burn the CPU, over the quiet speed");
  app.add_option("--pairs", options.pairs, "Pairs of a quiet and a busy take")->check(CLI::Range(1, 1000));
  app.add_option("--epochs", options.epochs, "Epochs of a take")->check(CLI::Range(1, 1000000));
  app.add_option("--hogs", options.hogs, "Processes that burn the CPU; as many as cores without it")
      ->check(CLI::Range(1, 1000));
  app.add_option("--program", options.program, "The varscope program, of this build without it");
  app.add_option("--config", options.config, "What it trains, configs/digits_mlp.yaml without it");
  app.add_option("--mpirun", options.mpirun, "What starts the ranks");
  app.add_option("--json", options.json_file, "Also write the figures to this file");
  app.add_flag("--smoke", options.smoke, "One pair of an epoch of 640 samples: does it run at all?");
  CLI11_PARSE(app, argc, argv);
  run(options);
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("busy", varscope::bench::main_of, argc, argv);
}
