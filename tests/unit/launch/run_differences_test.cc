#include "launch/job/run_differences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/serialize.h"
#include "common/config/yaml_reader.h"
#include "ps/coordinator_state.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::StartsWith;

JobConfig job(const std::string& optimizer = "{type: sgd, learning_rate: 0.1}",
              const std::string& train = "{epochs: 1, batch: 8}", const std::string& activation = "relu",
              const std::string& more = "") {
  return parse_job(
      read_yaml_text("job: {name: t}\ndata: {train: {type: text, file: a, vocabulary: 9, steps: 2}}\n"
                     "model:\n  layers:\n    - {type: dense, units: 3, activation: " +
                         activation + ", initializer: {type: constant, value: 1}}\n" +
                         "    - {type: dense, units: 9}\n  loss: softmax_cross_entropy\noptimizer: " +
                         optimizer + "\ntrain: " + train + "\n" + more,
                     "job.yaml"),
      "job.yaml");
}

std::vector<std::string> differences(const JobConfig& now, ConfigPart part = ConfigPart::run) {
  return config_differences(computing_config(job()), now, part);
}

TEST(ConfigDifferences, NamesEachKeyThatChangesTheResult) {
  EXPECT_THAT(differences(job()), IsEmpty());
  EXPECT_THAT(differences(job("{type: sgd, learning_rate: 0.2}")),
              ElementsAre("optimizer.learning_rate: 0.1 in the checkpoint's run, 0.2 now"));
  EXPECT_THAT(differences(job("{type: sgd, learning_rate: 1e-1}")), IsEmpty()) << "the same number";
  EXPECT_THAT(differences(job("{type: sgd, learning_rate: 0.1}", "{epochs: 1, batch: 8, shuffle: false}")),
              ElementsAre("train.shuffle: true in the checkpoint's run, false now"));
  EXPECT_THAT(differences(job("{type: sgd, learning_rate: 0.1}", "{epochs: 1, batch: 8}", "tanh")),
              ElementsAre("model.layers.0.activation: relu in the checkpoint's run, tanh now"));
  EXPECT_THAT(differences(job("{type: sgd, learning_rate: 0.1, clip: {type: global_norm, limit: 5}}")),
              Contains("optimizer.clip.limit: nothing in the checkpoint's run, 5 now"));
}

// That is told from the tables themselves, and changes no value of a row that is there.
TEST(ConfigDifferences, LeaveOutWhichRowsATableKeeps) {
  const auto with = [](const std::string& table) {
    return parse_job(
        read_yaml_text("job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n  layers:\n"
                       "    - {type: embedding, units: 3, table: {" +
                           table + "}}\n    - {type: dense, units: 10}\n  loss: softmax_cross_entropy\n",
                       "job.yaml"),
        "job.yaml");
  };
  const auto before = computing_config(with("parts: 2, entry: 2"));
  const JobConfig life = with(
      "parts: 2, entry: 2, expire_steps: 9, max_rows: 8192, when_full: lru, absent: initial, max_waiting: 32");
  EXPECT_THAT(config_differences(before, life, ConfigPart::meaning), IsEmpty());
  EXPECT_THAT(config_differences(before, life, ConfigPart::training), IsEmpty());
  EXPECT_THAT(config_differences(before, life, ConfigPart::model),
              ElementsAre("model.layers.0.table.absent: nothing in the checkpoint's run, initial now"));
  EXPECT_THAT(config_differences(before, with("parts: 4, entry: 3"), ConfigPart::meaning),
              ElementsAre("model.layers.0.table.entry: 2 in the checkpoint's run, 3 now",
                          "model.layers.0.table.parts: 2 in the checkpoint's run, 4 now"));
}

