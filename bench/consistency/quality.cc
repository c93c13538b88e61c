// What a mode costs in quality: accuracy beside BSP's (M5), and loss over time.
#include <fmt/format.h>

#include <fstream>
#include <sstream>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "bench/consistency/curves.h"
#include "checkpoint/storage/atomic_file.h"

namespace varscope::bench {
namespace {

constexpr int kWorkers = 4;

// Per cent of the test set that the last evaluation found right.
double accuracy_in(const std::string& metrics) {
  double accuracy = -1;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto record = nlohmann::json::parse(line);
    if (record.at("event") == "eval") accuracy = 100 * record.at("accuracy").get<double>();
  }
  if (accuracy < 0) throw std::runtime_error("the run has not evaluated its model");
  return accuracy;
}

struct QualityRun {
  const char* name;
  const char* suffix;  // of the config's name
  double most_lost;    // points
};
constexpr QualityRun kRuns[] = {
    {"BSP", "", 0}, {"SSP(2)", "_ssp", 1.5}, {"ASP", "_asp", 1.5}, {"delay 1", "_delay", 1}};

double accuracy_of(const ConsistencyOptions& options, const QualityRun& run, int seed) {
  const ScratchDir dir;
  std::string config = options.main_config;
  config.insert(config.rfind(".yaml"), run.suffix);
  Args keys = {fmt::format("job.seed={}", seed), "checkpoint.every_steps=0", "checkpoint.at_end=false"};
  if (options.is_small) keys.push_back("train.max_steps=20");
  run_job(options, dir, config, kWorkers, keys);
  return accuracy_in(text_of_file(dir / "run/metrics.jsonl"));
}

// Points that are lost against BSP: by the medians, and the least and most of the same seed.
Figure points_lost(const QualityRun& run, const std::vector<double>& ours, const std::vector<double>& bsp) {
  std::vector<double> lost;
  lost.reserve(ours.size());
  for (std::size_t i = 0; i < ours.size(); ++i) lost.push_back(bsp[i] - ours[i]);
  Figure figure{"M5",
                fmt::format("Fashion-MNIST, points of accuracy lost, W={}: {}", kWorkers, run.name),
                "%",
                Spread::of(ours),
                Spread::of(bsp),
                Spread::of(lost),
                {Bound::at_most, run.most_lost}};
  figure.ratio.median = figure.ceiling.median - figure.ours.median;
  return figure;
}

}  // namespace

Figures measure_quality(const ConsistencyOptions& options) {
  std::vector<std::vector<double>> accuracies(std::size(kRuns));
  for (int seed = 1; seed <= options.trials; ++seed) {
    for (std::size_t i = 0; i < std::size(kRuns); ++i)
      accuracies[i].push_back(accuracy_of(options, kRuns[i], seed));
  }
  Figures figures;
  for (std::size_t i = 1; i < std::size(kRuns); ++i)
    figures.push_back(points_lost(kRuns[i], accuracies[i], accuracies[0]));
  return figures;
}

void write_curves(const ConsistencyOptions& options, const std::string& path) {
  PausedJob job;
  job.workers = kWorkers;
  job.steps = options.is_small ? options.steps : 3 * options.steps;
  job.log_every = options.is_small ? 4 : 10;
  job.pause = "base_ms: 5, slow_ms: 50, who: rotating";
  std::vector<Curve> curves;
  for (const Mode& mode : {bsp_mode(), ssp_mode(2, "static"), asp_mode("static")}) {
    const ScratchDir dir;
    std::ofstream(dir / "job.yaml") << yaml_of(job);
    run_job(options, dir, dir / "job.yaml", job.workers, mode.keys);
    curves.push_back({mode.name, points_in(text_of_file(dir / "run/metrics.jsonl"), job.samples_of_step())});
    const CurvePoint& last = curves.back().points.back();
    fmt::print("{:<16} {:.2f} s to step {}, loss {:.4f}\n", mode.name, last.seconds, last.step, last.loss);
  }
  PosixFs fs;
  write_named_file(fs, path + ".csv", csv_of(curves));
  write_named_file(fs, path + ".svg",
                   picture_of(curves, fmt::format("{} workers, each 10x slower in turns", job.workers)));
  fmt::print("wrote {0}.csv and {0}.svg\n", path);
}

}  // namespace varscope::bench
