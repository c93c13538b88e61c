// A model with the values of a checkpoint, as `varscope eval` and programs of a user's own load it.
#include "launch/job/loaded_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/saver.h"
#include "common/config/yaml_reader.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempDir;

constexpr const char* kLayers =
    "    - {type: dense, scope: a, units: 6, activation: tanh}\n"
    "    - {type: dropout, rate: 0.5}\n"
    "    - {type: dense, scope: out, units: 10}\n";

JobConfig job(const std::string& layers = kLayers, const std::string& rest = "") {
  const std::string text = "job: {name: t}\ndata: {train: {type: digits, samples: 20, size: 8}}\n" + rest +
                           "model:\n  loss: softmax_cross_entropy\n  layers:\n" + layers;
  return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
}

Tensor samples() {
  Tensor x(DType::float32, {3, 8, 8});
  float next = 0;
  for (float& v : x.as<float>()) {
    next += 0.37F;
    v = next - std::floor(next);
  }
  return x;
}

std::vector<float> answers(LoadedModel& loaded) {
  const Tensor x = samples();
  const std::vector<Tensor> out =
      loaded.session().run({loaded.model().output}, {{loaded.model().x, x.view()}});
  return {out[0].as<float>().begin(), out[0].as<float>().end()};
}

// Checkpoints of models with other seeds, as a program of one's own saves them.
class LoadedModelTest : public ::testing::Test {
 protected:
  // Saves initial values of this job under a seed; returns the answers that they give.
  std::vector<float> save(std::int64_t step, JobConfig config = job(), std::int64_t seed = 7) {
    config.job.seed = seed;
    LoadedModel trained = LoadedModel::initial(std::move(config), {});
    Saver saver(trained.store(), [&](const Variable& v) { return trained.session().value(v); });
    saver.save(dir_ / "c", step);
    return answers(trained);
  }
  std::string message(const JobConfig& config, const std::string& checkpoint) {
    return error_of([&] { LoadedModel::open(config, checkpoint, {}); });
  }
  std::string c() const { return dir_ / "c"; }
  TempDir dir_;
};

TEST_F(LoadedModelTest, AnswersWithTheValuesOfTheNewestCheckpoint) {
  save(1, job(), 3);
  const std::vector<float> expected = save(2);
  LoadedModel loaded = LoadedModel::open(job(), c());
  EXPECT_EQ(loaded.path(), c() + "/" + step_name(2));
  EXPECT_EQ(loaded.step(), 2);
  EXPECT_THAT(loaded.warnings(), IsEmpty());
  EXPECT_EQ(loaded.job().file, "job.yaml");
  EXPECT_FALSE(loaded.model().graph.find("dropout_1")) << "the graph of evaluations";
  EXPECT_EQ(answers(loaded), expected);
  EXPECT_EQ(loaded.step(), 2);
  LoadedModel first = LoadedModel::open(job(), c() + "/" + step_name(1));
  EXPECT_EQ(first.step(), 1);
  EXPECT_NE(answers(first), expected);
  loaded = std::move(first);
  EXPECT_EQ(loaded.step(), 1);
  EXPECT_NE(answers(loaded), expected);
}

TEST_F(LoadedModelTest, WithoutAPathTheJobsDirectoryIsRead) {
  const std::vector<float> expected = save(5);
  LoadedModel loaded = LoadedModel::open(job(kLayers, "checkpoint: {dir: " + c() + "}\n"));
  EXPECT_EQ(answers(loaded), expected);
}

TEST_F(LoadedModelTest, TakesTheGraphAndTheFactsThatAreAskedFor) {
  save(1);
  const LoadedModel training = LoadedModel::open(job(), c(), {.mode = GraphMode::train});
  EXPECT_TRUE(training.model().graph.find("dropout_1"));
  // Data that do not exist are not read.
  JobConfig elsewhere = job();
  FashionMnistSource nowhere;
  nowhere.folder = dir_ / "nowhere";
  elsewhere.data.train = DataSourceConfig("fashion_mnist", nowhere);
  EXPECT_THAT(message(elsewhere, c()), AllOf(HasSubstr("data: job.yaml:2"), HasSubstr("nowhere")));
  const LoadedModel loaded = LoadedModel::open(elsewhere, c(), {.data = DataFacts{{8, 8}, 10}});
  EXPECT_EQ(loaded.step(), 1);
}