TEST(ConfigDifferences, LetsBeWhatChangesNoBit) {
  JobConfig now = job();
  now.job.name = "other";
  now.job.run_dir = "elsewhere";
  now.train.epochs = 50;
  now.train.max_steps = 7;
  now.train.log_every_steps = 1;
  now.checkpoint.keep = 9;
  now.cluster.servers = 4;
  now.cluster.stall_timeout_s = 5;
  now.output.metrics = false;
  EXPECT_THAT(differences(now), IsEmpty());
  now.cluster.blas_threads = 2;
  EXPECT_THAT(differences(now), ElementsAre("cluster.blas_threads: 1 in the checkpoint's run, 2 now"));
}

JobConfig in_mode(const std::string& keys) {
  return job("{type: sgd, learning_rate: 0.1}", "{epochs: 1, batch: 8}", "relu", "cluster: {" + keys + "}\n");
}

// Allowed, so that it is no matter of the model or the data, and told in one line.
TEST(ConfigDifferences, TellAnotherModeOfConsistencyInOneLine) {
  const auto before = computing_config(in_mode("consistency: ssp, staleness: 2"));
  const auto lines = [&](const std::string& keys) {
    EXPECT_THAT(config_differences(before, in_mode(keys), ConfigPart::meaning), IsEmpty());
    EXPECT_THAT(config_differences(before, in_mode(keys), ConfigPart::model), IsEmpty());
    EXPECT_THAT(config_differences(before, in_mode(keys), ConfigPart::data), IsEmpty());
    return config_differences(before, in_mode(keys), ConfigPart::training);
  };
  const std::string was = "cluster.consistency: ssp, staleness 2, dealing auto in the checkpoint's run, ";
  EXPECT_THAT(lines("consistency: ssp, staleness: 2"), IsEmpty());
  EXPECT_THAT(lines("consistency: bsp"), ElementsAre(was + "bsp now"));
  EXPECT_THAT(lines("backup_workers: 2"), ElementsAre(was + "bsp, backup workers 2 now"));
  EXPECT_THAT(lines("consistency: asp, dealing: dynamic"), ElementsAre(was + "asp, dealing dynamic now"));
  EXPECT_THAT(lines("consistency: ssp, staleness: 3"),
              ElementsAre(was + "ssp, staleness 3, dealing auto now"));
  EXPECT_THAT(lines("consistency: ssp, staleness: 2, dealing: static"),
              ElementsAre(was + "ssp, staleness 2, dealing static now"));
  EXPECT_THAT(lines("delay: 1"), ElementsAre(was + "bsp, delay 1, drained every 100 steps now"));
}

// Where the workers come together decides which values are read.
TEST(ConfigDifferences, OfADelayTellItsDrainsToo) {
  const auto lines = [](const std::string& before, const std::string& now) {
    return config_differences(computing_config(in_mode(before)), in_mode(now), ConfigPart::training);
  };
  EXPECT_THAT(
      lines("delay: 1, drain_every_steps: 50", "delay: 1, drain_every_steps: 60"),
      ElementsAre("cluster.consistency: bsp, delay 1, drained every 50 steps in the checkpoint's run, bsp, "
                  "delay 1, drained every 60 steps now"));
  EXPECT_THAT(lines("drain_every_steps: 50", "drain_every_steps: 60"), IsEmpty());
}

