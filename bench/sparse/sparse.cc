// Sparse tables beside what bounds them, in one run (docs/performance.md, E1 to E13):
//   sparse [--only E1,E3] [--trials N] [--json FILE] [--smoke]
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "bench/figure_text.h"
#include "bench/program.h"
#include "bench/sparse/figures.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"

namespace varscope::bench {
namespace {

const FigureGroup<SparseOptions> kGroups[] = {
    {{"E1"}, measure_reads},    {{"E2"}, measure_updates},      {{"E3", "E13"}, measure_exchange},
    {{"E4"}, measure_training}, {{"E5"}, measure_unique},       {{"E6", "E7"}, measure_growth},
    {{"E8"}, measure_churn},    {{"E9", "E10"}, measure_saves}, {{"E12"}, measure_hash_and_cut},
    {{"E12"}, measure_dense}};

int main_of(int argc, char** argv) {
  SparseOptions options;
  options.program = VARSCOPE_BINARY;
  options.peer = VARSCOPE_PEER;
  std::vector<std::string> only;
  std::string json_file;
  bool as_rank = false;
  CLI::App app("Sparse tables beside what bounds them");
  app.add_option("--only", only, "Targets, as E1,E3; all without it")
      ->delimiter(',')
      ->check(CLI::IsMember(all_targets(kGroups)));
  app.add_option("--trials", options.trials, "Takes of each figure")->check(CLI::Range(1, 1000));
  auto* growth = app.add_option("--growth-rows", options.growth_rows, "Rows that E6 and E7 grow a table to")
                     ->check(CLI::Range(1 << 16, 1'000'000'000));
  app.add_option("--json", json_file, "Also write the figures to this file");
  app.add_option("--dir", options.dir,
                 "Where E9 and E10 write; a folder of the system's for such without it");
  app.add_option("--program", options.program, "The varscope program, of this build without it");
  app.add_option("--before", options.before, "A varscope program without tables, for E12");
  app.add_option("--python", options.python, "What starts Python, for E4");
  app.add_option("--mpirun", options.mpirun, "What starts the ranks of E3 and E12");
  app.add_flag("--smoke", options.is_small, "The smallest sizes: does it run at all?");
  app.add_flag("--as-rank", as_rank, "This is a rank of E3")->group("");
  CLI11_PARSE(app, argc, argv);
  if (options.is_small) options.trials = 1;
  if (options.is_small && growth->empty()) options.growth_rows = 64 << 10;
  if (as_rank) return exchange_as_rank(options, argc, argv);
  const nlohmann::json all = run_groups(kGroups, options, only);
  if (json_file.empty()) return 0;
  PosixFs fs;
  write_named_file(fs, json_file, all.dump(2) + "\n");
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("sparse", varscope::bench::main_of, argc, argv);
}
