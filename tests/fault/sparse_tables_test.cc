// Sparse tables as a user's job meets them: the same predictions as a dense embedding, one hash on all
// clusters, killed and resumed.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
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
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() > 60; }, kStartSeconds)) << job.err();
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

TEST_F(SparseTables, RefuseToClipByNorms) {
  write_data();
  const Ended e =
      run(start(job("table", kTable, "{type: sgd, clip: {type: global_norm, limit: 1}}"), dir / "run"));
  EXPECT_EQ(e.code, 2);
  EXPECT_THAT(e.err, HasSubstr("is a table, and norms of its gradients are not known; clip by value"));
}

}  // namespace
}  // namespace varscope::testing
