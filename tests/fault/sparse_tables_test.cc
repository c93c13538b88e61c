// Sparse tables as a user's job meets them: the same predictions as a dense embedding, one hash on all
// clusters, killed and resumed.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::HasSubstr;

// A number that looks like another one each time, the same in every run.
unsigned mixed(unsigned i) { return (i * 2654435761U) >> 12U; }

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class SparseTables : public ::testing::Test {
 protected:
  static constexpr int kRows = 230, kIds = 40;
  // Rows of libsvm with 0 to 4 of the ids [first, first + kIds); some have a weight.
  void write_bags(const std::string& name, int first = 0) const {
    std::string text;
    for (int i = 0; i < kRows; ++i) {
      const auto u = static_cast<unsigned>(i);
      text += mixed(u) % 3 == 0 ? "1" : "0";
      int id = first + static_cast<int>(mixed(u + 1000) % 7);
      for (unsigned k = 0; k < mixed(u + 2000) % 5; ++k) {
        text += fmt::format(" {}:{}", id, mixed(u * 5 + k) % 4 == 0 ? "0.5" : "1");
        id += 1 + static_cast<int>(mixed(u * 7 + k + 3000) % 8);
      }
      text += "\n";
    }
    write_text(dir / name, text);
  }
  static constexpr const char* kTable = "table: {ids: int64, parts: 16}";
  // A model on the bags, by a table or by a dense embedding.
  std::string job(const std::string& name, const std::string& rows,
                  const std::string& optimizer = "{type: adagrad, learning_rate: 0.1}",
                  const std::string& train = "train.libsvm", const std::string& test = "test.libsvm") const {
    const bool is_table = rows.find("table:") != std::string::npos;
    const std::string keys =
        is_table ? "bags: true, ids: int64" : fmt::format("bags: true, base: 0, features: {}", kIds);
    const std::string file = dir / (name + ".yaml");
    write_text(file,
               fmt::format(R"(job: {{name: t, seed: 3}}
data:
  train: {{type: libsvm, files: {}, {}}}
  test: {{type: libsvm, files: {}, {}}}
model:
  loss: sigmoid_cross_entropy
  layers:
    - {{type: embedding, scope: ids, units: 5, combiner: sum, initializer: {{type: normal, stddev: 0.3}}, {}}}
    - {{type: dense, scope: hidden, units: 6, activation: tanh}}
    - {{type: dense, scope: logit, units: 1}}
cluster: {{logical_workers: 4}}
train: {{epochs: 3, batch: 32, metrics: [accuracy]}}
optimizer: {}
)",
                           train, keys, test, is_table ? "bags: true, ids: int64" : "bags: true, base: 0",
                           rows, optimizer));
    return file;
  }
  Command start(const std::string& file, const std::string& run_dir, int servers = 1, int workers = 0,
                const Args& more = {}) const {
    const Args args = Args{"train", file} +
                      set({"job.run_dir=" + run_dir, fmt::format("cluster.servers={}", servers)}) + more;
    Command command = workers == 0 ? varscope(args) : mpirun(servers + workers, args);
    command.environment["VARSCOPE_DATA"] = dir.path();
    return command;
  }
  std::string hash_on(const std::string& file, int servers, int workers, const Args& more = {}) const {
    SCOPED_TRACE(::testing::Message() << servers << " servers, " << workers << " workers");
    const ScratchDir run_dir;
    return train(start(file, run_dir / "run", servers, workers, more)).hash;
  }
  Ended command(const Args& args) const {
    Command c = varscope(args);
    c.environment["VARSCOPE_DATA"] = dir.path();
    return run(c);
  }
  void write_data() const {
    write_bags("train.libsvm");
    write_bags("test.libsvm");
  }

  ScratchDir dir;
};

TEST_F(SparseTables, PredictWhatADenseEmbeddingPredictsToTheLastDigit) {
  write_data();
  for (const char* optimizer : {"{type: adagrad, learning_rate: 0.1}", "{type: sgd, learning_rate: 0.2}"}) {
    const std::string table = job("table", std::string(kTable), optimizer),
                      dense = job("dense", fmt::format("vocabulary: {}", kIds), optimizer);
    const ScratchDir runs;
    const Summary of_table = train(start(table, runs / "table", 2)),
                  of_dense = train(start(dense, runs / "dense"));
    EXPECT_EQ(of_table.epoch_losses, of_dense.epoch_losses);
    EXPECT_EQ(of_table.test_loss, of_dense.test_loss);
    EXPECT_GT(of_table.test_loss, 0);
    std::string predicted[2];
    for (int i = 0; i < 2; ++i) {
      const std::string out = runs / fmt::format("{}.csv", i);
      const Ended e = command(
          {"predict", runs / (i == 0 ? "table" : "dense"), "--in", dir / "test.libsvm", "--out", out});
      EXPECT_EQ(e.code, 0) << e.all();
      predicted[i] = text_of(out);
    }
    EXPECT_GT(lines_of(predicted[0]).size(), static_cast<std::size_t>(kRows));
    EXPECT_EQ(predicted[0], predicted[1]);
  }
}