TEST_F(LoadedModelTest, OtherPartsAndOtherNamesFit) {
  const std::vector<float> expected = save(1);
  LoadedModel in_parts = LoadedModel::open(
      job("    - {type: dense, scope: a, units: 6, activation: tanh, partitioner: {type: fixed_size, parts: 3}}\n"
          "    - {type: dense, scope: out, units: 10}\n"),
      c());
  EXPECT_EQ(answers(in_parts), expected);
  LoadedModel renamed =
      LoadedModel::open(job("    - {type: dense, scope: b, units: 6, activation: tanh}\n"
                            "    - {type: dense, scope: out, units: 10}\n",
                            "checkpoint: {rename: {a/weights: b/weights, a/bias: b/bias}}\n"),
                        c());
  EXPECT_EQ(answers(renamed), expected);
}

TEST_F(LoadedModelTest, FallsBackToAnOlderCheckpointWithAWarning) {
  const std::vector<float> expected = save(1);
  save(2, job(), 3);
  testing::flip_bit(c() + "/" + step_name(2) + "/MANIFEST", 30);
  LoadedModel loaded = LoadedModel::open(job(), c());
  EXPECT_EQ(loaded.step(), 1);
  EXPECT_EQ(answers(loaded), expected);
  EXPECT_THAT(loaded.warnings(),
              ::testing::Contains(AllOf(HasSubstr(step_name(2)), HasSubstr("falling back to"))));
}

TEST_F(LoadedModelTest, SaysThatThereIsNoCheckpoint) {
  EXPECT_EQ(message(job(), c()),
            "checkpoint: " + c() +
                " does not exist; name a checkpoint, or a directory of checkpoints that a "
                "run has written");
  std::filesystem::create_directory(c());
  EXPECT_THAT(message(job(), c()), HasSubstr(c() + " holds no checkpoint; name a checkpoint"));
}

TEST_F(LoadedModelTest, NamesEverythingThatDoesNotFit) {
  save(1);
  const std::string text = message(job("    - {type: dense, scope: a, units: 5, activation: tanh}\n"
                                       "    - {type: dense, scope: last, units: 10}\n"),
                                   c());
  EXPECT_THAT(
      text,
      AllOf(HasSubstr("does not fit the model (6 differences)"),
            HasSubstr("variable \"a/weights\" has shape [64, 6] in the checkpoint and [64, 5] in the model"),
            HasSubstr("variable \"a/bias\" has shape [6] in the checkpoint and [5] in the model"),
            HasSubstr("variable \"last/weights\" float32 [5, 10] is missing in the checkpoint"),
            HasSubstr("variable \"out/bias\" float32 [10] is in the checkpoint but not in the model"),
            HasSubstr("nothing was loaded; use the config it was made with")));
}

TEST_F(LoadedModelTest, DamagedValuesAreNotLoaded) {
  save(1);
  const std::string path = c() + "/" + step_name(1);
  const Manifest manifest = [&] {
    PosixFs fs;
    return load_manifest(fs, path).manifest;
  }();
  const std::string file = path + "/" + manifest.files.front().name;
  testing::flip_bit(file, std::filesystem::file_size(file) - 9);
  EXPECT_THAT(message(job(), path), AllOf(HasSubstr("checkpoint: "), HasSubstr(manifest.files.front().name)));
}

TEST_F(LoadedModelTest, ExecutorsOfSeveralThreadsReadTheSameValues) {
  const std::vector<float> expected = save(1);
  const LoadedModel loaded = LoadedModel::open(job(), c());
  const Tensor x = samples();
  std::vector<std::vector<float>> found(3);
  std::vector<std::thread> threads;
  for (std::vector<float>& out : found) {
    threads.emplace_back([&] {
      Executor executor(loaded.model().graph, loaded.model().output, 3, {.also = {}, .forward_only = true});
      loaded.bind(executor);
      executor.feed(loaded.model().x, x.view());
      for (const auto& step : executor.forward_steps()) executor.forward(step);
      const auto y = executor.value(loaded.model().output).as<float>();
      out.assign(y.begin(), y.end());
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_THAT(found, ElementsAre(expected, expected, expected));
}

}  // namespace
}  // namespace varscope
