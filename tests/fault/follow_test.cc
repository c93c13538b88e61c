// Learning from a directory that is followed (docs/online.md): every record once, in the bits of an
// uninterrupted run, whoever is killed and whenever files come.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/philox.h"
#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kSoon = 90 * kSlowness;

// Rows of two numbers, a word and a label that follows from them; a function of their number alone.
std::string row(std::int64_t n, bool flips = false) {
  const RandomStream random(17, RandomPurpose::test, 0);
  const auto at = static_cast<std::uint64_t>(n) * 4;
  const double a = random.normal(at), b = random.normal(at + 1);
  const std::uint64_t word = random.below(at + 2, 50);
  const bool is_one = a - b + (word % 2 == 0 ? 0.5 : -0.5) > 0;
  return fmt::format("{},{:.4f},{:.4f},w{},{}\n", 1700000000 + n, a, b, word, is_one != flips ? 1 : 0);
}

std::string rows(std::int64_t from, std::int64_t n, bool flips = false) {
  std::string text = "at,a,b,word,label\n";
  for (std::int64_t i = from; i < from + n; ++i) text += row(i, flips);
  return text;
}

class Stream {
 public:
  explicit Stream(std::string dir) : dir_(std::move(dir)) { fs::create_directories(dir_); }
  // Appears whole, as its readers are promised.
  void put(const std::string& name, const std::string& text) const {
    write_text(dir_ + "/.tmp-" + name, text);
    fs::rename(dir_ + "/.tmp-" + name, dir_ + "/" + name);
  }
  void end() const { put("END", ""); }
  // The next file of so many records.
  void add(std::int64_t n, bool flips = false) {
    put(fmt::format("part-{:05}.csv", n_files_++), rows(n_records_, n, flips));
    n_records_ += n;
  }
  std::int64_t n_files() const { return n_files_; }
  const std::string& dir() const { return dir_; }

 private:
  std::string dir_;
  std::int64_t n_files_ = 0, n_records_ = 0;
};

// A table of rows for words nobody has seen before, and a dense part.
std::string config(const std::string& stream, const std::string& more = "") {
  return fmt::format(R"(job: {{name: stream}}
cluster: {{servers: 2, logical_workers: 2}}
data:
  train:
    type: csv
    follow: {}
    event_time: at
{}    schema:
      label: {{column: label, classes: ["0", "1"]}}
      features:
        x: {{columns: [a, b]}}
        word: {{columns: [word], ids: string}}
model:
  layers:
    - {{type: embedding, scope: word, input: word, units: 2, combiner: sum, table: {{ids: string}}, name: by_word}}
    - {{type: dense, scope: numbers, input: x, units: 2, name: numbers}}
    - {{type: add, inputs: [by_word, numbers]}}
  loss: softmax_cross_entropy
optimizer: {{type: adagrad, learning_rate: 0.2}}
train: {{batch: 32, log_every_steps: 1}}
checkpoint: {{every_steps: 5, keep: 3}}
)",
                     stream, more);
}

struct Place {
  ScratchDir dir;
  Stream stream{dir / "in"};
  std::string yaml = dir / "job.yaml", run = dir / "run";
  explicit Place(const std::string& more = "") { write_text(yaml, config(stream.dir(), more)); }
  Args args(const Args& more = {}) const { return Args{"train", yaml} + set({"job.run_dir=" + run}) + more; }
  Command on(int n_servers, int n_workers, const Args& more = {}) const {
    return mpirun(n_servers + n_workers, args(set({"cluster.servers=" + std::to_string(n_servers)}) + more));
  }
};

std::vector<nlohmann::json> events(const std::string& run, const std::string& event) {
  std::vector<nlohmann::json> all;
  for (const std::string& line : lines_of(read_text(run + "/metrics.jsonl"))) {
    auto json = nlohmann::json::parse(line);
    if (json["event"] == event) all.push_back(std::move(json));
  }
  return all;
}

bool has_checkpoint(const std::string& run) {
  for (const std::string& name : names_in(run + "/checkpoints")) {
    if (name.starts_with("step-")) return true;
  }
  return false;
}

void fill(Stream& stream, std::int64_t n_files) {
  for (std::int64_t i = 0; i < n_files; ++i) stream.add(40 + i * 7 % 50);
}

TEST(Follow, TheBitsAreThoseOfTheFilesWhateverTheRanksAre) {
  std::vector<std::string> hashes;
  std::vector<double> losses;
  for (const auto& [servers, workers] : {std::pair{1, 1}, {3, 2}, {2, 1}, {1, 2}}) {
    Place place;
    fill(place.stream, 8);
    place.stream.end();
    const Summary s = train(place.on(servers, workers));
    EXPECT_EQ(s.step, 20);
    hashes.push_back(s.hash);
    losses.push_back(events(place.run, "finish").at(0)["progressive_loss"]);
    EXPECT_EQ(events(place.run, "finish").at(0)["ended_by"], "END");
  }
  for (const std::string& hash : hashes) EXPECT_EQ(hash, hashes.front());
  for (const double loss : losses) EXPECT_EQ(loss, losses.front());
}