// They are also where checkpoints are asked for, and where what compression keeps back is sent.
TEST(ConfigDifferences, TellWhereWorkersComeTogetherOnlyWhereValuesDependOnIt) {
  const auto made = [](const std::string& cluster, int every, const std::string& codec) {
    return parse_job(read_yaml_text(fmt::format("job: {{name: t}}\ndata: {{train: {{type: digits}}}}\n"
                                                "model: {{layers: [{{type: dense, units: 10}}], "
                                                "loss: softmax_cross_entropy, compression: {}}}\n"
                                                "optimizer: {{type: sgd, learning_rate: 0.1}}\n"
                                                "cluster: {{{}}}\ncheckpoint: {{every_steps: {}}}\n",
                                                codec, cluster, every),
                                    "job.yaml"),
                     "job.yaml");
  };
  const auto lines = [](const JobConfig& before, const JobConfig& now) {
    return config_differences(computing_config(before), now, ConfigPart::training);
  };
  const std::string saves = "checkpoint.every_steps: 20 in the checkpoint's run, 30 now";
  const std::string drains = "cluster.drain_every_steps: 50 in the checkpoint's run, 60 now";
  const std::string d50 = "drain_every_steps: 50", d60 = "drain_every_steps: 60", delay = "delay: 1, ";
  EXPECT_THAT(lines(made(d50, 20, "none"), made(d60, 30, "none")), IsEmpty());
  EXPECT_THAT(lines(made(d50, 20, "bf16"), made(d60, 30, "bf16")), IsEmpty());
  EXPECT_THAT(lines(made(d50, 20, "onebit"), made(d60, 30, "onebit")), ElementsAre(saves, drains));
  EXPECT_THAT(lines(made(d50, 20, "{type: topk, ratio: 0.1}"), made(d60, 20, "{type: topk, ratio: 0.1}")),
              ElementsAre(drains));
  EXPECT_THAT(lines(made("settle_steps: 5", 20, "onebit"), made("settle_steps: 6", 20, "onebit")),
              ElementsAre("cluster.settle_steps: 5 in the checkpoint's run, 6 now"));
  EXPECT_THAT(lines(made("settle_steps: 5", 20, "bf16"), made("settle_steps: 6", 20, "bf16")), IsEmpty());
  EXPECT_THAT(lines(made(delay + "settle_steps: 5", 20, "none"), made(delay + "settle_steps: 6", 20, "none")),
              IsEmpty());
  EXPECT_THAT(lines(made(delay + d50, 20, "none"), made(delay + d50, 30, "none")), ElementsAre(saves));
  EXPECT_THAT(lines(made(d50, 20, "onebit"), made(d60, 30, "none")), Not(Contains(HasSubstr("every_steps"))));
  EXPECT_THAT(lines(made(delay + d50, 20, "onebit"), made(d50, 20, "onebit")),
              ElementsAre(HasSubstr("cluster.consistency: bsp, delay 1, drained every 50 steps in the ")));
  auto older = computing_config(made(delay + d50, 20, "none"));
  older.erase("checkpoint.every_steps");
  EXPECT_THAT(config_differences(older, made(delay + d50, 30, "none"), ConfigPart::training), IsEmpty());
  EXPECT_THAT(hyperparameters(made(delay + d50, 20, "none")), Not(Contains(Key("checkpoint.every_steps"))));
}

TEST(FullStepDifferences, AreOfAnAutomaticStartInARunOfAnotherLength) {
  const auto table = [](const Compression& c) {
    VariableSpec v = testing::make_variable("dense/weights", DType::float32, {64, 100});
    v.compression = c;
    return VariableTable({v});
  };
  const auto lines = [&](const Compression& c, std::int64_t before, std::int64_t now,
                         std::int64_t step = 150) {
    ModelFacts facts;
    facts.table = table(c);
    CoordinatorState state;
    state.run = compared_run_text(facts, job(), Clock(before));
    Manifest resumed;
    resumed.step = step;
    resumed.coordinator_state = to_manifest_text(state);
    EXPECT_THAT(config_differences(compared_run(resumed)->config, job(), ConfigPart::run), IsEmpty());
    return full_step_differences(resumed, facts.table, Clock(now));
  };
  EXPECT_THAT(lines({.type = CodecType::onebit}, 1000, 1000), IsEmpty());
  EXPECT_THAT(
      lines({.type = CodecType::onebit}, 1000, 2000),
      ElementsAre("compression.start_step: -1: gradients go up in full up to step 100 in the checkpoint's "
                  "run, up to step 200 now, a tenth of another length; start_step: 100 keeps it"));
  EXPECT_THAT(lines({.type = CodecType::onebit}, 1000, 2000, 200), IsEmpty()) << "both are past";
  EXPECT_THAT(lines({.type = CodecType::topk, .start_step = 5}, 1000, 2000), IsEmpty());
  EXPECT_THAT(lines({.type = CodecType::bf16}, 1000, 2000), IsEmpty());
  EXPECT_THAT(lines({}, 1000, 2000), IsEmpty());
}