TEST_F(SparseTables, HaveOneHashOnAllClusters) {
  write_data();
  const std::string file = job("table", kTable);
  const std::string one = hash_on(file, 1, 1);
  EXPECT_EQ(hash_on(file, 2, 0), one);
  EXPECT_EQ(hash_on(file, 1, 2), one);
  EXPECT_EQ(hash_on(file, 2, 3), one);
  EXPECT_EQ(hash_on(file, 3, 4), one);
  EXPECT_NE(hash_on(file, 1, 0, set({"job.seed=4"})), one);
}

TEST_F(SparseTables, HaveTheSameBitsWhereRowsAreAskedForLater) {
  write_data();
  const std::string file = job("table", kTable);
  const Args late = set({"cluster.early_requests=false"});
  EXPECT_EQ(hash_on(file, 2, 3, late), hash_on(file, 2, 3));
  EXPECT_EQ(hash_on(file, 1, 0, late), hash_on(file, 1, 0));
}

TEST_F(SparseTables, EndInTheSameHashKilledAndResumedOnOtherServers) {
  write_data();
  const std::string file = job("table", kTable);
  const std::string whole = hash_on(file, 1, 0);
  for (const int servers : {1, 3}) {
    const ScratchDir runs;
    const Args saves = set({"checkpoint.every_steps=5"});
    const Summary first = train(start(file, runs / "run", 2, 2, saves + set({"train.max_steps=10"})));
    EXPECT_EQ(first.step, 10);
    const Summary second = train(start(file, runs / "run", servers, 2, saves + Args{"--resume"}));
    EXPECT_EQ(second.first_step, 10);
    EXPECT_EQ(second.hash, whole) << servers << " servers";
  }
}

TEST_F(SparseTables, SurviveAKillInTheMiddleOfARun) {
  write_data();
  const std::string file = job("table", kTable);
  const Args longer = set({"train.epochs=150", "train.eval_every_epochs=0", "checkpoint.every_steps=20",
                           "checkpoint.incremental=true"});
  const ScratchDir runs;
  const std::string whole =
      train(start(file, runs / "whole", 2, 0, longer + set({"checkpoint.incremental=false"}))).hash;
  Job job(start(file, runs / "run", 2, 2, longer));
  // Steps may be faster than saves.
  const auto has_saved = [&] { return std::filesystem::exists(runs / "run/checkpoints/LATEST"); };
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() > 60 && has_saved(); }, kStartSeconds))
      << job.err();
  for (const pid_t pid : job.rank_pids(4, kStartSeconds)) kill(pid, SIGKILL);
  job.wait(60 * kSlowness);
  const Summary resumed = train(start(file, runs / "run", 1, 2, longer + Args{"--resume"}), "checkpoint");
  EXPECT_GT(resumed.first_step, 0);
  EXPECT_EQ(resumed.hash, whole);
}

// What checkpoints are made of changes no bit, and neither does a kill between two of them.
TEST_F(SparseTables, HaveOneHashWithSavesOfChangedRowsKilledAndResumed) {
  write_data();
  const std::string file = job("table", kTable);
  // With train.stop each evaluation's save is waited for: none is left out because an earlier one is being
  // written.
  const Args saves = set({"train.stop.metric=loss", "train.stop.patience=100", "checkpoint.every_steps=8",
                          "checkpoint.incremental=true"});
  const std::string one = hash_on(file, 2, 2);
  EXPECT_EQ(hash_on(file, 2, 2, saves), one);
  const ScratchDir runs;
  const std::string run_dir = runs / "run";
  train(start(file, run_dir, 2, 2, saves + set({"train.max_steps=20", "checkpoint.at_end=false"})));
  const Ended listed = command({"checkpoint", "inspect", run_dir + "/checkpoints/step-000000016"});
  EXPECT_THAT(listed.all(), HasSubstr("linked "));
  EXPECT_EQ(command({"checkpoint", "verify", run_dir + "/checkpoints"}).code, 0);
  EXPECT_EQ(train(start(file, run_dir, 3, 1, saves + Args{"--resume"})).hash, one);
  EXPECT_EQ(command({"checkpoint", "verify", run_dir + "/checkpoints"}).code, 0);
}