// Where files end where batches do, a stream is one epoch over its files in their order.
TEST(Follow, WhatIsLearntIsWhatTheFilesHold) {
  Place place;
  for (int i = 0; i < 4; ++i) place.stream.add(64);
  place.stream.end();
  std::string text = read_text(place.yaml);
  const std::string follow = "    follow: " + place.stream.dir() + "\n    event_time: at\n";
  text.replace(text.find(follow), follow.size(), "    files: " + place.stream.dir() + "/*.csv\n");
  text.replace(text.find("train: {batch: 32"), 17, "train: {shuffle: false, batch: 32");
  write_text(place.dir / "files.yaml", text);
  const Summary files =
      train(mpirun(3, Args{"train", place.dir / "files.yaml"} +
                          set({"job.run_dir=" + place.dir / "other", "cluster.servers=1"})));
  EXPECT_EQ(train(place.on(2, 1)).hash, files.hash);
}

TEST(Follow, FilesThatComeOneByOneAreLearntAsIfTheyHadBeenThere) {
  Place all, slow;
  fill(all.stream, 6);
  all.stream.end();
  const std::string hash = train(all.on(2, 2)).hash;

  Job job(slow.on(2, 2));
  EXPECT_TRUE(job.wait_until(
      [&] { return job.err().find("waits for the first file in") != std::string::npos; }, kStartSeconds))
      << job.wait(0).all();
  for (std::int64_t i = 0; i < 6; ++i) {
    slow.stream.add(40 + i * 7 % 50);
    const std::string name = fmt::format("part-{:05}.csv", i);
    EXPECT_TRUE(job.wait_until([&] { return job.err().find(name) != std::string::npos; }, kStartSeconds))
        << job.wait(0).all();
  }
  slow.stream.end();
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(summary_of(ended.out).hash, hash);
}

// Kills a random rank again and again while files come; what is left at the end is every record, once.
TEST(Follow, EveryRecordIsLearntOnceWhoeverIsKilled) {
  constexpr int kKills = 5;
  constexpr std::int64_t kFiles = 40;
  Place all, killed;
  fill(all.stream, kFiles);
  all.stream.end();
  const std::string hash = train(all.on(2, 2)).hash;

  std::mt19937_64 random(20261128);
  for (int k = 0; k < kKills; ++k) {
    const int servers = 1 + static_cast<int>(random() % 2), workers = 1 + static_cast<int>(random() % 2);
    const std::size_t victim = random() % static_cast<std::size_t>(servers + workers);
    if (killed.stream.n_files() == 0) killed.stream.add(40);
    const bool resumes = has_checkpoint(killed.run);
    Job job(killed.on(servers, workers, resumes ? Args{"--resume"} : k == 0 ? Args{} : Args{"--fresh"}));
    const std::vector<pid_t> pids = job.rank_pids(servers + workers, kStartSeconds);
    ASSERT_FALSE(pids.empty()) << job.wait(0).all();
    ASSERT_TRUE(
        job.wait_until([&] { return job.out().find("  start   ") != std::string::npos; }, kStartSeconds))
        << job.wait(0).all();
    for (std::int64_t i = 0; i < 3 && killed.stream.n_files() < kFiles; ++i)
      killed.stream.add(40 + killed.stream.n_files() * 7 % 50);
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 1500);
    job.wait_until([&] { return std::chrono::steady_clock::now() >= until; }, kSoon);
    kill(pids[victim], SIGKILL);
    const Ended ended = job.wait(kSoon);
    EXPECT_NE(ended.code, 0) << ended.all();
  }
  while (killed.stream.n_files() < kFiles) killed.stream.add(40 + killed.stream.n_files() * 7 % 50);
  killed.stream.end();
  const Ended ended =
      run(killed.on(2, 1, has_checkpoint(killed.run) ? Args{"--resume"} : Args{"--fresh"}), kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(summary_of(ended.out).hash, hash);
}

TEST(Follow, ProgressiveLossGoesOnOverAResumeToTheBit) {
  Place whole, resumed;
  for (Place* place : {&whole, &resumed}) fill(place->stream, 6);
  whole.stream.end();
  train(whole.on(1, 1, set({"train.progressive_window=100"})));

  const Args window = set({"train.progressive_window=100"});
  const Ended first = run(resumed.on(1, 1, window + set({"train.max_steps=7"})), kSoon);
  EXPECT_EQ(first.code, 0) << first.all();
  resumed.stream.end();
  const Ended second = run(resumed.on(2, 2, window + Args{"--resume"}), kSoon);
  EXPECT_EQ(second.code, 0) << second.all();
  const nlohmann::json a = events(whole.run, "finish").at(0), b = events(resumed.run, "finish").at(1);
  for (const char* key : {"progressive_loss", "progressive_loss_window", "records", "files", "values_hash"})
    EXPECT_EQ(a[key], b[key]) << key;
}

