// Many short jobs, each drawn anew: mode, dealing, servers, workers, leaves, who is slow, when it is cut and
// evaluated, who is stopped for a moment. All come to their end, and every sample counts once in each epoch.
//   VARSCOPE_SHORT_JOBS: how many (8); VARSCOPE_SHORT_JOBS_SEED: of which series (1).
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr int kBatch = 64;

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

// A table with a row for each sample, to which each visit in a whole batch adds 1, and what a visit in the
// epoch's last, shorter one adds makes that as much in sum.
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
    if (draw.one_in(3)) return;
    const char* who =
        draw.of<const char*>({"who: rotating", "who: fixed, worker: 0", "who: random, share: 0.3"});
    pause = fmt::format("base_ms: {}, slow_ms: {}, {}, deaf: {}", draw.from(0, 2), draw.from(5, 20), who,
                        draw.one_in(2));
  }

  int steps() const { return epochs * ((rows + kBatch - 1) / kBatch); }
  std::string text() const {
    return fmt::format(
        "{} rows, {} workers, {} epochs, a cut every {} steps, {}evaluated, pause {{{}}}, rank {} stopped "
        "after {} ms for {} ms; {}",
        rows, workers, epochs, cut_every, evaluates ? "" : "not ", pause, stopped, stopped_after_ms,
        stopped_for_ms, fmt::join(keys, " "));
  }
  std::string yaml(const std::string& csv) const {
    const std::string source = fmt::format(
        "{{type: csv, files: {}, schema: {{label: {{column: y, type: number}}, "
        "features: {{id: {{columns: [id], ids: uint64}}}}}}}}",
        csv);
    return fmt::format(
        R"(job: {{name: short}}
data:
  train: {}
{}model:
  layers:
    - {{type: embedding, scope: id, input: id, units: 1, combiner: sum, table: {{ids: uint64}}, initializer: zeros, name: row}}
{}  loss: absolute_error
optimizer: {{type: sgd, learning_rate: {}}}
train: {{batch: {}, epochs: {}, eval_every_epochs: 1}}
checkpoint: {{every_steps: {}, keep: 2}}
)",
        source, evaluates ? "  test: " + source + "\n" : "",
        pause.empty() ? "" : "    - {type: pause, " + pause + "}\n", kBatch, kBatch, epochs, cut_every);
  }
};

void write_rows(const std::string& path, int n) {
  std::string rows = "id,y\n";
  for (int i = 0; i < n; ++i) rows += fmt::format("{},1000000\n", i * 7919 + 13);
  write_text(path, rows);
}

// What all rows have counted.
double sum_of_rows(const std::string& run_dir, const ScratchDir& dir) {
  Command command = varscope({"predict", run_dir, "--in", dir / "rows.csv", "--out", dir / "p.csv"});
  command.argv.front() = VARSCOPE_PAUSED_BINARY;
  const Ended e = run(command);
  EXPECT_EQ(e.code, 0) << e.all();
  std::ifstream in(dir / "p.csv");
  double sum = 0;
  std::string line;
  for (std::getline(in, line); std::getline(in, line);) sum += std::stod(line.substr(line.rfind(',') + 1));
  return sum;
}

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
  write_rows(dir / "rows.csv", spec.rows);
  write_text(dir / "job.yaml", spec.yaml("rows.csv"));
  Args args = Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")});
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
  EXPECT_NEAR(sum_of_rows(dir / "run", dir), kBatch * spec.steps(), 0.01) << ended.all();
}

TEST(ShortJobs, AllEndAndEverySampleCounts) {
  const int n = environment_number("VARSCOPE_SHORT_JOBS", 8);
  const int seed = environment_number("VARSCOPE_SHORT_JOBS_SEED", 1);
  for (int i = 0; i < n && !HasFailure(); ++i) {
    Draw draw(static_cast<std::uint64_t>(seed) * 1'000'003 + static_cast<std::uint64_t>(i));
    const ShortJob spec(draw);
    SCOPED_TRACE(fmt::format("job {} of series {}: {}", i, seed, spec.text()));
    run_one(spec);
  }
}

}  // namespace
}  // namespace varscope::testing
