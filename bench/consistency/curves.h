#pragma once

#include <string>
#include <vector>

#include "bench/consistency/paused_jobs.h"

namespace varscope::bench {

// A figure of a run as it goes on: of samples since the point before.
struct CurvePoint {
  double seconds = 0;
  std::int64_t step = 0;
  double loss = 0;
};
struct Curve {
  std::string name;  // "SSP(2), static"
  std::vector<CurvePoint> points;
};

// The `step` lines of a metrics.jsonl, seconds by the speed that each line tells, for steps of so many
// samples. Throws std::runtime_error where there is none.
std::vector<CurvePoint> points_in(const std::string& metrics, int samples_of_step);

// "mode,seconds,step,loss" and a line for each point; names are quoted.
std::string csv_of(const std::vector<Curve>& curves);

// An SVG of loss over seconds: a line for each curve, and its name beside its colour in the legend.
// REQUIRES a point, and finite numbers.
std::string picture_of(const std::vector<Curve>& curves, const std::string& title);

// Loss over time in each mode, where workers are slow in turns, as PATH.csv and PATH.svg; tells where
// each ended. Throws std::runtime_error.
void write_curves(const ConsistencyOptions& options, const std::string& path);

// M5: accuracy on Fashion-MNIST by the configs of each mode, W=4, beside BSP's; `trials` seeds.
Figures measure_quality(const ConsistencyOptions& options);
// M8: accuracy and loss of compressed gradients beside those in full, W=4, BSP; `trials` seeds.
Figures measure_compressed_quality(const ConsistencyOptions& options);

}  // namespace varscope::bench
