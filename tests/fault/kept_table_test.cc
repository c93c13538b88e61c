// Jobs on tables that are kept once their text is read, and jobs that go on with other data.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kRows = 120;

std::string row(int i) { return fmt::format("{},{},{}\n", i * 0.5, "abc"[i % 3], i % 2 == 0 ? "no" : "yes"); }

class KeptTableJob : public ::testing::Test {
 protected:
  KeptTableJob() {
    std::string text = "size,kind,y\n";
    for (int i = 0; i < kRows; ++i) text += row(i);
    write_text(dir_ / "a.csv", text);
    write_text(
        dir_ / "job.yaml",
        "job: {name: kept}\ndata:\n  split: {test: 0.2}\n  train: {type: csv, files: a.csv, schema: {label: "
        "{column: y}, features: {x: {columns: size, transform: standardize}, k: {columns: kind, vocabulary: "
        "{}}}}}\nmodel:\n  layers: [{type: one_hot, name: k1, input: k, depth: 4}, {type: flatten, name: k2}, {type: concat, inputs: [x, k2]}, "
        "{type: dense, units: 2}]\n  loss: softmax_cross_entropy\ntrain: {epochs: 4, batch: 10}\n");
  }
  Args train(const std::string& run, const std::string& cache, const Args& more = {}) const {
    return Args{"train", dir_ / "job.yaml"} +
           set({"job.run_dir=" + (dir_ / run), "data.cache=" + cache, "cluster.logical_workers=3",
                "output.progress=off"}) +
           more;
  }
  // Tables that are kept: not their locks.
  std::vector<std::string> kept() const {
    std::vector<std::string> names = names_in(dir_ / "cache");
    std::erase_if(names, [](const std::string& n) { return n.ends_with(".lock"); });
    return names;
  }
  ScratchDir dir_;
};

TEST_F(KeptTableJob, HasTheBitsOfOneThatReadsTheText) {
  const std::string hash = testing::train(varscope(train("text", "none"))).hash;
  EXPECT_THAT(kept(), IsEmpty());
  EXPECT_EQ(testing::train(mpirun(4, train("made", dir_ / "cache"))).hash, hash);
  const std::vector<std::string> tables = kept();
  EXPECT_EQ(tables.size(), 2U) << "a part to train on and one for evaluations";
  std::vector<std::filesystem::file_time_type> times;
  const auto time_of = [&](const std::string& n) {
    return std::filesystem::last_write_time(dir_ / ("cache/" + n + "/table.json"));
  };
  for (const std::string& n : tables) times.push_back(time_of(n));
  EXPECT_EQ(testing::train(mpirun(4, train("mapped", dir_ / "cache"))).hash, hash);
  EXPECT_EQ(kept(), tables);
  for (std::size_t i = 0; i < tables.size(); ++i) EXPECT_EQ(time_of(tables[i]), times[i]) << "it was mapped";
}

TEST_F(KeptTableJob, WithoutRoomItTrainsAndSaysSo) {
  const Ended e = run(mpirun(3, train("run", dir_ / "a.csv/cache")));
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_THAT(e.err,
              AllOf(HasSubstr("varscope: warning: data.train: the table of "),
                    HasSubstr("a.csv is kept in memory"), HasSubstr("data.cache says where there is room")));
}

TEST_F(KeptTableJob, ADamagedTableIsReadAnewWithTheSameBits) {
  const std::string hash = testing::train(varscope(train("made", dir_ / "cache"))).hash;
  for (const std::string& n : kept()) flip_byte(dir_ / ("cache/" + n + "/numbers"), 9);
  const Ended e = run(mpirun(3, train("again", dir_ / "cache")));
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_EQ(summary_of(e.out).hash, hash);
  EXPECT_THAT(e.err, HasSubstr("is damaged; its text is read anew"));
}

TEST_F(KeptTableJob, AResumeRefusesOtherDataByTheirFileAndCanBeToldToTakeThem) {
  for (const std::string cache : {"none", "kept"}) {
    SCOPED_TRACE(cache);
    const std::string folder = cache == "none" ? cache : dir_ / "cache", name = "run-" + cache;
    const std::vector<std::string> steps = {"train.max_steps=10", "checkpoint.every_steps=5"};
    testing::train(mpirun(3, train(name, folder, set({steps[0], steps[1]}))));
    const auto size = std::filesystem::file_size(dir_ / "a.csv");
    std::string text = "size,kind,y\n";
    for (int i = 0; i < kRows + (cache == "none" ? 0 : 1); ++i) text += i == 3 ? "7,c,yes\n" : row(i + 1);
    write_text(dir_ / "a.csv", text);
    const Args more = set({"train.max_steps=20", steps[1]}) + Args{"--resume"};
    const Ended refused = run(mpirun(3, train(name, folder, more)));
    EXPECT_EQ(refused.code, 4) << refused.all();
    EXPECT_THAT(
        refused.err,
        AllOf(HasSubstr("does not fit the job, which cannot resume ("),
              HasSubstr(fmt::format("data.train: a.csv: {} bytes, XXH3 ", size)),
              HasSubstr(fmt::format(" in the checkpoint's run; {} bytes, XXH3 ", text.size())),
              HasSubstr("nothing was restored; use the config it was made with, or start a new run in "
                        "another job.run_dir; --allow-other-data goes on with the data as they are now")));
    const Ended taken = run(mpirun(3, train(name, folder, more + Args{"--allow-other-data"})));
    EXPECT_EQ(taken.code, 0) << taken.all();
    EXPECT_THAT(taken.err, HasSubstr("; the run goes on with it (--allow-other-data), and LINEAGE says so"));
    EXPECT_EQ(summary_of(taken.out).step, 20);
    std::ifstream in(dir_ / (name + "/checkpoints/LINEAGE"));
    std::string line;
    std::getline(in, line);
    EXPECT_THAT(line, AllOf(HasSubstr(R"("event":"other_data")"), HasSubstr(R"("step":10)"),
                            HasSubstr("data.train: a.csv: ")));
    // From now on these are its data.
    const Ended again = run(mpirun(3, train(name, folder, set({"train.max_steps=25"}) + Args{"--resume"})));
    EXPECT_EQ(again.code, 0) << again.all();
    EXPECT_TRUE(again.messages().empty()) << again.all();
  }
  const Ended alone = run(varscope(train("x", "none", {"--allow-other-data"})));
  EXPECT_EQ(alone.code, 2) << alone.all();
  EXPECT_THAT(alone.err, HasSubstr("--allow-other-data requires --resume"));
}

}  // namespace
}  // namespace varscope::testing
