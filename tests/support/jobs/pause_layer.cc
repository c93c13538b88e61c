#include "tests/support/jobs/pause_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "common/base/philox.h"

namespace varscope::testing {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;
using Milliseconds = std::chrono::duration<double, std::milli>;

SteadyTime after(SteadyTime begin, double ms) {
  return begin + std::chrono::duration_cast<std::chrono::steady_clock::duration>(Milliseconds(ms));
}

// What the ops of one layer share: the table, and when the pause began that they are in. A late wake of one
// op shortens the next one's sleep, so that many short ones are as long as one. One thread.
struct Pause {
  PauseTable table;
  std::int64_t worker = 0, workers = 1;
  SteadyTime began = {};
};

// Sleeps to the end of the pause, or of its own piece of it.
class PausePiece final : public Op {
 public:
  // `piece_ms` 0: the pause is not cut in pieces.
  PausePiece(std::shared_ptr<Pause> pause, int number, double piece_ms)
      : pause_(std::move(pause)), number_(number), piece_ms_(piece_ms) {}
  const char* type() const override { return "pause"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    return context.type(0);
  }

  void forward(const ForwardContext& c) const override {
    std::memcpy(c.output.bytes(), c.inputs[0]->bytes(), c.output.n_bytes());
    Pause& pause = *pause_;
    if (number_ == 0) pause.began = std::chrono::steady_clock::now();
    const double all_ms = pause.table.pause_ms(pause.worker, pause.workers, c.run.step);
    const double until_ms = piece_ms_ > 0 ? std::min(all_ms, (number_ + 1) * piece_ms_) : all_ms;
    if (until_ms > number_ * piece_ms_) std::this_thread::sleep_until(after(pause.began, until_ms));
  }
  void backward(const BackwardContext& c) const override {
    if (c.output_gradient.dtype() == DType::float32) return backward_as<float>(c);
    backward_as<double>(c);
  }

 private:
  template <class T>
  static void backward_as(const BackwardContext& c) {
    const InputGradient& g = c.input_gradients[0];
    if (g.contribution == Contribution::none) return;
    const auto dy = c.output_gradient.as<T>();
    const auto dx = g.gradient->as<T>();
    for (std::size_t i = 0; i < dy.size(); ++i)
      dx[i] = g.contribution == Contribution::first ? dy[i] : dx[i] + dy[i];
  }

  std::shared_ptr<Pause> pause_;
  int number_;
  double piece_ms_;
};

constexpr Choice<SlowOne> kSlowOnes[] = {{SlowOne::none, "none"},
                                         {SlowOne::fixed, "fixed"},
                                         {SlowOne::rotating, "rotating"},
                                         {SlowOne::random, "random"}};
constexpr double kMostMs = 1000;

struct PauseKeys {
  PauseTable table;
  std::int64_t seed = 1, servers = 1;
  bool deaf = false;
  void describe(Keys& keys) {
    keys.key("base_ms", table.base_ms, "pause of a worker that is not slow",
             {.unit = "milliseconds", .min = 0, .max = kMostMs});
    keys.key("slow_ms", table.slow_ms, "pause of one that is",
             {.unit = "milliseconds", .min = 0, .max = kMostMs});
    keys.choice("who", table.who, kSlowOnes, "the slow worker of a step");
    keys.key("worker", table.worker, "fixed: its number", {.min = 0});
    keys.key("share", table.share, "random: the share of steps in which a worker is slow",
             {.min = 0, .max = 1});
    keys.key("seed", seed, "random: of the draws", {.min = 0});
    keys.key("servers", servers, "ranks of mpirun that are no workers, the first ones",
             {.unit = "ranks", .min = 1});
    keys.key("deaf", deaf, "sleep in one piece, and neither send nor receive meanwhile");
  }
};

LayerInfo build_pause(const LayerContext& context, PauseRank rank) {
  context.require_inputs(1);
  const auto keys = read_keys<PauseKeys>(context);
  LayerInfo info;
  info.output = context.input();
  info.text = fmt::format("pause of {:g} ms, {:g} ms of who is slow ({})", keys.table.base_ms,
                          keys.table.slow_ms, choice_name(kSlowOnes, keys.table.who));
  if (context.mode == GraphMode::evaluate) return info;
  const auto pause = std::make_shared<Pause>();
  pause->table = keys.table;
  pause->table.seed = static_cast<std::uint64_t>(keys.seed);
  const bool is_job = rank.n_ranks > keys.servers;
  pause->worker = is_job ? rank.rank - keys.servers : 0;
  pause->workers = is_job ? rank.n_ranks - keys.servers : 1;
  const double most_ms = std::max(keys.table.base_ms, keys.table.slow_ms);
  const int pieces = keys.deaf ? 1 : std::max(1, static_cast<int>(std::ceil(most_ms)));
  for (int i = 0; i < pieces; ++i) {
    info.output = context.graph.add(std::make_unique<PausePiece>(pause, i, keys.deaf ? 0.0 : 1.0),
                                    {info.output}, context.op(fmt::format("pause_{}", i)));
  }
  return info;
}

std::int64_t number_in(const char* variable, std::int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoll(text);
}

}  // namespace

bool PauseTable::is_slow(std::int64_t at, std::int64_t workers, std::int64_t step) const {
  switch (who) {
    case SlowOne::none:
      return false;
    case SlowOne::fixed:
      return at == worker;
    case SlowOne::rotating:
      return step % workers == at;
    case SlowOne::random:
      break;
  }
  const RandomStream stream(seed, RandomPurpose::test, static_cast<std::uint64_t>(step));
  return stream.uniform(static_cast<std::uint64_t>(at)) < share;
}

PauseRank PauseRank::of_environment() {
  return {number_in("OMPI_COMM_WORLD_RANK", 0), number_in("OMPI_COMM_WORLD_SIZE", 1)};
}

LayerType pause_layer(PauseRank rank) {
  return {"pause", "hands on its input, after a while",
          [rank](const LayerContext& context) { return build_pause(context, rank); },
          describe_keys<PauseKeys>};
}

}  // namespace varscope::testing
