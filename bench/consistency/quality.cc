// What modes and compression cost in quality: accuracy beside BSP's (M5, M8), and loss over time.
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "bench/consistency/curves.h"
#include "checkpoint/storage/atomic_file.h"

namespace varscope::bench {
namespace {

constexpr int kWorkers = 4;

// Of a run: per cent of the test set that the last evaluation found right, and the last epoch's loss.
struct Quality {
  double accuracy = -1, loss = -1;
};
Quality quality_in(const std::string& metrics) {
  Quality quality;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto record = nlohmann::json::parse(line);
    const auto& event = record.at("event");
    if (event == "eval") quality.accuracy = 100 * record.at("accuracy").get<double>();
    if (event == "epoch" || event == "step") quality.loss = record.at("loss").get<double>();
  }
  if (quality.accuracy < 0 || quality.loss < 0)
    throw std::runtime_error("the run has not evaluated its model");
  return quality;
}

struct QualityRun {
  const char* name;
  const char* suffix;  // of the config's name
  Args keys;
  double most_lost;  // points
};

Quality quality_of(const ConsistencyOptions& options, const QualityRun& run, int seed) {
  const ScratchDir dir;
  std::string config = options.main_config;
  config.insert(config.rfind(".yaml"), run.suffix);
  Args keys = {fmt::format("job.seed={}", seed), "checkpoint.every_steps=0", "checkpoint.at_end=false"};
  if (options.is_small) {
    keys.push_back("train.max_steps=20");
    keys.push_back("train.log_every_steps=20");
  }
  keys.insert(keys.end(), run.keys.begin(), run.keys.end());
  run_job(options, dir, config, kWorkers, keys);
  return quality_in(text_of_file(dir / "run/metrics.jsonl"));
}

// Of each run one quality for each seed; seeds in turns.
std::vector<std::vector<Quality>> qualities_of(const ConsistencyOptions& options,
                                               const std::vector<QualityRun>& runs) {
  std::vector<std::vector<Quality>> all(runs.size());
  for (int seed = 1; seed <= options.trials; ++seed) {
    for (std::size_t i = 0; i < runs.size(); ++i) all[i].push_back(quality_of(options, runs[i], seed));
  }
  return all;
}

std::string text_of(const char* what, const QualityRun& run) {
  return fmt::format("Fashion-MNIST, {}, W={}: {}", what, kWorkers, run.name);
}

enum class Against : std::uint8_t { difference, ratio };

// One number of each seed's run beside that of another run: by the medians, and the least and most of the
// same seed. A difference is what is lost.
Figure compare(const char* target, const char* what, const QualityRun& run, double Quality::*number,
               Against against, Goal goal, const std::vector<Quality>& ours,
               const std::vector<Quality>& others) {
  std::vector<double> mine, theirs, both;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    mine.push_back(ours[i].*number);
    theirs.push_back(others[i].*number);
    both.push_back(against == Against::ratio ? mine[i] / theirs[i] : theirs[i] - mine[i]);
  }
  Figure figure{target,
                text_of(what, run),
                against == Against::ratio ? "" : "%",
                Spread::of(mine),
                Spread::of(theirs),
                Spread::of(both),
                goal};
  if (against == Against::difference) figure.ratio.median = figure.ceiling.median - figure.ours.median;
  return figure;
}

Figure points_lost(const char* target, const QualityRun& run, const std::vector<Quality>& ours,
                   const std::vector<Quality>& others) {
  return compare(target, "points of accuracy lost", run, &Quality::accuracy, Against::difference,
                 {Bound::at_most, run.most_lost}, ours, others);
}

Figure loss_ratio(const char* target, const QualityRun& run, const std::vector<Quality>& ours,
                  const std::vector<Quality>& others) {
  return compare(target, "loss of the last epoch", run, &Quality::loss, Against::ratio,
                 {Bound::at_most, 1.03}, ours, others);
}

// Where the data set is not, nothing can be said of it.
bool has_data() {
  const char* data = std::getenv("VARSCOPE_DATA");
  return std::filesystem::exists(std::filesystem::path(data != nullptr ? data : "data") / "fashion-mnist");
}
constexpr const char* kNoData =
    "the data set is not here: launch/get_data.sh fashion-mnist, or VARSCOPE_DATA=DIR";

QualityRun compressed(const char* name, const char* compression, const Args& more = {}) {
  Args keys = more;
  keys.push_back(std::string("model.compression=") + compression);
  return {name, "", keys, 1};
}

}  // namespace

Figures measure_quality(const ConsistencyOptions& options) {
  const std::vector<QualityRun> runs{{"BSP", "", {}, 0},
                                     {"SSP(2)", "_ssp", {}, 1.5},
                                     {"ASP", "_asp", {}, 1.5},
                                     {"delay 1", "_delay", {}, 1}};
  if (!has_data()) return {skipped_figure("M5", text_of("points of accuracy lost", runs[1]), {}, kNoData)};
  const auto all = qualities_of(options, runs);
  Figures figures;
  for (std::size_t i = 1; i < runs.size(); ++i) figures.push_back(points_lost("M5", runs[i], all[i], all[0]));
  return figures;
}

// What codecs keep back comes late, which adds to a momentum: those are held against a run without one.
Figures measure_compressed_quality(const ConsistencyOptions& options) {
  const Args sgd{"optimizer.type=sgd", "optimizer.learning_rate=0.1", "optimizer.momentum="};
  const std::vector<QualityRun> runs{{"none", "", {}, 0},
                                     compressed("bf16", "bf16"),
                                     compressed("bf16, values bf16", "{type: bf16, values: bf16}"),
                                     compressed("fp16", "fp16"),
                                     {"none, sgd", "", sgd, 0},
                                     compressed("onebit, sgd", "onebit", sgd),
                                     compressed("topk 1 %, sgd", "{type: topk, ratio: 0.01}", sgd)};
  if (!has_data()) return {skipped_figure("M8", text_of("points of accuracy lost", runs[1]), {}, kNoData)};
  const auto all = qualities_of(options, runs);
  Figures figures;
  std::size_t base = 0;
  for (std::size_t i = 1; i < runs.size(); ++i) {
    const bool is_base = runs[i].most_lost == 0;  // of those after it
    if (is_base) base = i;
    if (is_base) continue;
    figures.push_back(points_lost("M8", runs[i], all[i], all[base]));
    figures.push_back(loss_ratio("M8", runs[i], all[i], all[base]));
  }
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