TEST_F(SparseTables, AreNotChangedByEvaluationWithIdsThatWereNeverSeen) {
  write_data();
  write_bags("unseen.libsvm", 1'000'000);
  const std::string seen = job("seen", kTable),
                    unseen = job("unseen", kTable, "{type: adagrad, learning_rate: 0.1}", "train.libsvm",
                                 "unseen.libsvm");
  const ScratchDir runs;
  const Summary a = train(start(seen, runs / "a", 2, 2)), b = train(start(unseen, runs / "b", 2, 2));
  EXPECT_EQ(a.hash, b.hash);
  EXPECT_NE(a.test_loss, b.test_loss);
  const Ended inspected = command({"checkpoint", "inspect", runs / "a"});
  EXPECT_THAT(inspected.out, HasSubstr("[29 rows, 5]")) << inspected.all();
}

TEST_F(SparseTables, StartWarmFromAnotherRun) {
  write_data();
  const std::string file = job("table", kTable);
  const ScratchDir runs;
  const Summary first = train(start(file, runs / "first", 2));
  const Args warm = set({"warm_start.from=" + (runs / "first/checkpoints"), "train.max_steps=1"});
  const Summary one = train(start(file, runs / "one", 1, 0, warm)),
                three = train(start(file, runs / "three", 3, 2, warm));
  EXPECT_EQ(one.hash, three.hash);
  EXPECT_NE(one.hash, hash_on(file, 1, 0, set({"train.max_steps=1"})));
}

// From there on both train alike: first values of absent rows are those of the run that the rows come from.
TEST_F(SparseTables, StartWarmFromADenseEmbeddingAndADenseEmbeddingFromATable) {
  write_data();
  const std::string table = job("table", kTable), dense = job("dense", fmt::format("vocabulary: {}", kIds));
  const std::string parts =
      job("parts", fmt::format("vocabulary: {}, partitioner: {{type: fixed_size, parts: 3}}", kIds));
  const ScratchDir runs;
  train(start(dense, runs / "dense", 2));
  train(start(table, runs / "table", 2));
  for (const char* from : {"dense", "table"}) {
    SCOPED_TRACE(from);
    const Args warm = set({fmt::format("warm_start.from={}/checkpoints", runs / from), "train.epochs=2"});
    const std::string to = runs / fmt::format("from_{}_", from);
    const Summary of_table = train(start(table, to + "table", 3, 2, warm)),
                  of_dense = train(start(dense, to + "dense", 2, 0, warm)),
                  of_parts = train(start(parts, to + "parts", 2, 0, warm));
    EXPECT_EQ(of_table.epoch_losses, of_dense.epoch_losses);
    EXPECT_EQ(of_table.test_loss, of_dense.test_loss);
    EXPECT_EQ(of_parts.epoch_losses, of_dense.epoch_losses);
    EXPECT_EQ(of_parts.test_loss, of_dense.test_loss);
  }
}

// Whatever the seed of the run that takes them.
TEST_F(SparseTables, GiveADenseEmbeddingFirstValuesByTheSeedOfTheirRun) {
  write_data();
  std::string text;
  for (unsigned i = 0; i < 64; ++i) text += mixed(i) % 2 == 0 ? "1 3:1\n" : "0 3:1\n";
  write_text(dir / "few.libsvm", text);
  const std::string standing = "{type: sgd, learning_rate: 1e-30}";
  const ScratchDir runs;
  train(start(job("table", kTable, standing, "few.libsvm"), runs / "table"));
  const std::string dense = job("dense", fmt::format("vocabulary: {}", kIds), standing, "few.libsvm");
  const auto test_loss = [&](const std::string& seed) {
    const Args warm =
        set({fmt::format("warm_start.from={}/checkpoints", runs / "table"), "job.seed=" + seed});
    return train(start(dense, runs / seed, 2, 0, warm)).test_loss;
  };
  const double by_same = test_loss("3");
  EXPECT_GT(by_same, 0);
  EXPECT_EQ(test_loss("9"), by_same);
  EXPECT_NE(train(start(dense, runs / "cold", 2, 0, set({"job.seed=9"}))).test_loss, by_same);
}

TEST_F(SparseTables, GiveNoDenseEmbeddingThatHasNoRoomForTheirIds) {
  write_data();
  write_bags("far.libsvm", 1'000'000);
  const std::string table =
      job("table", kTable, "{type: adagrad, learning_rate: 0.1}", "far.libsvm", "far.libsvm");
  const ScratchDir runs;
  train(start(table, runs / "table"));
  const std::string dense = job("dense", fmt::format("vocabulary: {}", kIds));
  for (const int servers : {1, 2}) {
    const Ended e =
        run(start(dense, runs / "dense", servers, servers == 1 ? 0 : 2,
                  set({fmt::format("warm_start.from={}/checkpoints", runs / "table")}) + Args{"--fresh"}));
    EXPECT_EQ(e.code, 4) << e.all();
    EXPECT_THAT(e.err,
                HasSubstr("rows that variable \"ids/embeddings\" has not, which is dense with rows 0 to "
                          "39; the first is 10000"));
  }
}

