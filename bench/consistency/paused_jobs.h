#pragma once

#include <string>
#include <vector>

#include "bench/figures.h"
#include "bench/program.h"

namespace varscope::bench {

// What all runs are made with.
struct ConsistencyOptions {
  int trials = 3;         // rounds: each mode once in each
  int steps = 200;        // global steps of a run of BSP
  bool is_small = false;  // the smallest sizes: does it run at all?
  std::string program;    // varscope with the layer `pause`
  std::string mpirun = "mpirun";
  std::string main_config;  // configs/fashion_mlp.yaml
  std::string two_hosts;    // bench/two_hosts.sh
};

// A consistency mode and who computes what, as the config says it.
struct Mode {
  std::string name;  // "SSP(2), dynamic"
  Args keys;         // {"cluster.consistency=ssp", ...}
};
Mode bsp_mode();
Mode delay_mode(int delay);  // BSP with cluster.delay
Mode ssp_mode(int staleness, const std::string& dealing);
Mode asp_mode(const std::string& dealing);

// A job of a perceptron on generated digits, whose workers pause by a table: keys of the layer `pause`, as
// "who: rotating".
struct PausedJob {
  std::string pause;  // "" : none, at the speed of the machine
  int units = 32;     // of the hidden layer: 267 units + 10 parameters
  int workers = 4;
  int steps = 200;
  int log_every = 0;                                    // steps; 0: no lines of metrics before the last
  int samples_of_step() const { return 16 * workers; }  // a fifth of a millisecond of work of each
};
std::string yaml_of(const PausedJob& job);

// A whole run by mpirun, of one server and so many workers, with `more` options: it writes metrics to
// dir/run/metrics.jsonl, and what it prints to dir/output. Throws std::runtime_error with what it printed
// when it fails.
void run_job(const ConsistencyOptions& options, const ScratchDir& dir, const std::string& config_file,
             int workers, const Args& keys, const Args& more = {});

// Samples per second of a run of the job, from its first step on.
double speed_of(const ConsistencyOptions& options, const PausedJob& job, const Mode& mode);

// The targets by where they are measured.
Figures measure_rotating(const ConsistencyOptions&);     // M1
Figures measure_one_slow(const ConsistencyOptions&);     // M2
Figures measure_random(const ConsistencyOptions&);       // M3
Figures measure_nobody_slow(const ConsistencyOptions&);  // M4
Figures measure_slow_link(const ConsistencyOptions&);    // M6
Figures measure_recording(const ConsistencyOptions&);    // M7

}  // namespace varscope::bench
