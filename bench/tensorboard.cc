// Training speed with output.tensorboard over that without, with and without histograms (docs/performance.md,
// P11). It starts the real program in turns, so that all see the same machine:
//   tensorboard [--rounds N] [--epochs N] [--every N] [--smoke]
#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "bench/bench.h"
#include "bench/program.h"

namespace varscope::bench {
namespace {

struct Options {
  int rounds = 5, epochs = 10, every = 100;
  std::string program = VARSCOPE_BINARY, config = VARSCOPE_CONFIG, mpirun = "mpirun";
  bool smoke = false;
};

double train(const Options& options, int workers, const Args& output) {
  const ScratchDir dir;
  Args command;
  if (workers > 0) command = {options.mpirun, "--quiet", "-n", std::to_string(1 + workers)};
  Args program = {options.program, "train", options.config, "--set", "job.run_dir=" + dir / "run", "--set",
                  "train.epochs=" + std::to_string(options.epochs),
                  // The disk is another matter.
                  "--set", "checkpoint.every_steps=0", "--set", "checkpoint.at_end=false"};
  if (options.smoke) program.insert(program.end(), {"--set", "data.train.samples=640"});
  for (const std::string& o : output) program.insert(program.end(), {"--set", o});
  command.insert(command.end(), program.begin(), program.end());
  run_command(command, dir / "output");
  return speed_in(dir / "run/metrics.jsonl");
}

void measure(const Options& options, const std::string& name, int workers) {
  const Args scalars = {"output.tensorboard=true"};
  const Args histograms = {scalars[0], "output.histogram_every_steps=" + std::to_string(options.every)};
  std::vector<double> off, with_scalars, with_histograms;
  for (int i = 0; i < options.rounds; ++i) {
    off.push_back(train(options, workers, {}));
    with_scalars.push_back(train(options, workers, scalars) / off.back());
    with_histograms.push_back(train(options, workers, histograms) / off.back());
  }
  const Spread a = Spread::of(off), b = Spread::of(with_scalars), c = Spread::of(with_histograms);
  fmt::print("{:<20} {:>9.0f}   {:>5.3f} [{:.3f} .. {:.3f}]   {:>5.3f} [{:.3f} .. {:.3f}]\n", name, a.median,
             b.median, b.min, b.max, c.median, c.min, c.max);
  std::fflush(stdout);
  require_positive(name, a);
  require_positive(name + " with scalars over without", b);
  require_positive(name + " with histograms over without", c);
}

int main_of(int argc, char** argv) {
  Options options;
  CLI::App app("Training speed with TensorBoard's events over that without");
  app.add_option("--rounds", options.rounds, "Takes of each kind, in turns")->check(CLI::Range(1, 1000));
  app.add_option("--epochs", options.epochs, "Epochs of a take")->check(CLI::Range(1, 1000000));
  app.add_option("--every", options.every, "Steps between histograms")->check(CLI::Range(1, 1000000));
  app.add_option("--program", options.program, "The varscope program, of this build without it");
  app.add_option("--config", options.config, "What it trains, configs/digits_mlp.yaml without it");
  app.add_option("--mpirun", options.mpirun, "What starts the ranks");
  app.add_flag("--smoke", options.smoke, "One round of an epoch of 640 samples: does it run at all?");
  CLI11_PARSE(app, argc, argv);
  if (options.smoke) options.rounds = options.epochs = options.every = 1;
  set_mpi_environment();
  fmt::print("{} rounds of {} epochs, histograms every {} steps; samples/s, and ratios to it\n",
             options.rounds, options.epochs, options.every);
  fmt::print("{:<20} {:>9}   {:>5} [min .. max]       {:>5} [min .. max]\n", "job", "off", "scalars",
             "histograms");
  measure(options, "1 server, 1 worker", 1);
  measure(options, "one process", 0);
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("tensorboard", varscope::bench::main_of, argc, argv);
}