// Rows that a step does not have keep their means, on every cluster and over a resume.
TEST_F(SparseTables, TrainByLazyRulesWithOneHash) {
  write_data();
  for (const char* optimizer :
       {"{type: adam, learning_rate: 0.01}", "{type: momentum, learning_rate: 0.05}"}) {
    const std::string file = job("lazy", kTable, optimizer);
    const std::string whole = hash_on(file, 1, 0);
    EXPECT_EQ(hash_on(file, 2, 3), whole) << optimizer;
    const ScratchDir runs;
    train(start(file, runs / "run", 2, 2, set({"train.max_steps=10"})));
    EXPECT_EQ(train(start(file, runs / "run", 3, 1, {"--resume"})).hash, whole) << optimizer;
  }
  const std::string by_row = hash_on(job("row", kTable, "{type: adam, correction: row}"), 1, 0);
  EXPECT_NE(hash_on(job("clock", kTable, "{type: adam, correction: clock}"), 1, 0), by_row);
}

// Rows still come into being: with others than before, the bits would be those of no run.
TEST_F(SparseTables, ResumeOnlyWithTheFirstValuesThatTheyHad) {
  write_data();
  const std::string file = job("table", kTable);
  train(start(file, dir / "run", 1, 0, set({"train.max_steps=10"})));
  const Ended e =
      run(start(file, dir / "run", 1, 0, set({"model.layers.0.initializer=zeros"}) + Args{"--resume"}));
  EXPECT_EQ(e.code, 4) << e.all();
  EXPECT_THAT(
      e.err,
      HasSubstr("rows of table \"ids/embeddings\" begin with normal(0, 0.3) in the checkpoint and with "
                "constant(0) in the model"));
}

TEST_F(SparseTables, ResumeWithTheirOwnKeysOrSayAllThatDiffers) {
  write_data();
  const std::string file = job("table", kTable);
  train(start(file, dir / "run", 1, 0, set({"train.max_steps=10"})));
  const auto resumed = [&](const Args& more) {
    return run(start(file, dir / "run", 1, 0, more + Args{"--resume"}));
  };
  const Ended other =
      resumed(set({"model.layers.0.units=6", "model.layers.0.table={ids: int64, parts: 8, entry: 2}",
                   "optimizer={type: sgd, learning_rate: 0.1}"}));
  EXPECT_EQ(other.code, 4) << other.all();
  for (const char* line : {"the optimizer is \"adagrad\" in the checkpoint and \"sgd\" in the job\n",
                           "table \"ids/embeddings\" has 16 parts in the checkpoint and 8 in the model\n",
                           "table \"ids/embeddings\" has entry 1 in the checkpoint and 2 in the model\n",
                           "table \"ids/embeddings\" has 5 units in the checkpoint and 6 in the model\n",
                           "nothing was restored"})
    EXPECT_THAT(other.err, HasSubstr(line));
  EXPECT_THAT(other.err, ::testing::Not(HasSubstr("layers.0.table"))) << "each difference is told once";
}

// Which rows are kept may be decided anew; the run says so.
TEST_F(SparseTables, ResumeWithAnotherLifeOfRows) {
  write_data();
  const std::string file = job("table", kTable);
  train(start(file, dir / "run", 1, 0, set({"train.max_steps=10"})));
  const Ended e = run(start(file, dir / "run", 1, 0,
                            set({"model.layers.0.table={ids: int64, parts: 16, expire_steps: 1000, max_rows: "
                                 "65536, when_full: lru, absent: zeros}"}) +
                                Args{"--resume"}));
  EXPECT_EQ(e.code, 0) << e.all();
  for (const char* line : {"expire_steps is off in the checkpoint and 1000 in the model",
                           "max_rows is off in the checkpoint and 65536 in the model",
                           "when_full is error in the checkpoint and lru in the model",
                           "absent is initial in the checkpoint and zeros in the model"})
    EXPECT_THAT(e.out, HasSubstr(std::string("  table        table \"ids/embeddings\": ") + line)) << e.all();
}

TEST_F(SparseTables, CountStepsInThirtyTwoBits) {
  write_data();
  const std::string file = job("table", kTable);
  const auto error = [&](const Args& more) {
    const Ended e = run(start(file, dir / "run", 1, 0, more));
    EXPECT_EQ(e.code, 2) << e.all();
    return e.err;
  };
  EXPECT_THAT(
      error(set({"train.max_steps=4294967295", "train.epochs=1000000000"})),
      HasSubstr("train.max_steps: the run has 4294967295 steps, but rows of tables (\"ids/embeddings\") "
                "count up to 4294967294; set train.max_steps"));
  EXPECT_THAT(error(set({"train.epochs=1000000000"})),
              HasSubstr("train.epochs: the run has 8000000000 steps"));
  train(start(file, dir / "run", 1, 0, set({"train.max_steps=10", "train.epochs=1000000000"})));
  EXPECT_THAT(error(set({"train.max_steps=5000000000", "train.epochs=1000000000"}) + Args{"--resume"}),
              HasSubstr("train.max_steps: the run has 5000000000 steps"));
}

