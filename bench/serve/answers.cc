// Requests a second and their times: V1 to V5, V8 and V9.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "bench/figure_text.h"
#include "bench/serve/serve_figures.h"

namespace varscope::bench {
namespace {

constexpr int kManyConnections = 32;
constexpr double kPeerStart_s = 60;
constexpr Goal kLiveGoal{Bound::at_least, 0.9}, kOneRowGoal{Bound::at_least, 0.8};
constexpr Goal kBatchedGoal{Bound::at_least, 1.5}, kBatchedTailGoal{Bound::at_most, 1};
constexpr Goal kExactAloneGoal{Bound::at_least, 0.8}, kExactGoal{Bound::at_least, 0.7};
constexpr Goal kTailGoal{Bound::at_most, 2}, kPeerGoal{Bound::at_least, 5}, kTritonGoal{Bound::at_least, 1.2};

std::string live_request() { return http_get("/v2/health/live"); }

// A model that was just trained, in a directory of its own.
struct Served {
  explicit Served(const ServeBenchOptions& options)
      : checkpoints(train_perceptron(options, dir / "", {kWidths[1], kWidths[2]}, 10, 10)) {}
  ScratchDir dir;
  std::string checkpoints;
};

LoadResult load_on(const ServeBenchOptions& options, const ServerProcess& server, const std::string& request,
                   int connections, double rate = 0) {
  return good_load({.port = server.port(),
                    .request = request,
                    .connections = connections,
                    .seconds = options.seconds,
                    .rate = rate});
}

// Requests a second of one server over those of another.
Figure compare_speeds(const ServeBenchOptions& options, std::string target, std::string what, Goal goal,
                      const std::string& request, int connections, const ServerProcess& ours,
                      const ServerProcess& other) {
  return compare(
      options.trials, std::move(target), std::move(what), "requests/s", goal,
      [&] { return load_on(options, ours, request, connections).per_second(); },
      [&] { return load_on(options, other, request, connections).per_second(); });
}

}  // namespace

std::unique_ptr<ServerProcess> start_varscope(const ServeBenchOptions& options, const std::string& path,
                                              const Args& more) {
  Args command{options.program, "serve", path, "--listen", "127.0.0.1:0", "--name", "m"};
  command.insert(command.end(), more.begin(), more.end());
  auto server = std::make_unique<ServerProcess>(command);
  server->wait_until_ready();
  return server;
}

std::unique_ptr<ServerProcess> start_echo(const ServerProcess& ours, const std::string& request,
                                          std::int64_t rows, bool reads_json) {
  const ScratchDir dir;
  std::ofstream(dir / "answer", std::ios::binary) << ask_once(ours.port(), request);
  Args command{own_program(), "--as-echo", dir / "answer", "--echo-rows", std::to_string(rows)};
  if (reads_json) command.emplace_back("--echo-reads-json");
  return std::make_unique<ServerProcess>(command);
}

std::int64_t rows_of_one(const ServerProcess& ours) {
  const std::string answer = ask_once(ours.port(), http_get("/v2/models/m"));
  const auto json = nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
  return json.at("parameters").at("block").get<std::int64_t>();
}

LoadResult good_load(const LoadOptions& options) {
  LoadResult result = put_load(options);
  if (result.n_failed > 0)
    throw std::runtime_error(
        fmt::format("{} requests failed, the first one by {}", result.n_failed, result.first_failure));
  if (result.answers.empty()) throw std::runtime_error("no request was answered");
  return result;
}

Figures measure_live(const ServeBenchOptions& options) {
  const Served served(options);
  const auto ours = start_varscope(options, served.checkpoints);
  const auto echo = start_echo(*ours, live_request());
  Figures figures;
  for (const int n : {1, kManyConnections})
    figures.push_back(compare_speeds(options, "V1", fmt::format("live, over a bare echo, {} connections", n),
                                     kLiveGoal, live_request(), n, *ours, *echo));
  return figures;
}

Figures measure_one_row(const ServeBenchOptions& options) {
  const Served served(options);
  const auto ours = start_varscope(options, served.checkpoints);
  const std::int64_t rows = rows_of_one(*ours);
  const auto binary = start_echo(*ours, binary_request(), rows);
  const auto json = start_echo(*ours, json_request(), rows, true);
  return {compare_speeds(options, "V2",
                         fmt::format("a row, binary, over an echo and the same products ({} rows)", rows),
                         kOneRowGoal, binary_request(), 1, *ours, *binary),
          compare_speeds(options, "V2", "a row, JSON, over an echo, the products and a walk by simdjson",
                         kOneRowGoal, json_request(), 1, *ours, *json)};
}

Figures measure_batching(const ServeBenchOptions& options) {
  const Served served(options);
  const auto ours = start_varscope(options, served.checkpoints),
             alone = start_varscope(options, served.checkpoints, {"--max-batch", "1"});
  std::vector<double> speeds, others, speed_ratios, tails, other_tails, tail_ratios;
  for (int t = -1; t < options.trials; ++t) {
    const LoadResult batched = load_on(options, *ours, binary_request(), kManyConnections),
                     single = load_on(options, *alone, binary_request(), kManyConnections);
    if (t < 0) continue;
    speeds.push_back(batched.per_second());
    others.push_back(single.per_second());
    speed_ratios.push_back(speeds.back() / others.back());
    tails.push_back(batched.quantile_s(0.99) * 1e6);
    other_tails.push_back(single.quantile_s(0.99) * 1e6);
    tail_ratios.push_back(tails.back() / other_tails.back());
  }
  const std::string what = fmt::format("batches over none, {} connections", kManyConnections);
  return {{"V3", what, "requests/s", Spread::of(speeds), Spread::of(others), Spread::of(speed_ratios),
           kBatchedGoal},
          {"V3", what + ": p99", "us", Spread::of(tails), Spread::of(other_tails), Spread::of(tail_ratios),
           kBatchedTailGoal}};
}

Figures measure_exact(const ServeBenchOptions& options) {
  const Served served(options);
  const auto ours = start_varscope(options, served.checkpoints),
             other = start_varscope(options, served.checkpoints, {"--no-exact"});
  Figures figures;
  for (const int n : {1, kManyConnections})
    figures.push_back(compare_speeds(options, "V4", fmt::format("exact over not, {} connections", n),
                                     n == 1 ? kExactAloneGoal : kExactGoal, binary_request(), n, *ours,
                                     *other));
  return figures;
}

Figures measure_tail(const ServeBenchOptions& options) {
  const Served served(options);
  const auto ours = start_varscope(options, served.checkpoints);
  const auto echo = start_echo(*ours, binary_request()),
             products = start_echo(*ours, binary_request(), rows_of_one(*ours));
  const double most = load_on(options, *ours, binary_request(), kManyConnections).per_second();
  const double most_alone = load_on(options, *products, binary_request(), kManyConnections).per_second();
  const auto compare_tails = [&](const std::string& what, double rate, const ServerProcess& other) {
    const auto p99 = [&](const ServerProcess& server) {
      return load_on(options, server, binary_request(), kManyConnections, rate).quantile_s(0.99) * 1e6;
    };
    return compare(
        options.trials, "V5", fmt::format("p99 at {:.0f} requests/s, over {}", rate, what), "us", kTailGoal,
        [&] { return p99(*ours); }, [&] { return p99(other); });
  };
  return {compare_tails("a bare echo", most / 2, *echo),
          compare_tails("an echo and the products", std::min(most, most_alone) / 2, *products)};
}

Figures measure_peers(const ServeBenchOptions& options) {
  struct Peer {
    std::string target, name, what;
    bool is_binary;
    Goal goal;
  };
  const std::vector<Peer> peers{
      {"V8", "fastapi", "a row, JSON, over FastAPI, uvicorn and PyTorch", false, kPeerGoal},
      {"V8", "fastapi-numpy", "a row, JSON, over FastAPI, uvicorn and NumPy", false, kPeerGoal},
      {"V9", "mlserver", "a row, JSON, over MLServer with NumPy", false, kPeerGoal},
      {"V9", "triton", "a row, binary, over Triton with its Python backend", true, kTritonGoal}};
  const Served served(options);
  const auto ours = start_varscope(options, served.checkpoints);
  Figures figures;
  for (const Peer& peer : peers) {
    const ScratchDir dir;
    try {
      run_command({options.python, options.peers, peer.name, "--check"}, dir / "output");
    } catch (const std::runtime_error&) {
      std::string why = text_of_file(dir / "output");
      why.resize(std::min(why.find('\n'), why.size()));
      figures.push_back(skipped_figure(peer.target, peer.what, peer.goal, why));
      continue;
    }
    const std::string request = peer.is_binary ? binary_request() : json_request();
    try {
      const ServerProcess other({options.python, options.peers, peer.name}, kPeerStart_s,
                                ServerProcess::End::by_itself);
      other.wait_until_ready("/v2/models/m/ready", kPeerStart_s);
      figures.push_back(compare_speeds(options, peer.target, peer.what, peer.goal, request, 1, *ours, other));
    } catch (const std::runtime_error& e) {
      std::fprintf(stderr, "bench_serve: %s\n", e.what());
      figures.push_back(skipped_figure(peer.target, peer.what, peer.goal, "it does not answer (see above)"));
    }
  }
  return figures;
}

}  // namespace varscope::bench
