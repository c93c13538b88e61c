// A server that is slow, as on a host that others use too: the run's summary and its metrics name it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"
#include "tests/support/jobs/metrics_lines.h"

namespace varscope::testing {
namespace {

using nlohmann::json;

// Nine tenths of the time the process gets no processor.
void slow_down(pid_t pid, Job& job) {
  using namespace std::chrono_literals;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::duration<double>(120 * kSlowness);
  while (!job.ended() && std::chrono::steady_clock::now() < limit) {
    kill(pid, SIGSTOP);
    std::this_thread::sleep_for(45ms);
    kill(pid, SIGCONT);
    std::this_thread::sleep_for(5ms);
  }
}

class SlowServer : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Modes, SlowServer, ::testing::Values("ssp", "asp"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(SlowServer, IsNamed) {
  const ScratchDir dir;
  write_text(dir / "job.yaml",
             "job: {name: slow}\n"
             "data: {train: {type: synthetic, generate: friedman1, samples: 20000}}\n"
             "model:\n"
             "  layers: [{type: dense, units: 300}, {type: dense, units: 300}, {type: dense, units: 1}]\n"
             "  loss: mean_squared_error\n"
             "optimizer: {type: sgd, learning_rate: 0.0001}\n"
             "train: {batch: 64, max_steps: 600, epochs: 100, log_every_steps: 20}\n"
             "checkpoint: {every_steps: 0, at_end: false}\n");
  const bool is_ssp = std::string(GetParam()) == "ssp";
  Job job(mpirun(4, Args{"train", dir / "job.yaml"} +
                        set({"job.run_dir=" + (dir / "run"), "cluster.servers=2",
                             std::string("cluster.consistency=") + GetParam()}) +
                        (is_ssp ? set({"cluster.staleness=2"}) : Args{})));
  const std::vector<pid_t> pids = job.rank_pids(4, kStartSeconds);
  ASSERT_EQ(pids.size(), 4U) << job.err();
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() >= 20; }, kStartSeconds)) << job.err();
  slow_down(pids[1], job);
  const Ended ended = job.wait(120 * kSlowness);
  ASSERT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.out, ::testing::ContainsRegex(
                             "\n  slow server  server 1 took [0-9.]+ times as long as the median server: "));
  const std::vector<json> finish = metrics_lines(dir / "run", "finish");
  ASSERT_EQ(finish.size(), 1U);
  const json& servers = finish[0]["consistency"]["servers"];
  ASSERT_EQ(servers.size(), 2U);
  EXPECT_GT(servers[1]["service_wait_s"].get<double>(), 2 * servers[0]["service_wait_s"].get<double>());
}

}  // namespace
}  // namespace varscope::testing
