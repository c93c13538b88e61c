// Consistency modes beside BSP (docs/performance.md, M1 to M8), their quality, and their curves:
//   bench_consistency [--only M1,M3] [--trials N] [--json FILE] [--quick]
//   bench_consistency --quality [--only M8] | --curves FILE
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "bench/consistency/curves.h"
#include "bench/consistency/paused_jobs.h"
#include "bench/figure_text.h"
#include "checkpoint/storage/atomic_file.h"

namespace varscope::bench {
namespace {

const FigureGroup<ConsistencyOptions> kGroups[] = {{{"M1"}, measure_rotating},  {{"M2"}, measure_one_slow},
                                                   {{"M3"}, measure_random},    {{"M4"}, measure_nobody_slow},
                                                   {{"M6"}, measure_slow_link}, {{"M7"}, measure_recording}};
const FigureGroup<ConsistencyOptions> kQuality[] = {{{"M5"}, measure_quality},
                                                    {{"M8"}, measure_compressed_quality}};

int main_of(int argc, char** argv) {
  ConsistencyOptions options;
  options.program = VARSCOPE_PAUSED_BINARY;
  options.main_config = VARSCOPE_MAIN_CONFIG;
  options.two_hosts = VARSCOPE_TWO_HOSTS_SCRIPT;
  std::vector<std::string> only;
  std::string json_file, curves;
  bool is_quality = false;
  CLI::App app("Consistency modes beside BSP");
  app.add_option("--only", only, "Targets, as M1,M3; all without it")->delimiter(',');
  auto* trials = app.add_option("--trials", options.trials, "Rounds of all modes; of --quality: seeds")
                     ->check(CLI::Range(1, 1000));
  auto* steps =
      app.add_option("--steps", options.steps, "Global steps of a run of BSP; faster modes make more")
          ->check(CLI::Range(4, 1'000'000));
  app.add_option("--json", json_file, "Also write the figures to this file");
  app.add_flag("--quality", is_quality,
               "M5 and M8 instead: Fashion-MNIST in each mode, and compressed (VARSCOPE_DATA)");
  app.add_option("--curves", curves, "Loss over time with a slow worker instead, as FILE.csv and FILE.svg");
  app.add_option("--program", options.program, "varscope with the layer `pause`, of this build without it");
  app.add_option("--mpirun", options.mpirun, "What starts the ranks");
  app.add_flag("--quick,--smoke", options.is_small, "The smallest sizes: does it run at all?");
  CLI11_PARSE(app, argc, argv);
  const std::vector<std::string> targets = is_quality ? all_targets(kQuality) : all_targets(kGroups);
  for (const std::string& name : only) {
    if (std::ranges::find(targets, name) != targets.end()) continue;
    throw std::runtime_error(fmt::format("--only {}: there is {} {}--quality", name, fmt::join(targets, ", "),
                                         is_quality ? "with " : "without "));
  }
  if (options.is_small && trials->empty()) options.trials = 1;
  if (options.is_small && steps->empty()) options.steps = 16;
  set_mpi_environment();
  if (!curves.empty()) {
    write_curves(options, curves);
    return 0;
  }
  const nlohmann::json all =
      is_quality ? run_groups(kQuality, options, only) : run_groups(kGroups, options, only);
  if (json_file.empty()) return 0;
  PosixFs fs;
  write_named_file(fs, json_file, all.dump(2) + "\n");
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("bench_consistency", varscope::bench::main_of, argc, argv);
}