TEST(Follow, TheLossOfAStepIsThatBeforeItIsLearnt) {
  Place place;
  fill(place.stream, 3);
  place.stream.end();
  train(place.on(1, 1, set({"train.progressive_window=64"})));
  double total = 0;
  std::int64_t records = 0;
  for (const nlohmann::json& step : events(place.run, "step")) {
    const std::int64_t n = step["records"].get<std::int64_t>() - records;
    total += step["loss"].get<double>() * static_cast<double>(n);
    records += n;
    EXPECT_NEAR(step["progressive_loss"].get<double>(), total / static_cast<double>(records), 1e-12);
  }
  EXPECT_EQ(records, 40 + 47 + 54);
}

TEST(Follow, WhatIsLearntIsSavedWhenNothingComesAnyMore) {
  Place place;
  fill(place.stream, 1);
  Job job(place.on(2, 2, set({"checkpoint.every_steps=0", "checkpoint.idle_save_s=0.2"})));
  EXPECT_TRUE(job.wait_until([&] { return job.out().find("checkpoint of step 2 ") != std::string::npos; },
                             kStartSeconds))
      << job.wait(0).all();
  place.stream.add(47);
  EXPECT_TRUE(
      job.wait_until([&] { return job.out().find("checkpoint of step 4 ") != std::string::npos; }, kSoon))
      << job.wait(0).all();
  // Nobody saves again what is saved already.
  job.send_signal(SIGUSR2);
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 75) << ended.all();
  EXPECT_THAT(ended.out, HasSubstr("a signal asks to stop: a checkpoint, and the end"));
  EXPECT_THAT(summary_of(ended.out).checkpoints, ElementsAre(2, 4));

  place.stream.end();
  const Ended resumed = run(place.on(1, 1, {"--resume"}), kSoon);
  EXPECT_EQ(resumed.code, 0) << resumed.all();
  EXPECT_THAT(resumed.out, HasSubstr("follows " + place.stream.dir() +
                                     ", after record 47 of part-00001.csv, 87 records in all"));
  EXPECT_THAT(resumed.out, HasSubstr("nothing to do: no record has come that was not learnt before"));
}

TEST(Follow, SilenceCostsNothing) {
  Place place;
  fill(place.stream, 1);
  Job job(place.on(1, 2, set({"cluster.step_timeout_s=1", "cluster.stall_timeout_s=2"})));
  const std::vector<pid_t> pids = job.rank_pids(3, kStartSeconds);
  ASSERT_TRUE(job.wait_until([&] { return job.err().find("step 2 ") != std::string::npos; }, kStartSeconds))
      << job.wait(0).all();
  const auto ticks = [&] {
    std::int64_t all = 0;
    for (const pid_t pid : pids) {
      std::int64_t user = 0, system = 0;
      std::sscanf(stat_after_name(pid).c_str(), "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user,
                  &system);
      all += user + system;
    }
    return all;
  };
  const auto wait = [&](double seconds) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    job.wait_until([&] { return std::chrono::steady_clock::now() >= until; }, seconds + kSoon);
  };
  wait(1);
  const std::int64_t before = ticks();
  const auto started = std::chrono::steady_clock::now();
  wait(6);  // longer than both time-outs
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  const double share =
      static_cast<double>(ticks() - before) / 100 / seconds / static_cast<double>(pids.size());
  std::printf("idle ranks: %.2f %% of a core each\n", share * 100);
  EXPECT_LT(share, 0.03 * kSlowness);
  place.stream.end();
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(ended.errors().empty()) << ended.all();
}

// What can be wrong with a file, and the words of the run that ends.
struct Refusal {
  int code;
  std::string words;
};
void expect_refusal(const Ended& ended, const Refusal& refusal) {
  EXPECT_EQ(ended.code, refusal.code) << ended.all();
  ASSERT_EQ(ended.errors().size(), 1U) << ended.all();
  EXPECT_THAT(ended.errors().front(), HasSubstr(refusal.words));
}

TEST(Follow, AFileThatChangedSinceTheCheckpointEndsTheResume) {
  Place place;
  place.stream.add(100);
  const Ended first = run(place.on(1, 1, set({"train.max_steps=2"})), kSoon);
  ASSERT_EQ(first.code, 0) << first.all();
  const std::string path = place.stream.dir() + "/part-00000.csv";
  const std::string text = read_text(path);
  write_text(path, text + row(100));
  expect_refusal(run(place.on(1, 1, {"--resume"}), kSoon),
                 {4, path + " has " + std::to_string(text.size() + row(100).size()) + " bytes now"});
  fs::remove(path);
  expect_refusal(run(place.on(1, 1, {"--resume"}), kSoon),
                 {4, path + " is gone; the checkpoint has learnt 64 of its 100 records, of a file of " +
                         std::to_string(text.size()) + " bytes"});
  write_text(path, text);
  place.stream.end();
  const Ended resumed = run(place.on(2, 2, {"--resume"}), kSoon);
  EXPECT_EQ(resumed.code, 0) << resumed.all();
  EXPECT_THAT(resumed.out, HasSubstr("100 records learnt in 1 file"));
}

