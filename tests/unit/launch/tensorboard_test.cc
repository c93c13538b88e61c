#include "launch/observe/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "common/config/yaml_reader.h"
#include "common/placement/cluster.h"
#include "common/variables/variable_scope.h"
#include "launch/job/run_differences.h"
#include "launch/observe/graph_def.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/event_reader.h"
#include "worker/graph/graph.h"
#include "worker/ops/losses.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using testing::make_variable;
using testing::read_events;
using testing::ReadEvent;
using testing::slurp;
using testing::TempDir;
using testing::WireFields;

JobConfig job_in(const std::string& run_dir) {
  return parse_job(
      read_yaml_text(
          "job: {name: t, seed: 3, run_dir: " + run_dir +
              "}\ndata: {train: {type: digits}}\n"
              "model:\n  layers:\n    - {type: dense, units: 10, use_bias: false}\n"
              "  loss: softmax_cross_entropy\n"
              "optimizer: {type: sgd, learning_rate: 0.5, schedule: {type: step, every_steps: 4}}\n"
              "train: {epochs: 1, batch: 8, log_every_steps: 2}\noutput: {tensorboard: true}\n",
          "job.yaml"),
      "job.yaml");
}

struct Warnings final : RunObserver {
  std::vector<std::string> said;
  void on_warning(const std::string& what) override { said.push_back(what); }
};

// A run of one server on host n1 that is told of by hand.
class TensorBoardTest : public ::testing::Test {
 protected:
  RunFacts facts_from(std::int64_t first) {
    RunFacts facts{job,   cluster, variables, {"n1", "n2"}, TrainPlan{Clock(first), Clock(8), 4}, 8, 4,
                   "run", 1,       ""};
    facts.evaluation.has_accuracy = true;
    facts.hyperparameters = hyperparameters(job);
    return facts;
  }
  static StepSummary step(std::int64_t clock) {
    const auto t = static_cast<double>(clock);
    return {Clock(clock), 1, {.loss = 8 * t, .correct = 2, .samples = 8}, {10 * clock, 20, 30, 40}};
  }
  std::vector<ReadEvent> events() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(tensorboard_dir(job)))
      names.push_back(entry.path().string());
    std::ranges::sort(names);
    std::vector<ReadEvent> all;
    for (const std::string& name : names) {
      for (ReadEvent& e : read_events(slurp(name))) all.push_back(std::move(e));
    }
    return all;
  }
  // step -> value of one tag.
  std::map<std::int64_t, float> curve(const std::string& tag) {
    std::map<std::int64_t, float> points;
    for (const ReadEvent& e : events()) {
      if (!e.scalars.contains(tag)) continue;
      EXPECT_TRUE(points.emplace(e.step, e.scalars.at(tag)).second) << e.step;
    }
    return points;
  }

  TempDir dir;
  JobConfig job = job_in(dir / "run");
  ClusterMap cluster = assign_roles({"n1", "n2"}, 1, 1);
  VariableTable variables{{make_variable("dense/weights", DType::float32, {256, 10})}};
  TransportStats traffic;
  Warnings warnings;
};

TEST_F(TensorBoardTest, BeginsWithWhatIsKnown) {
  RunFacts facts = facts_from(4);
  facts.graph = "\x22\x02\x08\x16";  // a graph of no nodes, of producer 22
  {
    TensorBoard board(facts, traffic, warnings);
    board.write_start({"varscope 1", "  config  job.yaml"});
  }
  EXPECT_THAT(warnings.said, IsEmpty());
  const std::vector<ReadEvent> all = events();
  ASSERT_EQ(all.size(), 6U);
  EXPECT_EQ(all[0].file_version, "brain.Event:2");
  EXPECT_EQ(all[0].step, 0);
  EXPECT_TRUE(all[1].is_session_start);
  EXPECT_EQ(all[1].step, 5) << "the first step that is made again";
  const std::string& info = all[3].hparams.at("_hparams_/session_start_info");
  std::map<std::string, std::string> hparams;
  for (const std::string& entry : WireFields(WireFields(info).text(3)).all(1))
    hparams[WireFields(entry).text(1)] = WireFields(entry).text(2);
  EXPECT_EQ(WireFields(hparams.at("optimizer.learning_rate")).real(2), 0.5);
  EXPECT_EQ(WireFields(hparams.at("optimizer.type")).text(3), "sgd");
  EXPECT_EQ(WireFields(hparams.at("train.shuffle")).number(4), 1U);
  EXPECT_EQ(WireFields(hparams.at("train.batch")).real(2), 8);
  EXPECT_EQ(WireFields(hparams.at("job.seed")).real(2), 3);
  EXPECT_EQ(WireFields(hparams.at("model.layers.0.units")).real(2), 10);
  EXPECT_FALSE(hparams.contains("output.tensorboard"));
  EXPECT_EQ(all[4].texts.at("header"), "```\nvarscope 1\n  config  job.yaml\n```\n");
  EXPECT_EQ(all[4].step, 4);
  EXPECT_EQ(all[5].texts.at("config"), "```yaml\n" + dump(job) + "```\n");
}

