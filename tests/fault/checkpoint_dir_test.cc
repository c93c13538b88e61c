// Who may touch a directory of checkpoints while a job saves into it; and what `--resume` says when there is
// nothing to resume from: it never starts from initial values.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "tests/support/failure_matrix.h"
#include "tests/support/jobs/points_job.h"
#include "tests/support/jobs/tiny_job.h"

namespace varscope::testing {
namespace {

void expect_refused(const Ended& ended, const std::vector<std::string>& words) {
  EXPECT_EQ(ended.code, 4) << ended.all();
  EXPECT_EQ(ended.errors().size(), 1U) << ended.all();
  for (const std::string& word : words)
    EXPECT_NE(ended.err.find(word), std::string::npos) << word << "\n" << ended.all();
  EXPECT_EQ(ended.out.find("start  "), std::string::npos) << ended.all();
}

// --- others, while a job is in the middle of a save
// ----------------------------------------------------------

class OthersDuringASave : public ::testing::Test {
 protected:
  OthersDuringASave()
      : checkpoints_(dir_ / "run/checkpoints"),
        job_(tiny_mpirun(dir_ / "run", saving_always()), {{0, 2, "before rename step", "wait"}}) {
    if (!job_.wait_for_hit(0, 1, kStartSeconds))
      throw std::runtime_error("the job did not come to its second save\n" + job_->wait(0).all());
  }
  // To its end as if nobody had been there.
  void expect_unharmed() {
    job_.go_on(0, 1);
    const Ended ended = job_->wait(kStartSeconds);
    EXPECT_EQ(ended.code, 0) << ended.all();
    EXPECT_TRUE(ended.messages().empty()) << ended.all();
    EXPECT_EQ(summary_of(ended.out).hash, tiny_hash());
    const Ended verified = run(varscope({"checkpoint", "verify", checkpoints_}));
    EXPECT_EQ(verified.code, 0) << verified.all();
  }
  std::string pid_of_holder() { return "pid " + std::to_string(job_.pid(0)) + " "; }