TEST(Follow, FilesThatAreLearntWholeMayBeGone) {
  Place whole, gone;
  for (Place* place : {&whole, &gone}) fill(place->stream, 4);
  whole.stream.end();
  const std::string hash = train(whole.on(1, 1)).hash;
  const Ended first = run(gone.on(1, 1, set({"train.max_steps=4"})), kSoon);  // two files whole
  ASSERT_EQ(first.code, 0) << first.all();
  fs::remove(gone.stream.dir() + "/part-00000.csv");
  fs::remove(gone.stream.dir() + "/part-00001.csv");
  gone.stream.end();
  EXPECT_EQ(train(gone.on(2, 2, {"--resume"})).hash, hash);
}

TEST(Follow, AFileThatComesTooLateIsToldAndLeftOut) {
  Place place;
  place.stream.put("b.csv", rows(0, 40));
  Job job(place.on(1, 1));
  ASSERT_TRUE(job.wait_until([&] { return job.err().find("b.csv") != std::string::npos; }, kStartSeconds))
      << job.wait(0).all();
  place.stream.put("a.csv", rows(40, 40));
  const std::string words =
      place.stream.dir() +
      "/a.csv has come when b.csv was read already, which has a later name: it is not learnt "
      "from (data.train.late: warn); give files names that rise";
  EXPECT_TRUE(job.wait_until([&] { return job.err().find(words) != std::string::npos; }, kSoon))
      << job.wait(0).all();
  place.stream.end();
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.out, HasSubstr("late         1 file not learnt from"));
  EXPECT_THAT(ended.out, HasSubstr("40 records learnt in 1 file"));
}

TEST(Follow, ManyLateFilesAreCountedAndNotNamedOneByOne) {
  Place place;
  place.stream.put("b.csv", rows(0, 40));
  Job job(place.on(1, 1));
  ASSERT_TRUE(job.wait_until([&] { return job.err().find("(b.csv)") != std::string::npos; }, kStartSeconds))
      << job.wait(0).all();
  for (int i = 0; i < 30; ++i) place.stream.put(fmt::format("a{:02}.csv", i), rows(40, 1));
  place.stream.end();
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.out, HasSubstr("late         30 files not learnt from"));
  const std::vector<std::string> told = ended.messages();
  const auto n = std::ranges::count_if(told, [](const std::string& line) {
    return line.find(" has come when b.csv was read already") != std::string::npos;
  });
  EXPECT_EQ(n, 10) << ended.all();
  EXPECT_THAT(ended.err, HasSubstr("give files names that rise; later ones are counted, and not named"));
}

TEST(Follow, AFileThatComesTooLateEndsTheRunWhereItIsToFail) {
  Place place("    late: fail\n");
  place.stream.put("b.csv", rows(0, 40));
  Job job(place.on(1, 1));
  ASSERT_TRUE(job.wait_until([&] { return job.err().find("b.csv") != std::string::npos; }, kStartSeconds))
      << job.wait(0).all();
  place.stream.put("a.csv", rows(40, 40));
  expect_refusal(job.wait(kSoon), {3, "data.train.late: fail ends the run: give files names that rise"});
}

TEST(Follow, BadRecordsAreAnErrorOrLeftOutAndNamed) {
  const std::string bad = rows(0, 50) + "1,2,3\n" + "4,nonsense,6,w1,1\n" + row(50);
  Place strict;
  strict.stream.put("a.csv", bad);
  expect_refusal(run(strict.on(1, 1), kSoon), {3, strict.stream.dir() + "/a.csv:52:"});

  Place skipping("    bad_records: skip\n");
  skipping.stream.put("a.csv", bad);
  skipping.stream.put("b.csv", rows(51, 30));
  skipping.stream.put("empty.csv", "");
  skipping.stream.put("header.csv", rows(0, 0));
  skipping.stream.end();
  const Ended ended = run(skipping.on(1, 1), kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.out,
              HasSubstr("81 records learnt in 4 files, the last one header.csv; 2 bad records left out: " +
                        skipping.run + "/bad_records.txt"));
  EXPECT_THAT(read_text(skipping.run + "/bad_records.txt"), HasSubstr("a.csv:52:"));
  EXPECT_THAT(read_text(skipping.run + "/bad_records.txt"), HasSubstr("a.csv:53:"));
}

