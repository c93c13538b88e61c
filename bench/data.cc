// Reading, training and predicting beside what bounds them, in the same run (docs/performance.md, P12 to
// P16):
//   data [--mib N] [--trials N] [--smoke]
// P12, P13: text of numbers as CSV and as libsvm, parsed by one thread, over finding its line ends with
// memchr; beside pandas, LightGBM and scikit-learn where Python has them. P14: logistic regression on a9a
// over PyTorch with one thread, where VARSCOPE_DATA and PyTorch are there. P15: predicting with a perceptron
// over the same matrix products alone. P16: training from a kept table over training from memory.
#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "bench/bench.h"
#include "bench/products.h"
#include "bench/program.h"
#include "common/base/error.h"
#include "common/base/philox.h"
#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"
#include "launch/job/load_config.h"
#include "launch/job/loaded_model.h"
#include "worker/data/source_registry.h"
#include "worker/kernels/blas.h"
#include "worker/train/predictor.h"

namespace varscope::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  int mib = 64, trials = 5, rows = 65536;
  std::string program = VARSCOPE_BINARY, configs = VARSCOPE_CONFIGS, peers = VARSCOPE_PEERS;
  bool smoke = false;
};

constexpr std::int64_t kColumns = 10;

// Rows of a label and ten numbers, as programs print measurements, until there are `bytes`.
std::string csv_text(std::size_t bytes) {
  const RandomStream random(1, RandomPurpose::test, 0);
  std::string text = "y";
  for (std::int64_t k = 0; k < kColumns; ++k) text += fmt::format(",x{}", k);
  text += "\n";
  for (std::uint64_t row = 0; text.size() < bytes; ++row) {
    const std::uint64_t at = row * (kColumns + 1);
    text += random.uniform(at) < 0.5 ? "0" : "1";
    for (std::uint64_t k = 1; k <= kColumns; ++k)
      text += fmt::format(",{:.5f}", 100 * random.uniform(at + k) - 50);
    text += "\n";
  }
  return text;
}

// Rows of a label and ten of a hundred features.
std::string libsvm_text(std::size_t bytes) {
  const RandomStream random(2, RandomPurpose::test, 0);
  std::string text;
  for (std::uint64_t row = 0; text.size() < bytes; ++row) {
    const std::uint64_t at = row * 2 * (kColumns + 1);
    text += random.uniform(at) < 0.5 ? "-1" : "+1";
    for (std::uint64_t k = 1; k <= kColumns; ++k)
      text += fmt::format(" {}:{:.4f}", 10 * k - random.below(at + k, 10), random.uniform(at + kColumns + k));
    text += "\n";
  }
  return text;
}

std::int64_t count_lines(const std::string& text) {
  std::int64_t lines = 0;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at < end && (at = static_cast<const char*>(
                          std::memchr(at, '\n', static_cast<std::size_t>(end - at)))) != nullptr) {
    ++lines;
    ++at;
  }
  return lines;
}

// What the peers print, or what they lack, a line each; nothing without Python.
std::vector<std::string> peers_say(const Options& options, const Args& arguments) {
  const ScratchDir dir;
  Args command = {"python3", options.peers};
  command.insert(command.end(), arguments.begin(), arguments.end());
  try {
    run_command(command, dir / "output");
  } catch (const std::exception&) {
    return {};
  }
  std::ifstream output(dir / "output");
  std::vector<std::string> lines;
  for (std::string line; std::getline(output, line);) lines.push_back(line);
  return lines;
}

void measure_text(const Options& options, const std::string& name, const std::string& text,
                  const std::string& source) {
  const ScratchDir dir;
  const std::string file = dir / "rows." + name;
  std::ofstream(file) << text;
  const JobConfig job = parse_job(
      read_yaml_text("job: {name: b}\ndata: {train: {type: " + name + ", files: " + file + source + "}}\n" +
                         "model: {loss: sigmoid_cross_entropy, layers: [{type: dense, units: 1}]}\n",
                     "bench"),
      "bench");
  std::vector<double> speeds, ratios;
  std::int64_t rows = 0;
  for (int i = 0; i < options.trials; ++i) {
    std::int64_t lines = 0;
    const double scan = seconds_of([&] { lines = count_lines(text); });
    const double parse = seconds_of([&] { rows = open_source(job.data.train, {})->size(); });
    if (rows < 1 || lines < rows) fail(ErrorKind::argument, "{}: {} rows of {} lines", name, rows, lines);
    speeds.push_back(static_cast<double>(text.size()) / parse);
    ratios.push_back(scan / parse);
  }
  const Spread speed = Spread::of(speeds), ratio = Spread::of(ratios);
  fmt::print("{:<8} {:>8.1f} MB/s   {:.3f} [{:.3f} .. {:.3f}] of memchr over the same bytes\n", name,
             speed.median * 1e-6, ratio.median, ratio.min, ratio.max);
  require_positive(name, speed);
  for (const std::string& line : peers_say(options, {name, file})) fmt::print("{:<8}   {}\n", "", line);
  std::fflush(stdout);
}

