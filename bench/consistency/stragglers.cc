// Whole runs with slow workers in each mode, as ratios to BSP (M1 to M4). The pauses take no CPU, and are the
// same in every run: a few ranks on two cores show what as many machines would.
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bench/consistency/paused_jobs.h"

namespace varscope::bench {
namespace {

struct Contender {
  Mode mode;
  Goal goal;
};

constexpr Goal at_least(double value) { return {Bound::at_least, value}; }

// So many steps that the run takes about as long as that of BSP: ends and beginnings then weigh the same.
PausedJob as_long(PausedJob job, const Contender& contender) {
  job.steps *= std::max(1, static_cast<int>(contender.goal.value));
  return job;
}

// The modes in turns, BSP first, round by round: each ratio is of two runs of one round.
Figures race(const ConsistencyOptions& options, const std::string& target, const std::string& what,
             const PausedJob& job, const std::vector<Contender>& contenders) {
  std::vector<double> bsp;
  std::vector<std::vector<double>> speeds(contenders.size()), ratios(contenders.size());
  for (int t = 0; t < options.trials; ++t) {
    bsp.push_back(speed_of(options, job, bsp_mode()));
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      speeds[i].push_back(speed_of(options, as_long(job, contenders[i]), contenders[i].mode));
      ratios[i].push_back(speeds[i].back() / bsp.back());
    }
  }
  Figures figures;
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    figures.push_back({target, fmt::format("{}, W={}: {}", what, job.workers, contenders[i].mode.name),
                       "samples/s", Spread::of(speeds[i]), Spread::of(bsp), Spread::of(ratios[i]),
                       contenders[i].goal});
  }
  return figures;
}

// In the smallest size a slow worker is slow enough to tell, and no more.
PausedJob job_of(const ConsistencyOptions& options, const std::string& who, int workers) {
  PausedJob job;
  job.workers = workers;
  job.steps = options.steps;
  job.pause =
      fmt::format("base_ms: {}, slow_ms: {}, {}", options.is_small ? 1 : 5, options.is_small ? 10 : 50, who);
  return job;
}

void append(Figures& to, Figures more) {
  for (Figure& figure : more) to.push_back(std::move(figure));
}

}  // namespace

Figures measure_rotating(const ConsistencyOptions& options) {
  const std::string what = "each worker 10x slower in turns";
  // Dealt out, a worker could pass its slow steps on to others: who is slow in a step is slow then.
  Figures figures = race(options, "M1", what, job_of(options, "who: rotating", 4),
                         {{ssp_mode(2, "static"), at_least(2.5)},
                          {ssp_mode(4, "static"), at_least(2.6)},
                          {asp_mode("static"), at_least(2.6)},
                          {delay_mode(1), at_least(1.6)},
                          {delay_mode(2), at_least(2.4)}});
  append(figures, race(options, "M1", what, job_of(options, "who: rotating", 2),
                       {{ssp_mode(2, "static"), at_least(1.6)}, {asp_mode("static"), at_least(1.6)}}));
  return figures;
}

Figures measure_one_slow(const ConsistencyOptions& options) {
  return race(options, "M2", "one worker 10x slower", job_of(options, "who: fixed, worker: 0", 4),
              {{ssp_mode(2, "dynamic"), at_least(2.5)},
               {ssp_mode(4, "dynamic"), at_least(4.2)},
               {asp_mode("dynamic"), at_least(6.5)},
               {ssp_mode(4, "static"), at_least(0.95)}});
}

Figures measure_random(const ConsistencyOptions& options) {
  return race(options, "M3", "a tenth of all steps 10x slower", job_of(options, "who: random, share: 0.1", 4),
              {{ssp_mode(2, "dynamic"), at_least(1.3)},
               {asp_mode("dynamic"), at_least(1.8)},
               {delay_mode(1), at_least(1.1)}});
}

Figures measure_nobody_slow(const ConsistencyOptions& options) {
  const std::vector<Contender> contenders = {{asp_mode("static"), at_least(0.85)},
                                             {asp_mode("dynamic"), at_least(0.85)}};
  std::vector<Contender> of_four = contenders;
  of_four.push_back({delay_mode(1), at_least(1.0)});
  Figures figures = race(options, "M4", "nobody slow", job_of(options, "who: none", 4), of_four);
  // Where nothing but the exchange counts: by its messages, and by its bytes.
  PausedJob bare;
  bare.workers = 1;
  bare.steps = options.is_small ? options.steps : 50 * options.steps;
  append(figures, race(options, "M4", "no pauses, 34 KB of values", bare, contenders));
  bare.units = 1024;
  bare.steps = options.is_small ? options.steps : 5 * options.steps;
  append(figures, race(options, "M4", "no pauses, 1 MB of values", bare, contenders));
  return figures;
}

}  // namespace varscope::bench