TEST(Follow, TooManyBadRecordsOfTheStreamEndTheRun) {
  Place place("    bad_records: skip\n    max_bad_share: 0.002\n");
  place.stream.put("a.csv", rows(0, 50) + "1,2,3\n1,2,3\n");
  place.stream.put("b.csv", rows(50, 50) + "1,2,3\n");
  expect_refusal(run(place.on(1, 1), kSoon),
                 {3, "b.csv: 3 of 103 records of the stream so far are bad, more than max_bad_share 0.002"});
}

TEST(Follow, OtherColumnsThanThoseOfTheFirstFileEndTheRun) {
  Place place;
  place.stream.add(40);
  place.stream.put("z.csv", "at,a,word,label\n1,2,w,1\n");
  expect_refusal(run(place.on(1, 2), kSoon), {3, "z.csv: has no column \"b\", which the training data have"});
}

TEST(Follow, AnEndWithoutRecordsIsToldAtOnce) {
  Place place;
  place.stream.end();
  expect_refusal(run(place.on(1, 1), kSoon), {3, place.stream.dir() + " holds END but no records"});
}

TEST(Follow, FilesAreDeletedOnceTheOldestKeptCheckpointHasThemBehindIt) {
  Place place("    consumed: delete\n");
  const Args saves = set({"checkpoint.every_steps=2", "checkpoint.keep=2", "checkpoint.when_busy=queue"});
  Job job(place.on(1, 1, saves));
  for (int i = 0; i < 6; ++i) {
    place.stream.add(64);  // two steps each
    const std::string words = fmt::format("checkpoint of step {} ", 2 * (i + 1));
    ASSERT_TRUE(job.wait_until([&] { return job.out().find(words) != std::string::npos; }, kStartSeconds))
        << job.wait(0).all();
  }
  // The two that are kept have learnt five files and six.
  EXPECT_TRUE(job.wait_until(
      [&] { return names_in(place.stream.dir()) == std::vector<std::string>{"part-00005.csv"}; }, kSoon))
      << ::testing::PrintToString(names_in(place.stream.dir()));
  // The older one is learnt from again, from the same records.
  place.stream.end();
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  const std::string hash = summary_of(ended.out).hash;
  const Ended back = run(varscope({"checkpoint", "rollback", place.run + "/checkpoints", "10"}), kSoon);
  ASSERT_EQ(back.code, 0) << back.all();
  const Ended again = run(place.on(2, 1, saves + Args{"--resume"}), kSoon);
  EXPECT_EQ(again.code, 0) << again.all();
  EXPECT_EQ(summary_of(again.out).hash, hash);
}

TEST(Follow, CheckpointsSayHowWellTheModelPredicted) {
  Place place;
  fill(place.stream, 6);
  place.stream.end();
  train(place.on(1, 1));
  const auto checkpoints = names_in(place.run + "/checkpoints");
  const auto newest = *std::ranges::find_if(checkpoints.rbegin(), checkpoints.rend(),
                                            [](const std::string& n) { return n.starts_with("step-"); });
  const auto metrics =
      nlohmann::json::parse(lines_of(read_text(place.run + "/checkpoints/" + newest + "/METRICS")).at(0));
  const nlohmann::json finish = events(place.run, "finish").at(0);
  const nlohmann::json& values = metrics["values"];
  EXPECT_EQ(values["progressive_loss"], finish["progressive_loss"]) << metrics;
  EXPECT_EQ(values["progressive_loss_window"], finish["progressive_loss_window"]) << metrics;
  EXPECT_EQ(values["records"], finish["records"]) << metrics;
  EXPECT_GT(values["event_time"].get<double>(), 1700000000) << metrics;
  EXPECT_TRUE(values.contains("progressive_accuracy_window")) << metrics;
  const Ended inspect = run(varscope({"checkpoint", "inspect", place.run + "/checkpoints"}), kSoon);
  EXPECT_THAT(inspect.out, HasSubstr("stream"));
  EXPECT_THAT(inspect.out, HasSubstr("part-00005.csv"));
}

TEST(Follow, OneProcessLearnsTheSame) {
  Place a, b;
  for (Place* place : {&a, &b}) {
    fill(place->stream, 4);
    place->stream.end();
  }
  EXPECT_EQ(train(a.on(2, 2)).hash, train(varscope(b.args())).hash);
}

TEST(Follow, AResumeOfAnotherKindOfRunIsRefused) {
  Place place;
  place.stream.add(40);
  const std::string files = place.dir / "files.yaml";
  std::string text = read_text(place.yaml);
  const std::string follow = "    follow: " + place.stream.dir() + "\n    event_time: at\n";
  text.replace(text.find(follow), follow.size(), "    files: " + place.stream.dir() + "/part-00000.csv\n");
  write_text(files, text);
  const Ended first =
      run(mpirun(2, Args{"train", files} + set({"job.run_dir=" + place.run, "cluster.servers=1"})), kSoon);
  ASSERT_EQ(first.code, 0) << first.all();
  const Ended ended = run(place.on(1, 1, {"--resume"}), kSoon);
  EXPECT_EQ(ended.code, 4) << ended.all();
  EXPECT_THAT(ended.err,
              HasSubstr("did not follow a directory: there is no place in a stream to go on from"));
}