  ScratchDir dir_;
  std::string checkpoints_;
  PointsJob job_;
};

FailureMatrix& matrix = FailureMatrix::install("processes: jobs and tools on one directory",
                                               VARSCOPE_SOURCE_DIR "/docs/failures.md");

TEST_F(OthersDuringASave, ASecondJobIsRefusedAndTheHolderNamed) {
  const ScratchDir other;
  const Args there = set({"checkpoint.dir=" + checkpoints_});
  for (const Args& how : {Args{}, Args{"--resume"}, Args{"--fresh"}}) {
    for (const Command& command :
         {tiny_mpirun(other / "run", there + how), tiny_alone(other / "run", there + how)})
      expect_refused(run(command), {checkpoints_, "in use by another job (run ", pid_of_holder()});
  }
  expect_unharmed();
  matrix.add({"a second job", "the same directory, in the middle of a save; `--resume`, `--fresh`, neither",
              "mpirun and one process",
              "4; names the holder's run, process and host; the first ends in its bits"});
}

TEST_F(OthersDuringASave, ToolsThatWriteAreRefused) {
  const ScratchDir other;
  ASSERT_EQ(run(varscope({"checkpoint", "export", checkpoints_, other / "values.npz"})).code, 0);
  const std::string step = std::to_string(kFirstSave);
  const std::vector<Args> tools = {
      {"rollback", checkpoints_, step},
      {"prune", checkpoints_, "--keep", "1"},
      {"pin", checkpoints_, step},
      {"reshard", checkpoints_, checkpoints_, "--servers", "3"},
      {"import", other / "values.npz", checkpoints_, "--step", "7"},
  };
  std::string names;
  for (const Args& tool : tools) {
    SCOPED_TRACE(tool[0]);
    expect_refused(run(varscope(Args{"checkpoint"} + tool)),
                   {"in use by another job (run ", pid_of_holder()});
    names += (names.empty() ? "" : ", ") + tool[0];
  }
  expect_unharmed();
  matrix.add({"`varscope checkpoint`: " + names, "a directory that a job saves into", "one each",
              "4; names the holder; the job ends in its bits"});
}

TEST_F(OthersDuringASave, ToolsThatReadAreNot) {
  const ScratchDir other;
  std::string names;
  for (const Args& tool : {Args{"list"}, Args{"inspect"}, Args{"verify"}}) {
    const Ended ended = run(varscope(Args{"checkpoint"} + tool + Args{checkpoints_}));
    EXPECT_EQ(ended.code, 0) << ended.all();
    EXPECT_EQ(ended.err, "");
    EXPECT_NE(ended.out.find(fmt::format("step-{:09d}", kFirstSave)), std::string::npos) << ended.all();
    EXPECT_EQ(ended.out.find(".tmp"), std::string::npos) << ended.all();
    names += (names.empty() ? "" : ", ") + tool[0];
  }
  const Ended exported = run(varscope({"checkpoint", "export", checkpoints_, other / "values.npz"}));
  EXPECT_EQ(exported.code, 0) << exported.all();
  expect_unharmed();
  matrix.add({"`varscope checkpoint`: " + names + ", export", "the same", "one each",
              "0; they see the committed ones only; the job ends in its bits"});
}

// --- nothing to resume from
// ----------------------------------------------------------------------------------

FailureMatrix& no_resume =
    FailureMatrix::install("processes: nothing to resume from", VARSCOPE_SOURCE_DIR "/docs/failures.md");

// Checkpoints of steps 100, 200 and 300.
void train_three(const ScratchDir& dir) {
  for (const char* steps : {"100", "200", "300"}) {
    const Args until = set({std::string("train.max_steps=") + steps, "checkpoint.keep=9"});
    train(tiny_alone(dir / "run", until + (std::string(steps) == "100" ? Args{} : Args{"--resume"})));
  }
}

struct NoResume {
  const char* name;
  const char* where;
  std::function<void(const ScratchDir&, const std::string& checkpoints)> prepare;
  std::vector<std::string> words;
  const char* outcome;
};

const NoResume kNoResumes[] = {
    {"NoDirectory",
     "no directory",
     [](const ScratchDir&, const std::string&) {},
     {"nothing to resume from"},
     "4; `nothing to resume from`"},
    {"EmptyDirectory",
     "an empty directory",
     [](const ScratchDir&, const std::string& c) { std::filesystem::create_directories(c); },
     {"holds no checkpoint to resume from"},
     "4; `holds no checkpoint to resume from`"},
    {"OnlyTemporary",
     "only `.tmp-*` directories, one whole but for its name",
     [](const ScratchDir& dir, const std::string& c) {
       train_three(dir);
       for (const std::string& name : names_in(c)) {
         if (name.starts_with("step-"))
           std::filesystem::rename(c + "/" + name, c + "/.tmp-000" + name.substr(5));
       }
       std::filesystem::create_directories(c + "/.tmp-000000400-0badcafe-0");
     },
     {"holds no checkpoint to resume from"},
     "4; `holds no checkpoint to resume from`"},
    {"OnlySuperseded",
     "only `superseded-*` directories",
     [](const ScratchDir& dir, const std::string& c) {
       train_three(dir);
       for (const std::string& name : names_in(c)) {
         if (name.starts_with("step-"))
           std::filesystem::rename(c + "/" + name, c + "/superseded-" + name + "-1");
       }
     },
     {"holds no checkpoint to resume from"},
     "4; `holds no checkpoint to resume from`"},
    {"AllDamaged",
     "three checkpoints, each damaged in another way",
     [](const ScratchDir& dir, const std::string& c) {
       train_three(dir);
       flip_byte(c + "/step-000000100/MANIFEST", 200);
       flip_byte(c + "/step-000000200/shard-00001-of-00002.safetensors", 5000);
       std::filesystem::remove(c + "/step-000000300/worker-00000.state");
     },
     {"step-000000100 cannot be used", "MANIFEST", "step-000000200 cannot be used",
      "shard-00001-of-00002.safetensors", "CRC block 0", "step-000000300 cannot be used",
      "worker-00000.state is missing"},
     "4; says of each which file is wrong, and how"},
};

class NothingToResumeFrom : public ::testing::TestWithParam<NoResume> {};

TEST_P(NothingToResumeFrom, IsRefusedAndChangesNothing) {
  const NoResume& c = GetParam();
  const ScratchDir dir;
  const std::string checkpoints = dir / "run/checkpoints";
  c.prepare(dir, checkpoints);
  std::vector<std::string> before = names_in(checkpoints);
  expect_refused(run(tiny_alone(dir / "run", {"--resume"})), c.words);
  expect_refused(run(tiny_mpirun(dir / "run", {"--resume"})), c.words);
  std::vector<std::string> after = names_in(checkpoints);
  for (auto* names : {&before, &after}) std::erase(*names, "LOCK");
  EXPECT_EQ(after, before);
  no_resume.add({"`--resume`", c.where, "mpirun and one process", c.outcome});
}

INSTANTIATE_TEST_SUITE_P(Directories, NothingToResumeFrom, ::testing::ValuesIn(kNoResumes),
                         [](const auto& info) { return std::string(info.param.name); });

// --- before a resume, each server verifies its share

// Saves at steps 100, 200 and 300, by three servers. In three runs: within one, a save is left out where the
// one before it takes longer than the steps between them.
void train_on_three_servers(const ScratchDir& dir) {
  for (const char* steps : {"100", "200", "300"}) {
    const Args until = set({"cluster.servers=3", std::string("train.max_steps=") + steps});
    const Args resume = std::string(steps) == "100" ? Args{} : Args{"--resume"};
    train(mpirun(4, tiny_arguments(dir / "run", until + resume)));
  }
}

TEST(SharedVerification, FindsDamageInEveryFileWhoeverReadsIt) {
  const ScratchDir dir;
  train_on_three_servers(dir);
  const std::string newest = dir / "run/checkpoints/step-000000300/";
  std::vector<std::string> files = names_in(newest);
  std::erase_if(files, [](const std::string& f) { return f.starts_with("manifest") || f == "MANIFEST"; });
  ASSERT_EQ(files.size(), 4U) << "three shards and a worker's state";
  for (const int n_servers : {2, 3}) {
    for (const std::string& file : files) {
      SCOPED_TRACE(::testing::Message() << file << " on " << n_servers);
      const ScratchDir copy;
      std::filesystem::copy(dir / "run", copy / "run", std::filesystem::copy_options::recursive);
      const std::string damaged = copy / "run/checkpoints/step-000000300/" + file;
      flip_byte(damaged, std::filesystem::file_size(damaged) - 1);
      const Ended ended = run(mpirun(
          n_servers + 1, tiny_arguments(copy / "run", Args{"--resume"} + set({"cluster.servers=" +
                                                                              std::to_string(n_servers)}))));
      EXPECT_EQ(ended.code, 0) << ended.all();
      ASSERT_EQ(ended.messages().size(), 1U) << ended.all();
      EXPECT_NE(
          ended.messages()[0].find("step-000000300 cannot be used: " + file + " is damaged: CRC block 0"),
          std::string::npos)
          << ended.all();
      EXPECT_EQ(summary_of(ended.out).first_step, 200);
      EXPECT_EQ(summary_of(ended.out).hash, tiny_hash());
    }
  }
}

// Each server in a mount namespace of its own, as on hosts that do not share the directory.
TEST(SharedVerification, AServerThatSeesAnotherDirectoryIsNamed) {
  if (run({{"/usr/bin/unshare", "-m", "true"}}).code != 0)
    GTEST_SKIP() << "mount namespaces are not allowed here";
  const ScratchDir dir, other;
  train_on_three_servers(dir);
  train_on_three_servers(other);
  // A copy that lags behind has an older checkpoint in common with rank 0: no reason to go back to it.
  std::filesystem::copy(dir / "run/checkpoints", other / "lagging", std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(other / "lagging/step-000000300");
  const auto resume = [&](const std::string& mounted) {
    const Args args = tiny_arguments(dir / "run", Args{"--resume"} + set({"cluster.servers=2"}));
    const Args wrapper = {
        "/usr/bin/unshare", "-m", "sh", "-c",
        "mount --bind " + mounted + " " + dir / "run/checkpoints" + " && exec \"$0\" \"$@\""};
    return run(mpirun({Part{1, {}, args}, Part{1, wrapper, args}, Part{1, {}, args}}));
  };
  const std::vector<std::string> before = names_in(dir / "run/checkpoints");
  expect_refused(
      resume(other / "run/checkpoints"),
      {"rank 1 (on ", "as rank 0 does: it is checkpoint 000000300-", "where all hosts see the same files"});
  expect_refused(resume(other / "lagging"), {"rank 1 (on ", "step-000000300 as rank 0 does: ",
                                             "has no MANIFEST", "where all hosts see the same files"});
  EXPECT_EQ(names_in(dir / "run/checkpoints"), before);
}

}  // namespace
}  // namespace varscope::testing
