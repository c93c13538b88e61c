// The program itself: training with a table beside PyTorch (E4), and a model without tables beside what an
// earlier program makes of it (E12).
#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "bench/program.h"
#include "bench/sparse/figures.h"
#include "common/base/error.h"

namespace varscope::bench {
namespace {

constexpr Goal kTorchGoal{Bound::at_least, 2}, kDenseGoal{Bound::at_least, 0.99};

// The job of bench/sparse_torch.py: 26 fields of so many words, batches of 2048.
std::string click_job(const std::string& rule, int steps, bool is_small) {
  return fmt::format(R"(job: {{name: clicks}}
data: {{train: {{type: synthetic, generate: ctr, samples: 100000000, features: 26, vocabulary: {}, exponent: 1.1, numbers: 13}}}}
model:
  loss: sigmoid_cross_entropy
  layers:
    - {{type: embedding, scope: rows, input: words, units: 16, combiner: sum, table: {{ids: uint64}}, name: rows}}
    - {{type: concat, inputs: [rows, numbers]}}
    - {{type: dense, scope: logit, units: 1}}
optimizer: {}
train: {{batch: 2048, max_steps: {}, metrics: []}}
checkpoint: {{every_steps: 0, at_end: false}}
)",
                     is_small ? 1000 : 100'000,
                     rule == "adam" ? "{type: adam, learning_rate: 0.001, correction: clock}"
                                    : "{type: adagrad, learning_rate: 0.1}",
                     steps);
}

std::string text_of(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Samples/s on one core.
double train_clicks(const SparseOptions& options, const std::string& rule, int steps) {
  const ScratchDir dir;
  std::ofstream(dir / "job.yaml") << click_job(rule, steps, options.is_small);
  run_command({"taskset", "-c", "0", options.program, "train", dir / "job.yaml", "--set",
               "job.run_dir=" + dir / "run"},
              dir / "output");
  return speed_in(dir / "run/metrics.jsonl");
}

double train_torch(const SparseOptions& options, const std::string& rule, int steps) {
  const ScratchDir dir;
  Args command = {"taskset", "-c", "0", options.python, options.peer, rule, "--steps", std::to_string(steps)};
  if (options.is_small) command.insert(command.end(), {"--vocabulary", "1000"});
  run_command(command, dir / "output");
  return std::stod(text_of(dir / "output"));
}

bool has_torch(const SparseOptions& options) {
  const ScratchDir dir;
  try {
    run_command({options.python, "-c", "import torch"}, dir / "output");
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

// Samples/s of the perceptron on a server and a worker.
double train_dense(const SparseOptions& options, const std::string& program) {
  const ScratchDir dir;
  Args command = {options.mpirun, "--quiet", "-n", "2", program, "train", VARSCOPE_CONFIG,
                  // The disk is another matter.
                  "--set", "checkpoint.every_steps=0", "--set", "checkpoint.at_end=false", "--set",
                  fmt::format("train.epochs={}", options.is_small ? 1 : 20), "--set",
                  "job.run_dir=" + dir / "run"};
  run_command(command, dir / "output");
  return speed_in(dir / "run/metrics.jsonl");
}

}  // namespace

SparseFigures measure_training(const SparseOptions& options) {
  SparseFigures figures;
  const bool has_peer = has_torch(options);
  for (const std::string rule : {"adam", "adagrad"}) {
    const std::string what = fmt::format("samples trained on one core, {}, over PyTorch's {}", rule,
                                         rule == "adam" ? "SparseAdam" : "Adagrad");
    if (!has_peer) {
      figures.push_back(skipped_figure("E4", what, kTorchGoal, "python3-torch is not installed"));
      continue;
    }
    const int steps = options.is_small ? 3 : 200;
    figures.push_back(compare(
        options.trials, "E4", what, "samples/s", kTorchGoal,
        [&] { return train_clicks(options, rule, steps); },
        [&] { return train_torch(options, rule, steps / 2 + 1); }));
  }
  return figures;
}

SparseFigures measure_dense(const SparseOptions& options) {
  const std::string what = "samples of a model without tables, over a program that has none";
  if (options.before.empty()) return {skipped_figure("E12", what, kDenseGoal, "give that program: --before")};
  set_mpi_environment();
  return {compare(
      options.trials, "E12", what, "samples/s", kDenseGoal,
      [&] { return train_dense(options, options.program); },
      [&] { return train_dense(options, options.before); })};
}

}  // namespace varscope::bench