TEST(Follow, NamesOfFilesAreNoPatterns) {
  Place plain, odd;
  plain.stream.put("a.csv", rows(0, 40));
  plain.stream.put("b.csv", rows(40, 40));
  odd.stream.put("a [1] *?.csv", rows(0, 40));
  odd.stream.put("b\\ \xc3\xa9[!x]\".csv", rows(40, 40));
  fs::create_directory(odd.stream.dir() + "/b.d");
  write_text(odd.stream.dir() + "/z.tmp", "half a");
  for (Place* place : {&plain, &odd}) place->stream.end();
  const std::string hash = train(plain.on(1, 1)).hash;
  EXPECT_EQ(train(odd.on(2, 2)).hash, hash);
}

TEST(Follow, NamesThatAreNoTextAreRefused) {
  for (const char* name : {"a\n.csv", "a\xff.csv", "a\x1b[2J.csv"}) {
    Place place;
    place.stream.put(name, rows(0, 40));
    expect_refusal(run(place.on(1, 1), kSoon), {3, "no UTF-8, or has control characters: \"a\\x"});
  }
}

TEST(Follow, WhatIsNotFiniteEndsTheRun) {
  Place place;
  fill(place.stream, 3);
  place.stream.put("x.csv", "at,a,b,word,label\n1,1e38,-1e38,w1,1\n2,1e38,1e38,w2,0\n3,-1e38,1e38,w2,0\n");
  place.stream.end();
  const Ended ended = run(place.on(1, 2, set({"optimizer.learning_rate=1e30"})), kSoon);
  EXPECT_EQ(ended.code, 6) << ended.all();
  ASSERT_EQ(ended.errors().size(), 1U) << ended.all();
  EXPECT_THAT(ended.errors().front(), HasSubstr("the loss is nan"));
  EXPECT_THAT(ended.errors().front(), HasSubstr("the newest finite checkpoint is " + place.run));
}

TEST(Follow, WhoIsOnlyWarnedOfWhatIsNotFiniteCanResume) {
  Place place;
  fill(place.stream, 3);
  place.stream.put("x.csv", "at,a,b,word,label\n1,1e38,-1e38,w1,1\n2,1e38,1e38,w2,0\n3,-1e38,1e38,w2,0\n");
  const Args more = set({"optimizer.learning_rate=1e30", "train.on_nan=warn"});
  place.stream.end();
  const Ended first = run(place.on(1, 2, more), kSoon);
  EXPECT_EQ(first.code, 0) << first.all();
  place.stream.put("y.csv", rows(500, 40));
  const Ended again = run(place.on(2, 1, more + Args{"--resume"}), kSoon);
  EXPECT_EQ(again.code, 0) << again.all();
  EXPECT_THAT(again.out, HasSubstr("the last one y.csv"));
}

TEST(Follow, ADirectoryThatIsNotThereIsNamedWithWhereItWasSearched) {
  Place place;
  const Ended absolute = run(place.on(1, 1, set({"data.train.follow=" + place.dir / "no"})), kSoon);
  EXPECT_EQ(absolute.code, 3) << absolute.all();
  EXPECT_THAT(absolute.err,
              HasSubstr("data.train.follow: " + place.dir / "no" + ": no such directory; create it"));
  const Ended relative = run(place.on(1, 1, set({"data.train.follow=no"})), kSoon);
  EXPECT_EQ(relative.code, 3) << relative.all();
  EXPECT_THAT(relative.err,
              HasSubstr("no: no such directory. It was searched as " + place.dir / "no" + " and "));
}

// There may be no data for hours: a run that waits for them can be stopped as any other.
TEST(Follow, ARunThatWaitsForItsFirstFileCanBeStopped) {
  struct Case {
    int n_ranks, signal;
  };
  for (const Case& c : {Case{1, SIGUSR2}, {1, SIGINT}, {1, SIGTERM}, {3, SIGUSR2}}) {
    SCOPED_TRACE(fmt::format("{} ranks, signal {}", c.n_ranks, c.signal));
    Place place;
    Job job(c.n_ranks == 1 ? varscope(place.args()) : place.on(1, 2));
    ASSERT_TRUE(job.wait_until(
        [&] { return job.err().find("waits for the first file in ") != std::string::npos; }, kStartSeconds))
        << job.wait(0).all();
    job.send_signal(SIGUSR1);  // there is nothing to save: it waits on
    job.send_signal(c.signal);
    const Ended ended = job.wait(kSoon);
    EXPECT_EQ(ended.code, 75) << ended.all();
    EXPECT_THAT(ended.err, HasSubstr("a signal asks to stop, and no data have come: nothing has been learnt, "
                                     "and there is no checkpoint"));
    EXPECT_FALSE(has_checkpoint(place.run));
    place.stream.add(40);
    place.stream.end();
    EXPECT_EQ(train(place.on(1, 1)).step, 2);
  }
}

