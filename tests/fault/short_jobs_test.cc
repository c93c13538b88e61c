// Many short jobs, each drawn anew: mode, dealing, servers, workers, leaves, who is slow, when it is cut and
// evaluated, whether it is recorded, who is stopped for a moment. All come to their end, and every sample
// counts once in each epoch.
//   VARSCOPE_SHORT_JOBS: how many (8); VARSCOPE_SHORT_JOBS_SEED: of which series (1).
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>
#include <thread>

#include "tests/support/jobs/counting_job.h"
#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr int kBatch = CountingJob::kBatch;

int environment_number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atoi(text) : otherwise;
}

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : random_(seed) {}
  int from(int least, int most) {
    return least + static_cast<int>(random_() % static_cast<std::uint64_t>(most - least + 1));
  }
  bool one_in(int n) { return from(1, n) == 1; }
  template <class T>
  T of(std::initializer_list<T> all) {
    return all.begin()[from(0, static_cast<int>(all.size()) - 1)];
  }

 private:
  std::mt19937_64 random_;
};

struct ShortJob {
  int servers, workers, leaves, rows, epochs, cut_every, stopped, stopped_after_ms, stopped_for_ms;
  bool evaluates;
  std::string mode, pause;
  std::vector<std::string> keys;

  explicit ShortJob(Draw& draw)
      : servers(draw.from(1, 3)),
        workers(draw.from(1, 4)),
        leaves(draw.from(workers, 8)),
        // The last batch may have fewer samples than there are leaves.
        rows(kBatch * draw.from(1, 5) + draw.of({0, 1, 2, 4, 16, 32})),
        epochs(draw.from(1, 3)),
        cut_every(draw.one_in(3) ? 0 : draw.from(1, 6)),
        stopped(draw.one_in(2) ? draw.from(0, servers + workers - 1) : -1),
        stopped_after_ms(draw.from(0, 250)),
        stopped_for_ms(draw.from(20, 300)),
        evaluates(draw.one_in(2)) {
    mode = draw.of<const char*>({"bsp", "bsp", "ssp", "ssp", "asp", "asp"});
    keys = {"cluster.consistency=" + mode, fmt::format("cluster.servers={}", servers),
            fmt::format("cluster.logical_workers={}", leaves)};
    if (mode != "bsp")
      keys.push_back(fmt::format("cluster.dealing={}", draw.of<const char*>({"static", "dynamic"})));
    if (mode == "ssp") keys.push_back(fmt::format("cluster.staleness={}", draw.from(1, 3)));
    if (mode == "bsp") keys.push_back(fmt::format("cluster.delay={}", draw.from(0, 2)));
    if (mode == "bsp" && workers > 1 && draw.one_in(3)) {
      keys = {fmt::format("cluster.servers={}", servers),
              fmt::format("cluster.backup_workers={}", draw.from(1, workers - 1))};
    }
    const bool has_record = mode != "bsp" || keys.back().starts_with("cluster.backup_workers");
    if (has_record && draw.one_in(3)) keys.emplace_back("cluster.record=true");
    if (draw.one_in(3)) return;
    const char* who =
        draw.of<const char*>({"who: rotating", "who: fixed, worker: 0", "who: random, share: 0.3"});
    pause = fmt::format("base_ms: {}, slow_ms: {}, {}, deaf: {}", draw.from(0, 2), draw.from(5, 20), who,
                        draw.one_in(2));
  }

  int steps() const { return epochs * ((rows + kBatch - 1) / kBatch); }
  bool drops() const {
    return std::ranges::any_of(keys,
                               [](const std::string& k) { return k.starts_with("cluster.backup_workers"); });
  }
  std::string text() const {
    return fmt::format(
        "{} rows, {} workers, {} epochs, a cut every {} steps, {}evaluated, pause {{{}}}, rank {} stopped "
        "after {} ms for {} ms; {}",
        rows, workers, epochs, cut_every, evaluates ? "" : "not ", pause, stopped, stopped_after_ms,
        stopped_for_ms, fmt::join(keys, " "));
  }
  CountingJob counting() const {
    return {.rows = rows,
            .epochs = epochs,
            .evaluates = evaluates,
            .pause = pause,
            .of_train = ", eval_every_epochs: 1",
            .sections = fmt::format("checkpoint: {{every_steps: {}, keep: 2}}\n", cut_every)};
  }
};

// Stops the rank for a moment, wherever it is by then.
void stop_for_a_moment(Job& job, const ShortJob& spec) {
  const std::vector<pid_t> pids = job.rank_pids(spec.servers + spec.workers, kStartSeconds);
  if (pids.empty()) return;  // it has ended already
  std::this_thread::sleep_for(std::chrono::milliseconds(spec.stopped_after_ms));
  const pid_t pid = pids[static_cast<std::size_t>(spec.stopped)];
  if (kill(pid, SIGSTOP) != 0) return;
  std::this_thread::sleep_for(std::chrono::milliseconds(spec.stopped_for_ms));
  kill(pid, SIGCONT);
}

void run_one(const ShortJob& spec) {
  const ScratchDir dir;
  Args args = Args{"train", write_counting_job(dir, spec.counting())} + set({"job.run_dir=" + (dir / "run")});
  for (const std::string& key : spec.keys) args = args + set({key});
  Command command = mpirun(spec.servers + spec.workers, args);
  std::ranges::replace(command.argv, std::string(VARSCOPE_BINARY), std::string(VARSCOPE_PAUSED_BINARY));
  Job job(command);
  if (spec.stopped >= 0) stop_for_a_moment(job, spec);
  const Ended ended = job.wait(60 * kSlowness);
  ASSERT_TRUE(ended.in_time) << ended.all();
  ASSERT_EQ(ended.code, 0) << ended.all();
  const Summary summary = summary_of(ended.out);
  EXPECT_EQ(summary.step, spec.steps()) << ended.all();
  EXPECT_FALSE(summary.hash.empty()) << ended.all();
  // With backup workers what counts of a step makes up for what is dropped.
  const std::vector<double> rows = counted_rows(dir, dir / "run", VARSCOPE_PAUSED_BINARY);
  EXPECT_NEAR(std::accumulate(rows.begin(), rows.end(), 0.0), kBatch * spec.steps(), 0.01) << ended.all();
  if (spec.drops() || spec.rows % kBatch != 0) return;
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(rows[i], spec.epochs, 0.01) << "row " << i;
}

TEST(ShortJobs, AllEndAndEverySampleCounts) {
  const int n = environment_number("VARSCOPE_SHORT_JOBS", 8);
  const int seed = environment_number("VARSCOPE_SHORT_JOBS_SEED", 1);
  ASSERT_GT(n, 0) << "VARSCOPE_SHORT_JOBS";
  for (int i = 0; i < n && !HasFailure(); ++i) {
    Draw draw(static_cast<std::uint64_t>(seed) * 1'000'003 + static_cast<std::uint64_t>(i));
    const ShortJob spec(draw);
    SCOPED_TRACE(fmt::format("job {} of series {}: {}", i, seed, spec.text()));
    run_one(spec);
  }
}

}  // namespace
}  // namespace varscope::testing