TEST_F(SparseTables, NameTheRowThatIsNotFinite) {
  write_data();
  const Ended e = run(start(job("table", kTable), dir / "run", 1, 0,
                            set({"model.layers.0.initializer={type: constant, value: 2e38}"})));
  EXPECT_EQ(e.code, 6) << e.all();
  EXPECT_THAT(e.err, ::testing::ContainsRegex("the update made .*(nan|inf) in .*ids/embeddings "
                                              "\\(row [0-9]+, element [0-4]\\)"));
}

TEST_F(SparseTables, AreFoundByTheirNameInTheCheckpoint) {
  write_data();
  const std::string file = job("table", kTable);
  const Args renamed = set({"checkpoint.rename={old/rows: ids/embeddings, old/w: hidden/weights}"});
  train(start(file, dir / "run", 1, 0, renamed));
  const std::string run_dir = dir / "run";
  for (const Args& args : {Args{"predict", run_dir, "--in", dir / "test.libsvm", "--out", dir / "out.csv"},
                           Args{"eval", run_dir}, Args{"neighbors", run_dir, "1"}}) {
    const Ended e = command(args);
    EXPECT_EQ(e.code, 0) << args[0] << e.all();
  }
  EXPECT_THAT(command({"checkpoint", "inspect", run_dir}).out, HasSubstr("old/rows"));
}

// A worker has asked for the rows of the next step at almost any moment: nothing of it is left.
TEST_F(SparseTables, SurviveAWorkerThatDiesAfterItsRequest) {
  write_data();
  const std::string file = job("table", kTable);
  const Args longer = set({"train.epochs=150", "train.eval_every_epochs=0", "checkpoint.every_steps=20"});
  const ScratchDir runs;
  const std::string whole = train(start(file, runs / "whole", 2, 0, longer)).hash;
  Job job(start(file, runs / "run", 2, 2, longer));
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() > 60; }, kStartSeconds)) << job.err();
  const std::vector<pid_t> pids = job.rank_pids(4, kStartSeconds);
  ASSERT_EQ(pids.size(), 4U);
  kill(pids[3], SIGKILL);
  EXPECT_NE(job.wait(60 * kSlowness).code, 0);
  const Summary resumed = train(start(file, runs / "run", 2, 2, longer + Args{"--resume"}), "checkpoint");
  EXPECT_GT(resumed.first_step, 0);
  EXPECT_EQ(resumed.hash, whole);
}

// Single ids of a table of text, which are fetched to the last bit.
class RowIdsJob : public ::testing::Test {
 protected:
  void train_on(const std::string& ids, const std::vector<std::string>& values) const {
    std::filesystem::remove_all(dir / "run");
    std::string text = "id,y\n";
    for (std::size_t i = 0; i < 40; ++i) text += fmt::format("{},{}\n", values[i % values.size()], i % 2);
    write_text(dir / "train.csv", text);
    write_text(dir / "job.yaml", fmt::format(R"(job: {{name: t}}
data: {{train: {{type: csv, files: {}, schema: {{label: {{column: y}}, features: {{user: {{columns: id, ids: {}}}}}}}}}}}
model:
  loss: softmax_cross_entropy
  layers:
    - {{type: embedding, scope: e, input: user, units: 3, padding: {}, table: {{ids: {}, parts: 4}}}}
    - {{type: dense, units: 2}}
train: {{epochs: 2, batch: 8}}
)",
                                             dir / "train.csv", ids, values[0], ids));
    train(varscope(Args{"train", dir / "job.yaml"} +
                   set({"job.run_dir=" + (dir / "run"), "output.progress=off"})));
  }
  std::string fetched(const std::string& out) const {
    const Ended e = run(
        varscope({"predict", dir / "run", "--in", dir / "train.csv", "--out", dir / out, "--fetch", "user"}));
    EXPECT_EQ(e.code, 0) << e.all();
    return text_of(dir / out);
  }
  std::string neighbors_error(const std::string& word) const {
    const Ended e = run(varscope({"neighbors", dir / "run", "--", word}));
    EXPECT_EQ(e.code, 2) << e.all();
    return e.err;
  }
  ScratchDir dir;
};