// Their runs were bsp, and discounted nothing.
TEST(ConfigDifferences, CheckpointsOfBeforeModesWereThereAreOfBsp) {
  auto before = computing_config(job());
  EXPECT_EQ(before.erase("cluster.consistency") + before.erase("cluster.staleness") +
                before.erase("cluster.dealing") + before.erase("cluster.delay") +
                before.erase("cluster.drain_every_steps") + before.erase("cluster.backup_workers") +
                before.erase("optimizer.staleness_discount"),
            7U);
  EXPECT_THAT(config_differences(before, job(), ConfigPart::run), IsEmpty());
  EXPECT_THAT(config_differences(before, in_mode("consistency: asp"), ConfigPart::run),
              ElementsAre("cluster.consistency: bsp in the checkpoint's run, asp, dealing auto now"));
  const JobConfig discounted = job("{type: sgd, learning_rate: 0.1, staleness_discount: inverse}",
                                   "{epochs: 1, batch: 8}", "relu", "cluster: {consistency: asp}\n");
  EXPECT_THAT(config_differences(before, discounted, ConfigPart::run),
              Contains("optimizer.staleness_discount: none in the checkpoint's run, inverse now"));
}

TEST(ConfigDifferences, TellsPartsApart) {
  JobConfig now = job("{type: sgd, learning_rate: 0.2}", "{epochs: 1, batch: 8}", "tanh");
  now.data.train.get<TextSource>()->file = "b";
  EXPECT_THAT(differences(now, ConfigPart::model), ElementsAre(StartsWith("model.layers.0.activation")));
  EXPECT_THAT(differences(now, ConfigPart::data),
              ElementsAre("data.train.file: a in the checkpoint's run, b now"));
  EXPECT_EQ(differences(now).size(), 2U);
}

TEST(ConfigDifferences, AreAllTold) {
  const std::vector<std::string> lines = config_differences({{"optimizer.a", "1"},
                                                             {"optimizer.b", "1"},
                                                             {"optimizer.c", "1"},
                                                             {"optimizer.d", "1"},
                                                             {"optimizer.e", "1"},
                                                             {"optimizer.f", "1"},
                                                             {"optimizer.g", "1"},
                                                             {"optimizer.h", "1"},
                                                             {"optimizer.i", "1"}},
                                                            job(), ConfigPart::run);
  EXPECT_THAT(lines,
              ::testing::IsSupersetOf({StartsWith("optimizer.a: 1 in"), StartsWith("optimizer.i: 1 in"),
                                       StartsWith("train.shuffle: nothing in")}));
}

// What values mean is the model's function; what only training sees may change.
TEST(ConfigDifferences, TellsMeaningFromTraining) {
  const JobConfig tanh = job("{type: sgd, learning_rate: 0.2}", "{epochs: 1, batch: 8}", "tanh");
  EXPECT_THAT(differences(tanh, ConfigPart::meaning),
              ElementsAre("model.layers.0.activation: relu in the checkpoint's run, tanh now"));
  EXPECT_THAT(differences(tanh, ConfigPart::training),
              ElementsAre("optimizer.learning_rate: 0.1 in the checkpoint's run, 0.2 now"));
  const auto with_loss = [](const std::string& loss) {
    ConfigNode root = job().root;
    root.find_entry("model")->value.find_entry("loss")->value = read_yaml_text(loss, "job.yaml");
    return parse_job(root, "job.yaml");
  };
  EXPECT_THAT(differences(with_loss("{type: softmax_cross_entropy}"), ConfigPart::meaning), IsEmpty());
  const JobConfig smooth = with_loss("{type: softmax_cross_entropy, label_smoothing: 0.1}");
  EXPECT_THAT(differences(smooth, ConfigPart::meaning), IsEmpty());
  EXPECT_THAT(differences(smooth, ConfigPart::training),
              ElementsAre("model.loss.label_smoothing: nothing in the checkpoint's run, 0.1 now"));
  EXPECT_THAT(differences(with_loss("poisson"), ConfigPart::meaning),
              ElementsAre("model.loss.type: softmax_cross_entropy in the checkpoint's run, poisson now"));
  EXPECT_THAT(config_differences(computing_config(job()),
                                 job("{type: sgd, learning_rate: 0.1}", "{epochs: 1, batch: 8}", "linear"),
                                 ConfigPart::meaning),
              ElementsAre("model.layers.0.activation: relu in the checkpoint's run, nothing now"));
}