TEST_F(TensorBoardTest, WritesTheScalarsOfAWindowOfSteps) {
  const RunFacts facts = facts_from(0);
  {
    TensorBoard board(facts, traffic, warnings);
    for (std::int64_t t = 1; t <= 5; ++t) {
      traffic.bytes_sent += 100;
      traffic.bytes_received += 300;
      board.on_step(step(t));
    }
  }
  EXPECT_THAT(curve("loss/train"), ElementsAre(std::pair(2, 1.5F), std::pair(4, 3.5F)));
  EXPECT_THAT(curve("accuracy/train"), ElementsAre(std::pair(2, 0.25F), std::pair(4, 0.25F)));
  EXPECT_THAT(curve("optimizer/learning_rate"), ElementsAre(std::pair(2, 0.5F), std::pair(4, 0.5F)));
  EXPECT_THAT(curve("bytes/server_0_sent_per_step"), ElementsAre(std::pair(2, 100.F), std::pair(4, 100.F)));
  EXPECT_THAT(curve("bytes/server_0_received_per_step"),
              ElementsAre(std::pair(2, 300.F), std::pair(4, 300.F)));
  EXPECT_THAT(curve("speed/samples_per_s"), ElementsAre(Key(2), Key(4)));
  EXPECT_FLOAT_EQ(curve("time/compute")[2], 30.F / 210);
  EXPECT_FLOAT_EQ(curve("time/communicate")[2], 40.F / 210);
  EXPECT_FLOAT_EQ(curve("time/wait")[2], 60.F / 210);
  EXPECT_FLOAT_EQ(curve("time/data")[4], 80.F / 250);
}

TEST_F(TensorBoardTest, WritesTheShareThatBackupWorkersDrop) {
  job.cluster.backup_workers = 1;
  const RunFacts facts = facts_from(0);
  {
    TensorBoard board(facts, traffic, warnings);
    for (std::int64_t t = 1; t <= 4; ++t) {
      StepSummary s = step(t);
      s.dropped.samples = t <= 2 ? 4 : 0;
      s.dropped.of_samples = 8;
      board.on_step(s);
    }
  }
  EXPECT_THAT(curve("consistency/dropped"), ElementsAre(std::pair(2, 0.5F), std::pair(4, 0.F)));
}

TEST_F(TensorBoardTest, WritesEpochsEvaluationsAndSaves) {
  const RunFacts facts = facts_from(0);
  {
    TensorBoard board(facts, traffic, warnings);
    board.on_epoch({Clock(4), 1, {.loss = 20, .correct = 4, .samples = 8}});
    board.on_eval(
        {Clock(4), 1, {.loss = 3, .correct = 3, .samples = 4}, {{"auc", 0.75, {}}, {"m", 0, {1, 2, 3, 4}}}});
    board.on_checkpoint({Clock(3), "p", 4096, 0.5, 0.25, 2});
    FinishSummary finish{Clock(8), {}, {}};
    finish.stopped = true;
    board.on_finish(finish);
    finish.stopped = false;
    board.on_finish(finish);
  }
  EXPECT_THAT(curve("loss/epoch"), ElementsAre(std::pair(4, 2.5F)));
  EXPECT_THAT(curve("accuracy/epoch"), ElementsAre(std::pair(4, 0.5F)));
  EXPECT_THAT(curve("loss/test"), ElementsAre(std::pair(4, 0.75F)));
  EXPECT_THAT(curve("auc/test"), ElementsAre(std::pair(4, 0.75F)));
  EXPECT_THAT(curve("m/test"), IsEmpty()) << "a matrix is no curve";
  EXPECT_THAT(curve("checkpoint/bytes"), ElementsAre(std::pair(3, 4096.F)));
  EXPECT_THAT(curve("checkpoint/stall_s"), ElementsAre(std::pair(3, 0.5F)));
  EXPECT_EQ(
      WireFields(WireFields(events().back().hparams.at("_hparams_/session_end_info")).text(4)).number(1), 1U)
      << "success";
  EXPECT_EQ(std::ranges::count_if(events(), [](const ReadEvent& e) { return !e.hparams.empty(); }), 1)
      << "of a run that was stopped nothing is said";
}

