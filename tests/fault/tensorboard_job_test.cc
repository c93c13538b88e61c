// output.tensorboard: true, as users see it: the files of whole runs, read by the format alone, and by
// TensorBoard itself where Python has it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>

#include "tests/support/jobs/job.h"
#include "tests/support/jobs/tiny_job.h"
#include "tests/support/references/event_reader.h"

namespace varscope::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// A line of scalars every 50 steps, an evaluation every 100.
Args board(const Args& more = {}) {
  return set({"output.tensorboard=true", "train.log_every_steps=50", "train.eval_every_epochs=10"}) + more;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<ReadEvent> events_in(const std::string& run_dir) {
  std::vector<ReadEvent> all;
  for (const std::string& name : names_in(run_dir + "/tensorboard")) {
    for (ReadEvent& e : read_events(read_file(run_dir + "/tensorboard/" + name))) all.push_back(std::move(e));
  }
  return all;
}

// What TensorBoard shows of the scalars: a second start takes back its step and later ones.
using Points = std::vector<std::tuple<std::string, std::int64_t, float>>;
Points shown(const std::vector<ReadEvent>& events) {
  Points points;
  bool has_started = false;
  for (const ReadEvent& e : events) {
    if (e.is_session_start && std::exchange(has_started, true))
      std::erase_if(points, [&](const auto& p) { return std::get<1>(p) >= e.step; });
    for (const auto& [tag, value] : e.scalars) points.emplace_back(tag, e.step, value);
  }
  std::ranges::sort(points);
  return points;
}

// Those that depend on no clock.
Points of_losses(Points points) {
  std::erase_if(points, [](const auto& p) {
    return !std::get<0>(p).starts_with("loss/") && !std::get<0>(p).starts_with("accuracy/") &&
           !std::get<0>(p).starts_with("optimizer/");
  });
  return points;
}

std::vector<std::int64_t> steps_of(const Points& points, const std::string& tag) {
  std::vector<std::int64_t> steps;
  for (const auto& [name, step, value] : points) {
    if (name == tag) steps.push_back(step);
  }
  return steps;
}

TEST(TensorBoardJob, ShowsARunAndChangesNoBit) {
  const ScratchDir dir;
  const Summary summary = train(tiny_mpirun(dir / "run", board()));
  EXPECT_EQ(summary.hash, tiny_hash());
  EXPECT_THAT(names_in(dir / "run/tensorboard"), ElementsAre(HasSubstr("events.out.tfevents.")));
  const std::vector<ReadEvent> events = events_in(dir / "run");
  const Points points = shown(events);
  for (const char* tag : {"loss/train", "accuracy/train", "optimizer/learning_rate", "speed/samples_per_s",
                          "time/compute", "time/wait", "bytes/server_0_sent_per_step"})
    EXPECT_THAT(steps_of(points, tag), ElementsAre(50, 100, 150, 200, 250, 300)) << tag;
  EXPECT_THAT(steps_of(points, "loss/test"), ElementsAre(100, 200, 300));
  EXPECT_THAT(steps_of(points, "accuracy/test"), ElementsAre(100, 200, 300));
  EXPECT_THAT(steps_of(points, "checkpoint/bytes"), ::testing::Contains(300)) << "others may be skipped";
  const auto& graph = events.at(2).graph;
  ASSERT_TRUE(graph.contains("hidden1/weights")) << "scopes are the boxes of the graph";
  EXPECT_EQ(graph.at("hidden1/weights").op, "variable");
  EXPECT_THAT(graph.at("hidden1/weights").device, HasSubstr("/job:ps/task:"));
  EXPECT_TRUE(graph.contains("output/dense"));
  EXPECT_THAT(events.at(4).texts.at("header"), HasSubstr("ranks        3 ranks on 1 host"));
  EXPECT_THAT(events.at(5).texts.at("config"), HasSubstr("max_steps: 300"));
}

TEST(TensorBoardJob, OfOneProcessHasTheSameCurvesAndGraph) {
  const ScratchDir dir;
  EXPECT_EQ(train(tiny_mpirun(dir / "a", board())).hash, train(tiny_alone(dir / "b", board())).hash);
  const std::vector<ReadEvent> a = events_in(dir / "a"), b = events_in(dir / "b");
  EXPECT_EQ(of_losses(shown(a)), of_losses(shown(b)));
  EXPECT_GT(b.at(2).graph.size(), 10U);
  EXPECT_EQ(a.at(2).graph.size(), b.at(2).graph.size());
}

TEST(TensorBoardJob, HistogramsAreTheSameOnAnyNumberOfServersAndChangeNoBit) {
  const ScratchDir dir;
  const Args more = board(set({"output.histogram_every_steps=150"}));
  EXPECT_EQ(train(tiny_mpirun(dir / "two", more)).hash, tiny_hash());
  EXPECT_EQ(train(tiny_alone(dir / "one", more + set({"cluster.servers=1"}))).hash, tiny_hash());
  const auto histograms_in = [&](const std::string& run) {
    std::map<std::pair<std::int64_t, std::string>,
             std::tuple<std::vector<double>, std::vector<double>, double>>
        all;
    for (const ReadEvent& e : events_in(dir / run)) {
      for (const auto& [tag, h] : e.histograms) all[{e.step, tag}] = {h.limits, h.counts, h.num};
    }
    return all;
  };
  const auto two = histograms_in("two");
  EXPECT_EQ(two, histograms_in("one"));
  EXPECT_THAT(two, SizeIs(2 * 2 * 6)) << "steps, values and gradients, variables";
  EXPECT_EQ(std::get<2>(two.at({300, "hidden1/weights/values"})), 256 * 16);
  EXPECT_EQ(std::get<2>(two.at({150, "output/bias/gradients"})), 10);
}

// Ends at 250 with a checkpoint of 200: what goes on from there makes 50 steps again.
void train_in_two_parts(const std::string& run_dir, const Args& more = {}) {
  const Args no_last = set({"checkpoint.every_steps=200", "checkpoint.at_end=false"}) + more;
  train(tiny_mpirun(run_dir, board(no_last + set({"train.max_steps=250"}))));
  EXPECT_EQ(train(tiny_mpirun(run_dir, board(no_last + Args{"--resume"}))).first_step, 200);
}

TEST(TensorBoardJob, AResumeShowsNoStepTwice) {
  const ScratchDir dir;
  train_in_two_parts(dir / "run");
  train(tiny_mpirun(dir / "whole", board()));
  EXPECT_THAT(names_in(dir / "run/tensorboard"), SizeIs(2)) << "a new file";
  const std::vector<ReadEvent> events = events_in(dir / "run");
  EXPECT_EQ(std::ranges::count_if(
                events, [](const ReadEvent& e) { return e.step == 250 && e.scalars.contains("loss/train"); }),
            2)
      << "written twice, shown once";
  EXPECT_THAT(steps_of(shown(events), "loss/train"), ElementsAre(50, 100, 150, 200, 250, 300));
  EXPECT_EQ(of_losses(shown(events)), of_losses(shown(events_in(dir / "whole"))));
}

TEST(TensorBoardJob, IsReadByTensorBoard) {
  if (std::system("python3 -c 'import tensorboard' 2>/dev/null") != 0)
    GTEST_SKIP() << "tensorboard is not installed";
  const ScratchDir dir;
  train_in_two_parts(dir / "run", set({"output.histogram_every_steps=150"}));
  write_text(dir / "read.py", R"(
import sys
from tensorboard.backend.event_processing import plugin_event_accumulator as events
from tensorboard.compat.proto import graph_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util
loaded = events.EventAccumulator(sys.argv[1]).Reload()
assert [e.step for e in loaded.Tensors("loss/train")] == [50, 100, 150, 200, 250, 300]
assert [e.step for e in loaded.Tensors("loss/test")] == [100, 200, 300]
graph = {node.name: node for node in loaded.Graph().node}
assert graph["hidden1/weights"].op == "variable" and "hidden1/weights" in graph["hidden1/dense"].input
assert graph["x"].attr["_output_shapes"].list.shape[0].dim[0].size == -1
text = tensor_util.make_ndarray(loaded.Tensors("config")[0].tensor_proto).item()
assert b"max_steps: 250" in text
content = loaded.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
assert start.hparams["optimizer.learning_rate"].number_value == 0.05
assert start.hparams["optimizer.type"].string_value == "momentum"
assert [e.step for e in loaded.Tensors("hidden1/weights/gradients")] == [150, 300]
buckets = tensor_util.make_ndarray(loaded.Tensors("hidden1/weights/values")[1].tensor_proto)
assert buckets.shape[1] == 3 and buckets[:, 2].sum() == 256 * 16, buckets
assert (buckets[1:, 0] == buckets[:-1, 1]).all() and (buckets[:, 0] <= buckets[:, 1]).all()
)");
  const std::string run =
      "python3 " + (dir / "read.py") + " " + (dir / "run/tensorboard") + " 2>" + (dir / "err");
  EXPECT_EQ(std::system(run.c_str()), 0) << read_file(dir / "err");
}

TEST(TensorBoardJob, ThatCannotWriteWarnsOnceAndEndsWell) {
  const ScratchDir dir;
  std::filesystem::create_directories(dir / "run");
  write_text(dir / "run/tensorboard", "in the way");
  const Ended ended = run(tiny_mpirun(dir / "run", board()));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(summary_of(ended.out).hash, tiny_hash());
  EXPECT_THAT(
      ended.messages(),
      ElementsAre(::testing::AllOf(
          HasSubstr("varscope: warning: cannot write " + (dir / "run/tensorboard") + "/events.out.tfevents."),
          HasSubstr(": Not a directory; training goes on without TensorBoard's events"))))
      << ended.all();
}

TEST(TensorBoardJob, FreshSetsEarlierEventsAside) {
  const ScratchDir dir;
  train(tiny_alone(dir / "run", board()));
  train(tiny_alone(dir / "run", board(Args{"--fresh"})));
  EXPECT_THAT(names_in(dir / "run"), ::testing::Contains(HasSubstr("tensorboard.old-")));
  EXPECT_THAT(names_in(dir / "run/tensorboard"), SizeIs(1));
  train(tiny_alone(dir / "off"));
  EXPECT_THAT(names_in(dir / "off"), ::testing::Not(::testing::Contains("tensorboard")));
}

}  // namespace
}  // namespace varscope::testing