// Producers that begin at 0 again when they are started again.
TEST(Follow, AFileThatTookTheNameOfAnotherIsNotDeletedUnlearnt) {
  Place place("    consumed: delete\n");
  const Args saves = set({"checkpoint.every_steps=2", "checkpoint.keep=1", "checkpoint.when_busy=queue"});
  Job job(place.on(1, 1, saves + set({"train.batch=64", "checkpoint.idle_save_s=0.1"})));
  const auto has_said = [&](const std::string& words) {
    return job.wait_until([&] { return (job.out() + job.err()).find(words) != std::string::npos; },
                          kStartSeconds);
  };
  place.stream.add(64 * 3);  // a checkpoint within it: it stays
  ASSERT_TRUE(has_said("(part-00000.csv)")) << job.wait(0).all();
  ASSERT_TRUE(has_said("checkpoint of step 3 ")) << job.wait(0).all();
  ASSERT_TRUE(job.wait_until([&] { return names_in(place.stream.dir()).empty(); }, kSoon))
      << job.wait(0).all();
  // The name of one that is deleted.
  place.stream.put("part-00000.csv", rows(1000, 20));
  EXPECT_TRUE(has_said("/part-00000.csv has come when part-00000.csv was read already")) << job.wait(0).all();
  // That of one that is read and not deleted yet.
  place.stream.add(64);
  ASSERT_TRUE(has_said("(part-00001.csv)")) << job.wait(0).all();
  place.stream.put("part-00001.csv", rows(2000, 20));
  place.stream.add(64);
  EXPECT_TRUE(
      has_said("/part-00001.csv has changed since it was read: what it holds now is not learnt from, and "
               "it is not deleted; give each file a name of its own"))
      << job.wait(0).all();
  place.stream.end();
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(read_text(place.stream.dir() + "/part-00000.csv"), rows(1000, 20));
  EXPECT_EQ(read_text(place.stream.dir() + "/part-00001.csv"), rows(2000, 20));
}

TEST(Follow, AFileThatIsTakenAwayBeforeItIsLearntIsNamed) {
  Place place;
  place.stream.add(40);
  place.stream.put("x.csv", rows(40, 400'000));
  place.stream.put("y.csv", rows(40, 40));
  Job job(place.on(1, 1, set({"train.batch=1000"})));
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() >= 1; }, kStartSeconds)) << job.wait(0).all();
  fs::remove(place.stream.dir() + "/y.csv");  // while x.csv is read
  expect_refusal(
      job.wait(kSoon),
      {3, place.stream.dir() + "/y.csv is gone, and not learnt: files of a directory that is followed "
                               "must stay until a checkpoint has learnt them"});
}

TEST(Follow, WhatIsNoTimeIsNoTimeOfAnEvent) {
  Place place;
  std::string text = rows(0, 8);  // up to 1700000007
  for (const char* at : {"1700000000123", "1e300", "inf", "nan", "-5", "soon"})
    text += fmt::format("{},1,2,w1,1\n", at);
  place.stream.put("a.csv", text);
  place.stream.end();
  const Ended ended = run(place.on(1, 1), kSoon);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.err,
              HasSubstr("data.train.event_time: " + place.stream.dir() +
                        "/a.csv has 1700000000123, which is no time in seconds since 1970 before the "
                        "year 10000; such cells do not count: give seconds, not milliseconds"));
  EXPECT_EQ(events(place.run, "finish").at(0)["event_time"], 1700000007);
  const Ended told = run(varscope({"checkpoint", "inspect", place.run + "/checkpoints"}), kSoon);
  EXPECT_THAT(told.out, HasSubstr("newest event 2023-11-14 22:13:27Z"));
}

// The line stays as it is while nothing comes.
TEST(Follow, TheLineOfProgressIsOfAllThatHasCome) {
  Place place;
  place.stream.add(160);  // five steps, faster than lines are drawn
  Job job(place.on(1, 1, set({"output.progress=on", "train.log_every_steps=0"})));
  EXPECT_TRUE(job.wait_until(
      [&] { return job.err().find("step 5  records 160 in 1 file (part-00000.csv)") != std::string::npos; },
      kStartSeconds))
      << job.wait(0).all();
  place.stream.end();
  EXPECT_EQ(job.wait(kSoon).code, 0);
}