TEST_F(RowIdsJob, FetchesIdsToTheLastBit) {
  train_on("uint64", {"0", "18446744073709551615", "9007199254740993"});
  EXPECT_THAT(lines_of(fetched("out.csv"))[2], ::testing::EndsWith(",18446744073709551615"));
  EXPECT_THAT(lines_of(fetched("out.csv"))[3], ::testing::EndsWith(",9007199254740993"));
  const std::string arrays = fetched("out.npz");
  EXPECT_THAT(arrays, HasSubstr("'<u8'"));
  EXPECT_THAT(arrays, HasSubstr(std::string("\x01\0\0\0\0\0\x20\0", 8)));  // 2^53 + 1
}

TEST_F(RowIdsJob, FetchesNegativeIdsAndHashesOfTexts) {
  train_on("int64", {"0", "-9223372036854775808", "-1"});
  EXPECT_THAT(lines_of(fetched("out.csv"))[2], ::testing::EndsWith(",-9223372036854775808"));
  EXPECT_THAT(fetched("out.npz"), HasSubstr("'<i8'"));
  train_on("string", {"none", "ann", "bob"});
  EXPECT_THAT(lines_of(fetched("out.csv"))[2], ::testing::ContainsRegex(",#[0-9a-f]{16}$"));
}

TEST_F(RowIdsJob, NeighborsSayWhyAWordHasNoRow) {
  train_on("string", {"none", "ann", "bob", "eve"});
  EXPECT_THAT(neighbors_error("none"),
              HasSubstr("\"none\" is the padding of input \"user\": it stands for nothing, and has no row in "
                        "e/embeddings"));
  EXPECT_THAT(neighbors_error("zoe"),
              HasSubstr("\"zoe\" has no row in e/embeddings: no sample that was trained on had it"));
  // What the answers call an id asks for it, too.
  const Ended bob = run(varscope({"neighbors", dir / "run", "ann"}));
  const std::size_t at = bob.out.find('#');
  ASSERT_NE(at, std::string::npos) << bob.all();
  const Ended by_hash = run(varscope({"neighbors", dir / "run", bob.out.substr(at, 17)}));
  EXPECT_EQ(by_hash.code, 0) << by_hash.all();
}

TEST_F(RowIdsJob, DataShowTakesEveryTextForAnId) {
  train_on("string", {"none", "NA", "", "bob"});
  const Ended e = run(varscope({"data", "show", dir / "job.yaml"}));
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_THAT(e.out, ::testing::ContainsRegex("id +user +words +0 +at least 3"));
}

// Of ids that were never trained: as the run would have begun their rows.
TEST_F(SparseTables, EvaluateUnseenIdsByTheCheckpointsSeedAndInitializer) {
  write_data();
  write_bags("unseen.libsvm", 1'000'000);
  const std::string file = job("table", kTable);
  train(start(file, dir / "run"));
  const auto loss = [&](const Args& more) {
    const Ended e = command(Args{"eval", file, "--checkpoint", dir / "run/checkpoints"} +
                            set({"data.test.files=unseen.libsvm"}) + more);
    EXPECT_EQ(e.code, 0) << e.all();
    const std::size_t at = e.out.find("loss");
    return at == std::string::npos ? e.all() : e.out.substr(at, e.out.find('\n', at) - at);
  };
  const std::string by_run = loss({});
  EXPECT_EQ(loss(set({"job.seed=99"})), by_run);
  EXPECT_EQ(loss(set({"model.layers.0.initializer=zeros"})), by_run);
}

TEST_F(SparseTables, GenerateWordsOfALanguageModel) {
  std::string text;
  for (int i = 0; i < 600; ++i) text += i % 3 == 0 ? "the " : i % 3 == 1 ? "cat " : "sat ";
  write_text(dir / "words.txt", text);
  write_text(dir / "text.yaml", R"(job: {name: t, seed: 3}
data: {train: {type: text, file: words.txt, vocabulary: 4, steps: 5}}
model:
  loss: softmax_cross_entropy
  layers:
    - {type: embedding, scope: e, units: 4, table: {ids: int64, parts: 4}}
    - {type: lstm, units: 6}
    - {type: dense, units: 4, each_step: true}
train: {epochs: 3, batch: 4}
optimizer: {type: adam, learning_rate: 0.05}
)");
  train(start(dir / "text.yaml", dir / "run"));
  const Ended e = command({"predict", dir / "run", "--generate", "5", "--prompt", "the cat"});
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_THAT(e.out, HasSubstr("sat")) << e.all();
}

