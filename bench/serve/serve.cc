// The server of predictions beside what bounds it and beside its peers, in one run (docs/performance.md,
// V1 to V12):
//   bench_serve [--only V1,V3] [--trials N] [--json FILE] [--smoke]
#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "bench/figure_text.h"
#include "bench/program.h"
#include "bench/serve/echo.h"
#include "bench/serve/serve_figures.h"
#include "checkpoint/storage/atomic_file.h"

namespace varscope::bench {
namespace {

const FigureGroup<ServeBenchOptions> kGroups[] = {
    {{"V1"}, measure_live},      {{"V2"}, measure_one_row},
    {{"V3"}, measure_batching},  {{"V4"}, measure_exact},
    {{"V5"}, measure_tail},      {{"V6"}, measure_swaps},
    {{"V7"}, measure_loads},     {{"V8", "V9"}, measure_peers},
    {{"V10"}, measure_followed}, {{"V11", "V12"}, measure_freshness},
    {{"V12"}, measure_idle}};

int main_of(int argc, char** argv) {
  ServeBenchOptions options;
  options.program = VARSCOPE_BINARY;
  options.peers = VARSCOPE_PEERS;
  EchoOptions echo;
  std::vector<std::string> only;
  std::string json_file;
  CLI::App app("The server of predictions beside what bounds it");
  app.add_option("--only", only, "Targets, as V1,V3; all without it")
      ->delimiter(',')
      ->check(CLI::IsMember(all_targets(kGroups)));
  app.add_option("--trials", options.trials, "Takes of each figure")->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.seconds, "Of a take")->check(CLI::Range(0.01, 1000.0));
  app.add_option("--json", json_file, "Also write the figures to this file");
  app.add_option("--program", options.program, "The varscope program, of this build without it");
  app.add_option("--python", options.python, "What starts Python, for V8 and V9");
  app.add_flag("--smoke", options.is_small, "The smallest sizes: does it run at all?");
  app.add_option("--as-echo", echo.answer, "This is a bare server with this answer")->group("");
  app.add_option("--echo-rows", echo.rows, "Of its products")->group("");
  app.add_flag("--echo-reads-json", echo.reads_json, "It reads bodies")->group("");
  CLI11_PARSE(app, argc, argv);
  if (!echo.answer.empty()) {
    echo.widths = kWidths;
    return run_echo(echo);
  }
  if (options.is_small) {
    options.trials = 1;
    options.seconds = 0.05;
  }
  pin_to_core(kClientCore);
  const nlohmann::json all = run_groups(kGroups, options, only);
  if (json_file.empty()) return 0;
  PosixFs fs;
  write_named_file(fs, json_file, all.dump(2) + "\n");
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("bench_serve", varscope::bench::main_of, argc, argv);
}