TEST(Follow, DataShowTellsOfTheFirstFile) {
  Place place;
  place.stream.put("empty.csv", "");
  place.stream.put("first [1].csv", rows(0, 40));
  place.stream.put("second.csv", rows(0, 70));
  const Ended shown = run(varscope({"data", "show", place.yaml}), kSoon);
  EXPECT_EQ(shown.code, 0) << shown.all();
  EXPECT_THAT(shown.out, HasSubstr("data.train: csv, 40 samples"));
  EXPECT_THAT(shown.out, HasSubstr("words"));
}

// A worker reads the bags of a later file into a batch that was made for those of the first.
TEST(Follow, BagsOfLaterFilesMayBeLonger) {
  std::vector<std::string> hashes;
  for (const auto& [servers, workers] : {std::pair{1, 1}, {2, 2}}) {
    const ScratchDir dir;
    const Stream stream(dir / "in");
    write_text(dir / "job.yaml", fmt::format(R"(job: {{name: bags, run_dir: {0}/run}}
cluster: {{servers: {1}, logical_workers: 2}}
data:
  train: {{type: libsvm, follow: {0}/in, bags: true, ids: uint64}}
model:
  layers:
    - {{type: embedding, units: 2, combiner: sum, table: {{ids: uint64}}}}
  loss: softmax_cross_entropy
optimizer: {{type: sgd, learning_rate: 0.1}}
train: {{batch: 4, log_every_steps: 1}}
)",
                                             dir.path(), servers));
    stream.put("a.svm", "0 1:1\n1 2:0.5\n0 7:1\n");
    stream.put("b.svm", "0 1:1 2:1 3:1 4:1 5:1 6:1\n1 2:0.5 3:1 9:2 12:1 18446744073709551615:3\n");
    stream.put("c.svm", "");
    stream.end();
    const Summary s = train(mpirun(servers + workers, {"train", dir / "job.yaml"}));
    EXPECT_EQ(s.step, 2);
    hashes.push_back(s.hash);
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST(Follow, TestDataAreEvaluatedWhenTheStreamEnds) {
  Place place;
  fill(place.stream, 4);
  write_text(place.dir / "test.csv", rows(5000, 200));
  std::string text = read_text(place.yaml);
  text.replace(text.find("model:"), 0, "  test: {type: csv, files: " + place.dir / "test.csv" + "}\n");
  write_text(place.yaml, text);
  place.stream.end();
  const Summary s = train(place.on(2, 2));
  EXPECT_GT(s.test_accuracy, 0.55);
  const auto evals = events(place.run, "eval");
  ASSERT_EQ(evals.size(), 1U);
  EXPECT_EQ(evals[0]["step"], s.step);
}

TEST(Follow, TheHeaderSaysWhatTheLossesAreOf) {
  Place plain, noisy;
  for (Place* place : {&plain, &noisy}) {
    fill(place->stream, 1);
    place->stream.end();
  }
  std::string text = read_text(noisy.yaml);
  text.replace(text.find("    - {type: add"), 0,
               "    - {layers: [{type: dropout, input: numbers, rate: 0.1}], scope: block}\n");
  write_text(noisy.yaml, text);
  const std::string words = "progressive  losses are those of training, with dropout";
  const Ended a = run(plain.on(1, 1), kSoon), b = run(noisy.on(1, 1), kSoon);
  EXPECT_THAT(a.out, Not(HasSubstr(words)));
  EXPECT_THAT(b.out, HasSubstr(words)) << b.all();
}

TEST(Follow, AResumeWithOtherColumnsIsRefused) {
  Place place;
  place.stream.add(100);
  const Ended first = run(place.on(1, 1, set({"train.max_steps=2"})), kSoon);
  ASSERT_EQ(first.code, 0) << first.all();
  std::string text = read_text(place.yaml);
  text.replace(text.find("columns: [a, b]"), 15, "columns: [b, a]");
  write_text(place.yaml, text);
  const Ended ended = run(place.on(1, 1, {"--resume"}), kSoon);
  EXPECT_EQ(ended.code, 4) << ended.all();
  EXPECT_THAT(ended.err,
              HasSubstr("data.train.schema.features.x.columns: [a, b] in the checkpoint's run, [b, a] now"));
}

// The demonstration is a test: it fails where a request failed, or a click was not learnt exactly once.
TEST(OnlineDemo, LearnsAndServesThroughKillsAndAReversalOfTheLabels) {
  const ScratchDir dir;
  Command command{Args{"/bin/bash", std::string(VARSCOPE_CONFIGS) + "/../launch/online_demo.sh", "--seconds",
                       "40", "--rate", "300", "--dir", dir / "demo"},
                  {{"VARSCOPE", VARSCOPE_BINARY}}};
  const Ended ended = run(command, 300 * kSlowness);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_THAT(ended.out, HasSubstr("kill -9 of a worker; the job resumes"));
  EXPECT_THAT(ended.out, HasSubstr("starts of the training job                   2 (codes 137 0)"));
  std::printf("%s", ended.out.c_str());
}

}  // namespace
}  // namespace varscope::testing