// Training from the kept table over training from memory, in pairs of jobs.
void measure_cache(const Options& options, const std::string& text) {
  const ScratchDir dir;
  std::ofstream(dir / "rows.csv") << text;
  std::ofstream(dir / "job.yaml")
      << "job: {name: b}\ndata: {train: {type: csv, files: rows.csv, schema: {label: {column: y}}}}\n"
         "model: {loss: sigmoid_cross_entropy, layers: [{type: dense, units: 1}]}\n"
         "train: {batch: 128, metrics: []}\ncheckpoint: {at_end: false}\n";
  const auto speed = [&](const std::string& cache, int take) {
    const std::string run = fmt::format("{}-{}", cache == "none" ? "memory" : "cache", take);
    run_command({options.program, "train", dir / "job.yaml", "--set", "job.run_dir=" + dir / run, "--set",
                 "data.cache=" + cache, "--set", fmt::format("train.epochs={}", options.smoke ? 1 : 5)},
                dir / "output");
    return speed_in(dir / (run + "/metrics.jsonl"));
  };
  speed(dir / "cache", 0);  // makes the table
  std::vector<double> speeds, ratios;
  for (int i = 1; i <= options.trials; ++i) {
    const double memory = speed("none", i);
    speeds.push_back(speed(dir / "cache", i));
    ratios.push_back(speeds.back() / memory);
  }
  const Spread kept = Spread::of(speeds), ratio = Spread::of(ratios);
  fmt::print("cache    {:>8.0f} rows/s   {:.3f} [{:.3f} .. {:.3f}] of training from memory\n", kept.median,
             ratio.median, ratio.min, ratio.max);
  require_positive("cache", kept);
  std::fflush(stdout);
}

void measure_a9a(const Options& options) {
  const char* data = std::getenv("VARSCOPE_DATA");
  if (data == nullptr || !fs::exists(fs::path(data) / "a9a")) {
    fmt::print("a9a      not measured: launch/get_data.sh a9a, and VARSCOPE_DATA\n");
    return;
  }
  std::vector<double> speeds;
  for (int i = 0; i < options.trials; ++i) {
    const ScratchDir dir;
    run_command(
        {options.program, "train", options.configs + "/a9a_logreg.yaml", "--set",
         "job.run_dir=" + dir / "run", "--set", "checkpoint.every_steps=0", "--set",
         "checkpoint.at_end=false", "--set", "train.epochs=" + std::to_string(options.smoke ? 1 : 10)},
        dir / "output");
    speeds.push_back(speed_in(dir / "run/metrics.jsonl"));
  }
  const Spread speed = Spread::of(speeds);
  fmt::print("a9a      {:>8.0f} rows/s [{:.0f} .. {:.0f}]: logistic regression, one process\n", speed.median,
             speed.min, speed.max);
  require_positive("a9a", speed);
  for (const std::string& line : peers_say(options, {"a9a", (fs::path(data) / "a9a/a9a").string()}))
    fmt::print("{:<8}   {}\n", "", line);
  std::fflush(stdout);
}

void measure_predict(const Options& options) {
  const JobConfig job = load_config(options.configs + "/digits_mlp.yaml", {});
  set_blas_threads(1);
  const LoadedModel loaded = LoadedModel::initial(job, {});
  const auto data = open_source(job.data.train, {});
  Predictor predictor(loaded.model(), data->spec(), job.model.dtype, [&](Executor& e) { loaded.bind(e); });
  const std::int64_t chunk = 1024;
  const Batch batch(data->spec(), job.model.dtype, chunk);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(chunk));
  std::iota(indices.begin(), indices.end(), 0);
  const BatchView view = batch.view(chunk);
  data->read(indices, view);
  Products products(predictor.block(), {256, 128, 64, 10});
  const std::int64_t rows = options.rows / chunk * chunk;
  std::vector<double> speeds, ratios;
  for (int i = 0; i < options.trials; ++i) {
    const double all = seconds_of([&] {
      for (std::int64_t n = 0; n < rows; n += chunk) predictor.outputs(view, chunk);
    });
    const double alone = seconds_of([&] {
      for (std::int64_t n = 0; n < rows; n += predictor.block()) products.run();
    });
    speeds.push_back(static_cast<double>(rows) / all);
    ratios.push_back(alone / all);
  }
  const Spread speed = Spread::of(speeds), ratio = Spread::of(ratios);
  fmt::print(
      "predict  {:>8.0f} rows/s   {:.3f} [{:.3f} .. {:.3f}] of the same products alone, {} rows a block\n",
      speed.median, ratio.median, ratio.min, ratio.max, predictor.block());
  require_positive("predict", speed);
}

int main_of(int argc, char** argv) {
  Options options;
  CLI::App app("Reading, training and predicting beside what bounds them");
  app.add_option("--mib", options.mib, "Size of the text")->check(CLI::Range(1, 4096));
  app.add_option("--trials", options.trials, "Takes of each figure")->check(CLI::Range(1, 1000));
  app.add_option("--rows", options.rows, "Rows to predict")->check(CLI::Range(1024, 1 << 30));
  app.add_option("--program", options.program, "The varscope program, of this build without it");
  app.add_flag("--smoke", options.smoke, "The smallest of each: does it run at all?");
  CLI11_PARSE(app, argc, argv);
  if (options.smoke) options.mib = options.trials = 1, options.rows = 2048;
  set_mpi_environment();
  const auto bytes = static_cast<std::size_t>(options.mib) << 20U;
  measure_text(options, "csv", csv_text(bytes), ", schema: {label: {column: y}}");
  measure_text(options, "libsvm", libsvm_text(bytes), "");
  measure_cache(options, csv_text(bytes));
  measure_predict(options);
  measure_a9a(options);
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("data", varscope::bench::main_of, argc, argv);
}