// The norm of a table's gradients is that of a dense embedding's: rows that a step does not have add nothing.
TEST_F(SparseTables, AreClippedByNormsAsADenseEmbedding) {
  write_data();
  for (const char* clip : {"{type: global_norm, limit: 0.05}", "{type: norm, limit: 0.02}"}) {
    const std::string optimizer = fmt::format("{{type: adagrad, learning_rate: 0.1, clip: {}}}", clip);
    const std::string table = job("table", kTable, optimizer),
                      dense = job("dense", fmt::format("vocabulary: {}", kIds), optimizer);
    const ScratchDir runs;
    const Summary of_table = train(start(table, runs / "table", 2)),
                  of_dense = train(start(dense, runs / "dense")),
                  of_free = train(start(job("free", kTable), runs / "free"));
    EXPECT_EQ(of_table.epoch_losses, of_dense.epoch_losses) << clip;
    EXPECT_EQ(of_table.test_loss, of_dense.test_loss) << clip;
    EXPECT_NE(of_table.epoch_losses, of_free.epoch_losses) << clip;  // the limit is reached
    EXPECT_EQ(hash_on(table, 3, 4), of_table.hash) << clip;
  }
}

TEST_F(SparseTables, EndInTheSameHashClippedByNormsKilledAndResumed) {
  write_data();
  const std::string file = job("table", fmt::format("{}, constraint: {{type: max_norm, limit: 0.4}}", kTable),
                               "{type: adam, learning_rate: 0.05, clip: {type: global_norm, limit: 0.05}}");
  const std::string whole = hash_on(file, 1, 0);
  const ScratchDir runs;
  const Args saves = set({"checkpoint.every_steps=5"});
  EXPECT_EQ(train(start(file, runs / "run", 3, 2, saves + set({"train.max_steps=10"}))).step, 10);
  EXPECT_EQ(train(start(file, runs / "run", 2, 1, saves + Args{"--resume"})).hash, whole);
}

// Each step has all rows here: a dense embedding holds the others to the norm too.
TEST_F(SparseTables, HoldTheRowsOfAStepToANormAsADenseEmbedding) {
  std::string text;
  for (unsigned i = 0; i < kRows; ++i) {
    text += mixed(i) % 3 == 0 ? "1" : "0";
    for (unsigned id = 0; id < 5; ++id) text += fmt::format(" {}:{}", id, mixed(i * 5 + id) % 4 + 1);
    text += "\n";
  }
  write_text(dir / "all.libsvm", text);
  const std::string optimizer = "{type: adagrad, learning_rate: 0.1}";
  for (const char* constraint : {"{type: max_norm, limit: 0.4}", "unit_norm", "non_neg"}) {
    const auto file = [&](const std::string& name, const std::string& rows) {
      return job(name, fmt::format("{}, constraint: {}", rows, constraint), optimizer, "all.libsvm",
                 "all.libsvm");
    };
    const ScratchDir runs;
    const std::string table = file("table", kTable);
    const Summary of_table = train(start(table, runs / "table", 2)),
                  of_dense = train(start(file("dense", fmt::format("vocabulary: {}", kIds)), runs / "dense")),
                  of_free =
                      train(start(job("free", kTable, optimizer, "all.libsvm", "all.libsvm"), runs / "free"));
    EXPECT_EQ(of_table.epoch_losses, of_dense.epoch_losses) << constraint;
    EXPECT_EQ(of_table.test_loss, of_dense.test_loss) << constraint;
    EXPECT_NE(of_table.epoch_losses, of_free.epoch_losses) << constraint;
    EXPECT_EQ(hash_on(table, 3, 2), of_table.hash) << constraint;
  }
}

// Ids that come and go: a table whose rows wait for a second occurrence, expire, and leave parts that are
// full.
class LifeOfRows : public ::testing::Test {
 protected:
  static constexpr const char* kParts = "ids: uint64, parts: 2";
  static std::string life(const std::string& when_full) {
    return std::string(kParts) + ", entry: 2, expire_steps: 40, max_rows: 8192, when_full: " + when_full;
  }
  std::string job(const std::string& table) const {
    const std::string file = dir / "job.yaml";
    write_text(file, fmt::format(R"(job: {{name: life, seed: 3}}
data:
  train: {{type: synthetic, generate: ctr, samples: 20000, features: 8, vocabulary: 4000, exponent: 0.6, numbers: 1}}
  test: {{type: synthetic, generate: ctr, samples: 1000, features: 8, vocabulary: 4000, exponent: 0.6, numbers: 1}}
model:
  loss: sigmoid_cross_entropy
  layers:
    - {{type: embedding, scope: ids, input: words, units: 3, combiner: sum, initializer: {{type: normal, stddev: 0.3}}, table: {{{}}}}}
    - {{type: dense, scope: logit, units: 1}}
cluster: {{logical_workers: 4}}
train: {{epochs: 1, batch: 128}}
optimizer: {{type: adam, learning_rate: 0.01}}
)",
                                 table));
    return file;
  }
  static Command start(const std::string& file, const std::string& run_dir, int servers, int workers,
                       const Args& more = {}) {
    const Args args = Args{"train", file} +
                      set({"job.run_dir=" + run_dir, fmt::format("cluster.servers={}", servers)}) + more;
    return workers == 0 ? varscope(args) : mpirun(servers + workers, args);
  }
  std::string hash_on(const std::string& table, int servers, int workers) const {
    const ScratchDir run_dir;
    return train(start(job(table), run_dir / "run", servers, workers)).hash;
  }
  ScratchDir dir;
};

