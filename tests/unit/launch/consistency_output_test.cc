// How a run outside BSP tells of staleness and waiting: metrics file, TensorBoard, terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include <nlohmann/json.hpp>

#include "common/config/yaml_reader.h"
#include "common/placement/cluster.h"
#include "launch/observe/metrics_file.h"
#include "launch/observe/tensorboard.h"
#include "launch/observe/terminal.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/event_reader.h"

namespace varscope {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using testing::make_variable;
using testing::slurp;
using testing::TempDir;

JobConfig job_in(const std::string& run_dir) {
  return parse_job(
      read_yaml_text("job: {name: t, run_dir: " + run_dir +
                         "}\ndata: {train: {type: digits}}\n"
                         "model: {layers: [{type: dense, units: 10}], loss: softmax_cross_entropy}\n"
                         "optimizer: {type: sgd, learning_rate: 0.5}\n"
                         "train: {epochs: 1, batch: 8}\noutput: {progress: off}\n",
                     "job.yaml"),
      "job.yaml");
}

// Server 0 answers in 2 ms, server 1 in 5 ms; worker 1 is four times as slow.
ConsistencySummary summary() {
  ConsistencySummary s{.clock = Clock(20),
                       .rule = {Consistency::ssp, 3, Dealing::to_whoever_asks},
                       .all = {},
                       .servers = {},
                       .workers = {}};
  for (const std::int64_t ms : {2, 5}) {
    StalenessReport r;
    r.leads.in_powers = false;
    for (const int lead : {0, 2, 2}) r.leads.add(lead);
    r.delays.add(5);
    r.n_answers = 2;
    r.service_ns = 2 * ms * 1'000'000;
    r.gate_ns = 250'000'000;
    r.n_holds = 1;
    r.held_ns = 125'000'000;
    r.bytes_up = 1000;
    r.bytes_down = 3000;
    s.all += r;
    s.servers.push_back(r);
  }
  s.workers = {
      {.tickets = 12,
       .clock = Clock(22),
       .gate_wait_s = 0.5,
       .drain_wait_s = 0.25,
       .wait_s = 1,
       .total_s = 2},
      {.tickets = 3, .clock = Clock(20), .lag = 2, .open_s = 0.75, .ticket_compute_s = 0.5, .total_s = 2}};
  s.slowest = ConsistencySummary::Slowest{1, 4};
  return s;
}

class ConsistencyOutput : public ::testing::Test {
 protected:
  json last_line() const {
    std::istringstream in(slurp(job.run_dir() + "/metrics.jsonl"));
    std::string line, last;
    while (std::getline(in, line)) last = line;
    return json::parse(last);
  }