TEST_F(TensorBoardTest, WritesHistogramsUnderTheVariablesScope) {
  const RunFacts facts = facts_from(0);
  const auto histogram_of = [](const std::vector<float>& values) {
    Histogram h;
    h.add(DType::float32, reinterpret_cast<const std::byte*>(values.data()), std::ssize(values));
    return h;
  };
  {
    TensorBoard board(facts, traffic, warnings);
    board.on_histograms({Clock(6),
                         {{"dense/weights", histogram_of({-1, 0.5F, 0.51F, 3}), histogram_of({2, 2})},
                          {"bn/mean", histogram_of({1}), {}},
                          {"of/nothing", {}, {}}}});
  }
  const std::vector<ReadEvent> all = events();
  ASSERT_EQ(all.size(), 2U) << "one for each variable that has something";
  EXPECT_EQ(all[0].step, 6);
  const testing::ReadHistogram& h = all[0].histograms.at("dense/weights/values");
  EXPECT_EQ(h.min, -1);
  EXPECT_EQ(h.max, 3);
  EXPECT_EQ(h.num, 4);
  EXPECT_FLOAT_EQ(static_cast<float>(h.sum), 3.01F);
  EXPECT_FLOAT_EQ(static_cast<float>(h.sum_squares), 10.5101F);
  // Right ends, and a bucket of nothing between those that do not touch.
  EXPECT_THAT(h.limits, ElementsAre(-1, 0.5, 0.5625, 3, 3.25));
  EXPECT_THAT(h.counts, ElementsAre(1, 0, 2, 0, 1));
  EXPECT_THAT(all[0].histograms.at("dense/weights/gradients").counts, ElementsAre(2));
  EXPECT_THAT(all[1].histograms, ElementsAre(Key("bn/mean/values")));
}

TEST_F(TensorBoardTest, ThatCannotWriteWarnsOnce) {
  std::filesystem::create_directories(dir / "run");
  testing::spit(tensorboard_dir(job), "in the way");
  const RunFacts facts = facts_from(0);
  {
    TensorBoard board(facts, traffic, warnings);
    board.write_start({});
    for (std::int64_t t = 1; t <= 8; ++t) board.on_step(step(t));
  }
  ASSERT_EQ(warnings.said.size(), 1U);
  EXPECT_THAT(warnings.said[0], HasSubstr("cannot write " + tensorboard_dir(job)));
}

TEST(GraphDef, HasScopesInNamesAndServersAsDevices) {
  VariableStore store;
  Graph graph;
  const NodeId x = graph.placeholder("x", DType::float32, {Shape::kUnknown, 2});
  NodeId weights, hidden;
  {
    auto outer = store.scope("tower");
    auto inner = store.scope("hidden");
    weights = graph.variable(store.get_variable("weights", {2, 3}));
    const NodeId bias = graph.variable(store.get_variable("bias", {3}));
    hidden = ops::dense(graph, x, weights, bias, Activation::relu, {"tower/hidden/dense", "job.yaml:3:5"});
  }
  const auto nodes = testing::read_graph(graph_def(graph, 1));
  EXPECT_THAT(nodes, ElementsAre(Key("tower/hidden/bias"), Key("tower/hidden/dense"),
                                 Key("tower/hidden/weights"), Key("x")));
  const testing::ReadNode& dense = nodes.at("tower/hidden/dense");
  EXPECT_EQ(dense.op, "dense");
  EXPECT_EQ(dense.device, "/job:worker");
  EXPECT_THAT(dense.inputs, ElementsAre("x", "tower/hidden/weights", "tower/hidden/bias"));
  EXPECT_EQ(WireFields(dense.attributes.at("made_at")).text(2), "job.yaml:3:5");
  const WireFields shape(WireFields(WireFields(dense.attributes.at("_output_shapes")).text(1)).text(7));
  EXPECT_EQ(static_cast<std::int64_t>(WireFields(shape.all(2).at(0)).number(1)), -1) << "the batch";
  EXPECT_EQ(WireFields(shape.all(2).at(1)).number(1), 3U);
  EXPECT_EQ(nodes.at("tower/hidden/weights").op, "variable");
  EXPECT_EQ(nodes.at("tower/hidden/weights").device, "/job:ps/task:0");
  EXPECT_EQ(nodes.at("x").op, "placeholder");
}

TEST(GraphDef, NamesAllServersOfAVariable) {
  VariableStore store;
  Graph graph;
  graph.variable(store.get_variable("large", {4096, 64}));
  const std::string device = testing::read_graph(graph_def(graph, 3)).at("large").device;
  EXPECT_EQ(device, "/job:ps/task:0,1,2");
}

}  // namespace
}  // namespace varscope