TEST_F(LifeOfRows, HasOneHashOnAllClusters) {
  for (const char* when_full : {"lru", "lfu"}) {
    const std::string one = hash_on(life(when_full), 1, 0);
    EXPECT_EQ(hash_on(life(when_full), 2, 2), one) << when_full;
    EXPECT_EQ(hash_on(life(when_full), 3, 4), one) << when_full;
  }
}

TEST_F(LifeOfRows, EachKeyDecidesWhichRowsThereAre) {
  const std::string parts = kParts;
  std::set<std::string> hashes{hash_on(parts, 1, 0),
                               hash_on(life("lru"), 1, 0),
                               hash_on(life("lfu"), 1, 0),
                               hash_on(parts + ", entry: 2", 1, 0),
                               hash_on(parts + ", expire_steps: 40", 1, 0),
                               hash_on(parts + ", max_rows: 8192, when_full: lru", 1, 0),
                               hash_on(parts + ", entry: 2, absent: initial", 1, 0)};
  EXPECT_EQ(hashes.size(), 7U);
}

TEST_F(LifeOfRows, GoesOnAfterAKillOnOtherServers) {
  const std::string file = job(life("lru"));
  const ScratchDir runs;
  const std::string whole = train(start(file, runs / "whole", 1, 0)).hash;
  const Args saves = set({"checkpoint.every_steps=30"});
  EXPECT_EQ(train(start(file, runs / "run", 2, 2, saves + set({"train.max_steps=70"}))).step, 70);
  Job killed(start(file, runs / "run", 3, 1, saves + Args{"--resume"}));
  ASSERT_TRUE(killed.wait_until([&] { return killed.last_step() > 95; }, kStartSeconds)) << killed.err();
  for (const pid_t pid : killed.rank_pids(4, kStartSeconds)) kill(pid, SIGKILL);
  killed.wait(60 * kSlowness);
  const Summary resumed = train(start(file, runs / "run", 1, 2, saves + Args{"--resume"}), "checkpoint");
  EXPECT_GE(resumed.first_step, 70);
  EXPECT_EQ(resumed.hash, whole);
}

// What servers answer while a run evaluates, and what is read out of its checkpoint, is one.
TEST_F(LifeOfRows, IsEvaluatedFromACheckpointAsInTheRun) {
  for (const char* absent : {"zeros", "initial"}) {
    const std::string file = job(life("lfu") + ", absent: " + absent);
    const ScratchDir runs;
    const Summary run_of = train(start(file, runs / "run", 2, 2));
    const Ended e = run(varscope({"eval", runs / "run", "--json"}));
    EXPECT_EQ(e.code, 0) << e.all();
    const std::size_t at = e.out.find("\"loss\":");
    ASSERT_NE(at, std::string::npos) << e.all();
    EXPECT_NEAR(std::stod(e.out.substr(at + 7)), run_of.test_loss, 1e-4) << absent;
  }
}

// No step has a row of such a table: it would be empty once expire_steps have passed.
TEST_F(LifeOfRows, DoesNotEndWhereTheTableIsNotTrained) {
  const ScratchDir runs;
  const std::string limited = std::string(kParts) + ", expire_steps: 40, max_rows: 8192, when_full: lru";
  train(start(job(limited), runs / "first", 2, 1, set({"train.max_steps=60"})));
  const auto frozen = [&](const std::string& name, const std::string& table, int servers, int workers) {
    const Args more =
        set({"warm_start.from=" + (runs / "first/checkpoints"), "model.layers.0.trainable=false"});
    return train(start(job(table), runs / name, servers, workers, more));
  };
  const Summary for_ever = frozen("for_ever", kParts, 1, 0);
  for (const auto& [name, servers] : std::map<std::string, int>{{"one", 1}, {"two", 2}}) {
    const Summary s = frozen(name, limited, servers, 1);
    EXPECT_EQ(s.hash, for_ever.hash) << name;
    EXPECT_NEAR(s.test_loss, for_ever.test_loss, 1e-6) << name;
    EXPECT_EQ(run(varscope({"checkpoint", "verify", runs / name + "/checkpoints"})).code, 0) << name;
    const Ended e = run(varscope({"checkpoint", "diff", runs / name, runs / "for_ever"}));
    EXPECT_EQ(e.code, 0) << e.all();
  }
}

}  // namespace
}  // namespace varscope::testing