  TempDir dir;
  JobConfig job = job_in(dir / "run");
  ClusterMap cluster = assign_roles({"n1", "n1", "n1", "n1"}, 2, 2);
  VariableTable variables{{make_variable("dense/weights", DType::float32, {64, 10})}};
  RunFacts facts{
      job,   cluster, variables, {"n1", "n1", "n1", "n1"}, TrainPlan{Clock(0), Clock(40), 20}, 8, 4,
      "run", 1,       ""};
};

TEST_F(ConsistencyOutput, MetricsHaveALineAndTheTotalsAtTheEnd) {
  std::filesystem::create_directories(job.run_dir());
  MetricsFile file(facts);
  file.on_consistency(summary());
  const json line = last_line();
  EXPECT_EQ(line["event"], "consistency");
  EXPECT_EQ(line["step"], 20);
  EXPECT_EQ(line["mode"], "ssp");
  EXPECT_EQ(line["staleness"],
            json::parse(R"({"counts": {"0": 2, "2": 4}, "mean": 1.3333333333333333, "most": 2})"));
  EXPECT_EQ(line["delay"], json::parse(R"({"counts": {"4-7": 2}, "mean": 5.0, "most": 5})"));
  EXPECT_EQ(line["gate_wait_s"], 0.5);
  EXPECT_EQ(line["held_s"], 0.25);
  EXPECT_EQ(line["bytes_up"], 2000);
  EXPECT_EQ(line["bytes_down"], 6000);
  EXPECT_EQ(line["servers"][1],
            json::parse(R"({"server": 1, "answers": 2, "service_wait_s": 0.005, "held_s": 0.125})"));
  EXPECT_EQ(line["workers"][0],
            json::parse(R"({"worker": 0, "clock": 22, "lag": 0, "tickets": 12, "open_s": 0.0,
      "ticket_compute_s": 0.0, "gate_wait_s": 0.5, "drain_wait_s": 0.25, "wait_s": 1.0})"));
  EXPECT_EQ(line["workers"][1]["lag"], 2);
  EXPECT_EQ(line["workers"][1]["open_s"], 0.75);
  EXPECT_EQ(line["slowest"], json::parse(R"({"worker": 1, "ratio": 4.0})"));

  FinishSummary finish{Clock(20), {}, {}};
  file.on_finish(finish);
  EXPECT_FALSE(last_line().contains("consistency")) << "BSP";
  finish.consistency = summary();
  file.on_finish(finish);
  EXPECT_EQ(last_line()["consistency"]["staleness"], line["staleness"]);
}

TEST_F(ConsistencyOutput, WhoWasDroppedIsListedByStepAndInAll) {
  std::filesystem::create_directories(job.run_dir());
  MetricsFile file(facts);
  StepSummary step{Clock(7), 1, {}, {}};
  step.sums = {1, 1, 4};
  step.dropped = {{WorkerId(1), WorkerId(4)}, 5};
  file.on_step(step);
  const json line = last_line();
  EXPECT_EQ(line["event"], "dropped");
  EXPECT_EQ(line["step"], 7);
  EXPECT_EQ(line["workers"], json::parse("[1, 4]"));
  EXPECT_EQ(line["samples"], 5);
  FinishSummary finish{Clock(20), {}, {}};
  finish.dropped =
      DroppedSummary{.n_backups = 1, .samples = 5, .of_samples = 40, .workers = {{1, 5}, {0, 0}}};
  file.on_finish(finish);
  EXPECT_EQ(last_line()["dropped"], json::parse(R"({"backup_workers": 1, "samples": 5, "of_samples": 40,
      "workers": [{"worker": 0, "steps": 1, "samples": 5}, {"worker": 1, "steps": 0, "samples": 0}]})"));
}

struct NoWarnings final : RunObserver {
  void on_warning(const std::string& what) override { ADD_FAILURE() << what; }
};

TEST_F(ConsistencyOutput, TensorBoardHasItsScalars) {
  const TransportStats traffic;
  NoWarnings warnings;
  { TensorBoard(facts, traffic, warnings).on_consistency(summary()); }
  std::map<std::string, float> scalars;
  for (const auto& entry : std::filesystem::directory_iterator(tensorboard_dir(job))) {
    for (const testing::ReadEvent& e : testing::read_events(slurp(entry.path().string()))) {
      EXPECT_TRUE(e.scalars.empty() || e.step == 20) << e.step;
      scalars.insert(e.scalars.begin(), e.scalars.end());
    }
  }
  const std::map<std::string, float> expected{{"consistency/delay_mean", 5},
                                              {"consistency/lag_most", 2},
                                              {"consistency/service_s", 0.005F},
                                              {"consistency/slowest_ratio", 4},
                                              {"consistency/wait_gate", 0.125F},
                                              {"consistency/wait_servers", 0.0625F},
                                              {"consistency/wait_drains", 0.0625F},
                                              {"consistency/staleness_most", 2},
                                              {"consistency/staleness_mean", 4.0F / 3},
                                              {"consistency/held_s", 0.25F}};
  EXPECT_EQ(scalars, expected);
}

TEST_F(ConsistencyOutput, TheTerminalSaysItAtTheEndAndOutsideBspAlone) {
  Terminal terminal(facts);
  FinishSummary finish{Clock(20), {}, {}};
  ::testing::internal::CaptureStdout();
  terminal.on_finish(finish);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), ::testing::Not(HasSubstr("staleness")));
  finish.consistency = summary();
  ::testing::internal::CaptureStdout();
  terminal.on_note("worker 1 goes on");
  terminal.on_finish(finish);
  const std::string out = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(out, HasSubstr("note: worker 1 goes on\n"));
  EXPECT_THAT(out, HasSubstr("\n  staleness    reads were 1.3 steps behind on average, 2 at most; "));
  EXPECT_THAT(out, HasSubstr("\n  slowest      worker 1 computed 4.0 times as long"));
  EXPECT_THAT(
      out,
      HasSubstr("\n  waited for   slower workers 12 %, servers' answers 6 %, evaluations and the end 6 %"));
}

TEST(SlowestServer, TakesLongerPerAnswerAndPerByte) {
  const auto server = [](std::int64_t n_answers, std::int64_t service_ns, std::int64_t n_bytes) {
    StalenessReport r;
    r.n_answers = n_answers;
    r.service_ns = service_ns;
    r.bytes_up = r.bytes_down = n_bytes / 2;
    return r;
  };
  const StalenessReport usual = server(10, 1000, 10'000);
  EXPECT_FALSE(slowest_server({server(0, 0, 0)})) << "nobody has answered";
  const auto among = slowest_server({server(0, 0, 0), usual, server(10, 2000, 10'000)});
  ASSERT_TRUE(among);
  EXPECT_EQ(among->server, 2) << "server 0 owns nothing";
  EXPECT_DOUBLE_EQ(among->ratio, 2);
  const auto of_large = slowest_server({usual, server(10, 8000, 80'000), usual});
  ASSERT_TRUE(of_large);
  EXPECT_DOUBLE_EQ(of_large->ratio, 1) << "its answers are as large as they take long";
  const auto of_small = slowest_server({usual, usual, server(100, 8000, 20'000)});
  EXPECT_DOUBLE_EQ(of_small->ratio, 1) << "it has many small answers";
  const auto slow = slowest_server({usual, server(10, 3000, 5'000), usual, usual});
  EXPECT_EQ(slow->server, 1);
  EXPECT_DOUBLE_EQ(slow->ratio, 3) << "six times per byte, three times per answer";
}

TEST(SlowestServer, IsNamedWhereWorkersHaveWaitedForIt) {
  const auto names = [](const ConsistencySummary& s) {
    std::vector<std::string> all;
    for (const auto& [name, text] : lines_of(s)) all.push_back(name + ": " + text);
    return all;
  };
  ConsistencySummary s = summary();
  EXPECT_THAT(names(s), ::testing::Not(Contains(HasSubstr("slow server: ")))) << "6 % of the time";
  s.workers[1].wait_s = 1;
  EXPECT_THAT(names(s),
              Contains("slow server: server 1 took 2.5 times as long as the median server: 5.00 ms for "
                       "an answer"));
  s.servers[1].service_ns /= 2;
  EXPECT_THAT(names(s), ::testing::Not(Contains(HasSubstr("slow server: ")))) << "1.25 times";
}

}  // namespace
}  // namespace varscope
