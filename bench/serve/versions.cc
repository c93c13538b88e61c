// Versions that come, and connections that wait: V6, V7 and V12.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/serve/serve_figures.h"

namespace varscope::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kApart = 500;  // steps from save to save, which take longer than a save
constexpr Goal kSwapGoal{Bound::at_most, 3}, kFailedGoal{Bound::at_most, 0};
constexpr Goal kLoadGoal{Bound::at_least, 0.7}, kIdleGoal{Bound::at_most, 0.01};

// Names of checkpoints, oldest first.
std::vector<std::string> checkpoints_in(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().filename().string().starts_with("step-")) names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

std::int64_t served_step(const ServerProcess& server) {
  const std::string answer = ask_once(server.port(), http_get("/v2/models/m"));
  const auto json = nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
  return json.at("parameters").at("step").get<std::int64_t>();
}

double load_seconds(const ServerProcess& server) {
  const std::optional<double> seconds = server.metric("varscope_version_load_seconds");
  if (!seconds) throw std::runtime_error("/metrics does not say how long a version took to load");
  return *seconds;
}

// Seconds that it takes to read a checkpoint's files and to copy what is read, into fresh memory both.
double read_and_copy_s(const std::string& checkpoint) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(checkpoint)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  return seconds_of([&] {
    for (const std::string& file : files) {
      const auto n = static_cast<std::size_t>(fs::file_size(file));
      const auto bytes = std::make_unique_for_overwrite<char[]>(n),
                 copy = std::make_unique_for_overwrite<char[]>(n);
      std::ifstream in(file, std::ios::binary);
      if (!in.read(bytes.get(), static_cast<std::streamsize>(n)))
        throw std::runtime_error("cannot read " + file);
      std::memcpy(copy.get(), bytes.get(), n);
      if (n > 0 && copy[n - 1] != bytes[n - 1]) throw std::runtime_error("the copy is another one");
    }
  });
}

}  // namespace

// A run's checkpoints lie beside the directory that is served; each take moves the next one in, as a commit
// does, in the middle of an even load.
Figures measure_swaps(const ServeBenchOptions& options) {
  const double around_s = options.is_small ? 0.5 : 2, poll_s = 0.1;
  const ScratchDir dir;
  const int n_versions = options.trials + 2;
  const std::string made =
      train_perceptron(options, dir / "", {kWidths[1], kWidths[2]}, kApart * n_versions, kApart);
  const std::vector<std::string> names = checkpoints_in(made);
  if (std::ssize(names) < n_versions)
    throw std::runtime_error(fmt::format("{} checkpoints in {}, not {}", names.size(), made, n_versions));
  const std::string served = dir / "served";
  fs::create_directory(served);
  const auto move_in = [&](std::size_t i) { fs::rename(made + "/" + names[i], served + "/" + names[i]); };
  move_in(0);
  const auto ours = start_varscope(options, served, {"--poll-ms", fmt::format("{:.0f}", poll_s * 1000)});
  LoadOptions load{
      .port = ours->port(), .request = binary_request(), .connections = 32, .seconds = options.seconds};
  load.rate = good_load(load).per_second() / 2;
  load.seconds = 2 * around_s;
  load.event_s = around_s;
  std::vector<double> quiet, swapping, ratios, failed;
  for (int t = -1; t < options.trials; ++t) {
    const auto next = static_cast<std::size_t>(t + 2);
    load.event = [&] { move_in(next); };
    const LoadResult result = put_load(load);
    const std::int64_t due = std::stoll(names[next].substr(5));
    if (served_step(*ours) != due)
      throw std::runtime_error(fmt::format("step {} is not served {} s after its commit", due, around_s));
    if (t < 0) continue;
    quiet.push_back(result.quantile_s(0.99, 0, around_s) * 1e6);
    swapping.push_back(result.quantile_s(0.99, around_s) * 1e6);
    ratios.push_back(swapping.back() / quiet.back());
    failed.push_back(static_cast<double>(result.n_failed));
  }
  return {
      {"V6",
       fmt::format("p99 in the {} s after a commit over quiet p99, {:.0f} requests/s", around_s, load.rate),
       "us", Spread::of(swapping), Spread::of(quiet), Spread::of(ratios), kSwapGoal},
      count_figure("V6", "failed requests of a swap", failed, kFailedGoal)};
}

Figures measure_loads(const ServeBenchOptions& options) {
  const ScratchDir dir;
  const std::vector<std::int64_t> hidden =
      options.is_small ? std::vector<std::int64_t>{64, 32} : std::vector<std::int64_t>{6144, 7168};
  const std::string made = train_perceptron(options, dir / "", hidden, 1, 1);
  const std::string checkpoint = made + "/" + checkpoints_in(made).back();
  std::int64_t n_values = 0, width = kWidths.front();
  for (const std::int64_t next : hidden) n_values += std::exchange(width, next) * next;
  const double mb = static_cast<double>(n_values) * sizeof(float) * 1e-6;
  return {compare(
      options.trials, "V7", fmt::format("load of a version, {:.1f} MB, over reading and memcpy", mb), "MB/s",
      kLoadGoal, [&] { return mb / load_seconds(*start_varscope(options, made)); },
      [&] { return mb / read_and_copy_s(checkpoint); })};
}

Figures measure_idle(const ServeBenchOptions& options) {
  const int n = options.is_small ? 100 : 1000;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  const ScratchDir dir;
  const auto ours =
      start_varscope(options, train_perceptron(options, dir / "", {kWidths[1], kWidths[2]}, 10, 10));
  const IdleConnections idle(ours->port(), http_get("/v2/health/live"), n);
  const double wait_s = options.is_small ? 1 : 4;
  std::vector<double> shares;
  for (int t = 0; t < options.trials; ++t) {
    const double before = ours->cpu_seconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(wait_s));
    shares.push_back((ours->cpu_seconds() - before) / wait_s);
  }
  return {
      plain_figure("V12", fmt::format("share of a core with {} idle connections", n), "", shares, kIdleGoal)};
}

}  // namespace varscope::bench