// A checkpoint of before says nothing.
TEST(ConfigDifferences, NothingIsKnownOfOlderCheckpoints) {
  EXPECT_THAT(config_differences({}, job("{type: adam, learning_rate: 0.2}"), ConfigPart::run), IsEmpty());
  EXPECT_THAT(data_differences("data.train", {}, {3, {2}, 1, {}, {}}), IsEmpty());
  Manifest m;
  EXPECT_FALSE(compared_run(m));
  m.coordinator_state = "epoch 3";
  EXPECT_FALSE(compared_run(m));
}

TEST(DataDifferences, NameWhatDiffers) {
  const DataIdentity before{10, {28, 28}, 10, {}, digest_of("a")};
  EXPECT_THAT(data_differences("data.train", before, before), IsEmpty());
  DataIdentity now = before;
  now.content = digest_of("b");
  EXPECT_THAT(data_differences("data.train", before, now),
              ElementsAre(HasSubstr(
                  "data.train: other samples or labels than in the checkpoint's run, though as many: "
                  "the files were edited, or are others (XXH3 " +
                  digest_of("b").hex() + ", then " + digest_of("a").hex() + ")")));
  now = before;
  now.classes = 12;  // said, or seen
  EXPECT_THAT(data_differences("data.train", before, now), IsEmpty());
  now = before;
  now.samples = 11;
  now.content = digest_of("more");
  now.sample_shape = {28, 27};
  now.classes = 9;
  EXPECT_THAT(data_differences("data.test", before, now),
              ElementsAre("data.test: samples of shape [28, 28] in the checkpoint's run, [28, 27] now",
                          "data.test: 10 classes in the checkpoint's run, 9 now"));
  now = before;
  now.vocabulary = digest_of("words");
  EXPECT_THAT(data_differences("data.train", before, now),
              ElementsAre(HasSubstr(
                  "another vocabulary than in the checkpoint's run, so that ids mean other words")));
}

// The state's own archive comes first, as older programs read it.
TEST(ComparedRun, StandsBehindTheCoordinatorsState) {
  const std::string older = "0 0 0 0 5.00000000000000000e-01 3 4 100 10 1\n";  // as they wrote it
  CoordinatorState state = from_manifest_text(older);
  EXPECT_EQ(state.dataset_size, 100);
  EXPECT_EQ(state.batch, 10);
  EXPECT_EQ(state.seed, 1);
  EXPECT_EQ(state.run, "");
  EXPECT_EQ(to_manifest_text(state), older);
  Manifest m;
  m.coordinator_state = older;
  EXPECT_FALSE(compared_run(m));
  ModelFacts facts;
  facts.train = {10, {2}, 3, digest_of("v"), digest_of("c")};
  state.run = compared_run_text(facts, job(), Clock(100));
  m.coordinator_state = to_manifest_text(state);
  EXPECT_EQ(from_text<CoordinatorState>(m.coordinator_state, "as older programs read it").seed, 1);
  const auto run = compared_run(m);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->train, facts.train);
  EXPECT_FALSE(run->test.is_known());
  EXPECT_EQ(run->config, computing_config(job()));
  for (std::size_t n = older.size(); n + 2 < m.coordinator_state.size(); ++n) {  // hostile, and cut off
    Manifest cut = m;
    cut.coordinator_state.resize(n);
    EXPECT_FALSE(compared_run(cut)) << n;
    EXPECT_EQ(from_manifest_text(cut.coordinator_state).seed, 1);
  }
}

}  // namespace
}  // namespace varscope
