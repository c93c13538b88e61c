// A worker that is stopped while the others train on: server 0 names it, and says when it goes on; what was
// waited for is in the metrics.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <regex>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"
#include "tests/support/jobs/metrics_lines.h"

namespace varscope::testing {
namespace {

using nlohmann::json;

// 4 ranks: one server. It says after ten seconds that a ticket is late, which is before the stall limit.
Args job_of(const std::string& run_dir, const char* mode) {
  return Args{"train", config_file("digits_mlp.yaml")} +
         set({"job.run_dir=" + run_dir, std::string("cluster.consistency=") + mode, "cluster.servers=1",
              "cluster.stall_timeout_s=" + std::to_string(20 * static_cast<int>(kSlowness)),
              "train.epochs=100000", "train.max_steps=20000", "train.log_every_steps=100",
              "train.eval_every_epochs=0", "checkpoint.every_steps=0"});
}

class LateWorker : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Modes, LateWorker, ::testing::Values("ssp", "asp"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LateWorker, IsNamedAndSaysWhenItGoesOn) {
  const ScratchDir dir;
  const bool is_ssp = std::string(GetParam()) == "ssp";
  Job job(mpirun(4, job_of(dir / "run", GetParam()) + (is_ssp ? set({"cluster.staleness=2"}) : Args{})));
  // In asp all other steps may be over at once, when the worker goes on, and one line covers them.
  ASSERT_TRUE(
      job.wait_until([&] { return metrics_lines(dir / "run", "consistency").size() >= 3; }, kStartSeconds))
      << job.err();
  const std::vector<pid_t> pids = job.rank_pids(4, kStartSeconds);
  ASSERT_EQ(pids.size(), 4U);
  kill(pids[3], SIGSTOP);
  const auto says = [&](const char* text) { return job.out().find(text) != std::string::npos; };
  EXPECT_TRUE(
      job.wait_until([&] { return says("note: worker 2 has had its ticket of step "); }, kStartSeconds))
      << job.out() << job.err();
  // How far the others have gone on meanwhile.
  const std::string out = job.out();
  std::smatch told;
  ASSERT_TRUE(std::regex_search(
      out, told, std::regex("ticket of step (\\d+) for [^,]*, and the newest ticket is of step (\\d+):")))
      << out;
  const std::int64_t lead = std::stoll(told[2]) - std::stoll(told[1]);
  EXPECT_GE(lead, is_ssp ? 3 : 100);
  EXPECT_LE(lead, is_ssp ? 3 : 20'000) << "of SSP(2) values are two steps old";
  kill(pids[3], SIGCONT);
  EXPECT_TRUE(
      job.wait_until([&] { return says("note: worker 2 goes on: its ticket of step "); }, kStartSeconds))
      << job.out() << job.err();
  const Ended ended = job.wait(240 * kSlowness);
  ASSERT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.out,
              ::testing::HasSubstr(is_ssp ? "and then wait for it (cluster.staleness)" : "the others go on"));
  EXPECT_EQ(ended.out.find("note: worker 0"), std::string::npos) << ended.out;
  EXPECT_EQ(ended.out.find("note: worker 1"), std::string::npos) << ended.out;
  EXPECT_THAT(ended.out, ::testing::HasSubstr("\n  staleness    reads were "));
  const std::vector<json> lines = metrics_lines(dir / "run", "consistency"),
                          finish = metrics_lines(dir / "run", "finish");
  ASSERT_GE(lines.size(), 3U);
  ASSERT_EQ(finish.size(), 1U);
  const json& all = finish[0]["consistency"];
  std::int64_t n_reads = 0;
  for (const auto& [lead, n] : all["staleness"]["counts"].items()) {
    n_reads += n.get<std::int64_t>();
    EXPECT_TRUE(!is_ssp || std::stoi(lead) <= 2) << lead;
  }
  EXPECT_GE(n_reads, 20000);
  std::int64_t n_tickets = 0;
  for (const json& worker : all["workers"]) n_tickets += worker["tickets"].get<std::int64_t>();
  EXPECT_EQ(n_tickets % 20000, 0) << "as many for each step";
  EXPECT_GT(n_tickets, 0);
  if (!is_ssp) return;
  EXPECT_EQ(all["staleness"]["most"], 2) << "the others have gone as far as they may";
  // They have waited for it for most of the time that it was stopped.
  EXPECT_GT(all["workers"][0]["gate_wait_s"].get<double>() + all["workers"][1]["gate_wait_s"].get<double>(),
            5);
}

}  // namespace
}  // namespace varscope::testing
