// The launch scripts as their users call them: what they refuse, what they pass on, and the command with
// which they say to go on. Slurm and mpirun are stood in for by scripts that write down how they were called;
// the real ones are in signal_test.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

const std::string kLaunch = std::string(VARSCOPE_CONFIGS) + "/../launch/";
const std::string kDigits = config_file("digits_mlp.yaml");

class LaunchScript : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(dir_ / "bin");
    program("mpirun", "printf '%s\\n' \"$@\" >" + dir_ / "called" + "; exit ${MPIRUN_ENDS_WITH:-0}");
  }
  // A program that is found before any other of its name.
  void program(const std::string& name, const std::string& body) {
    const std::string path = dir_ / "bin/" + name;
    write_text(path, "#!/bin/sh\n" + body + "\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  Ended call(const std::string& script, const Args& args,
             std::map<std::string, std::string> environment = {}) {
    environment["PATH"] = dir_ / "bin:" + std::getenv("PATH");
    environment["VARSCOPE"] = VARSCOPE_BINARY;
    return run({Args{"/bin/bash", kLaunch + script} + args, environment});
  }
  bool was_passed(const Args& words) const {
    std::string text;
    for (const std::string& word : words) text += word + "\n";
    return ("\n" + read_text(dir_ / "called")).find("\n" + text) != std::string::npos;
  }
  void expect_refused(const std::string& script, const Args& args, const std::string& words) {
    const Ended ended = call(script, args);
    EXPECT_EQ(ended.code, 2) << ended.all();
    EXPECT_NE(ended.err.find(words), std::string::npos) << ended.all();
    EXPECT_FALSE(std::filesystem::exists(dir_ / "called"));
  }

  ScratchDir dir_;
};

TEST_F(LaunchScript, RunLocalPassesOnWhatItIsGiven) {
  const Ended ended = call("run_local.sh", {"-s", "2", "-w", "3", kDigits, "--set", "train.epochs=7"});
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(was_passed({"-n", "5", VARSCOPE_BINARY, "train", kDigits})) << read_text(dir_ / "called");
  EXPECT_TRUE(was_passed({"--set", "cluster.servers=2"}));
  EXPECT_TRUE(was_passed({"--set", "train.epochs=7"}));
}

// libevent then has no lines of its own about sockets that PMIx closes when a rank dies.
TEST_F(LaunchScript, KeepsLibeventFromEpoll) {
  program("mpirun", "echo \"noepoll=$EVENT_NOEPOLL $*\"");
  write_text(dir_ / "hosts", "localhost slots=2\n");
  for (const Args& script : {Args{"run_local.sh"}, Args{"run_hostfile.sh", "-f", dir_ / "hosts"}}) {
    const Ended ended =
        call(script[0], Args(script.begin() + 1, script.end()) + Args{"-s", "1", "-w", "1", kDigits});
    EXPECT_NE(ended.out.find("noepoll=1 "), std::string::npos) << ended.all();
    EXPECT_EQ(ended.out.find("-x EVENT_NOEPOLL") != std::string::npos, script.size() > 1) << ended.all();
  }
}

TEST_F(LaunchScript, MistakesAreRefusedBeforeAnythingStarts) {
  expect_refused("run_local.sh", {}, "name a config");
  expect_refused("run_local.sh", {"-s", "1", kDigits}, "-w");
  expect_refused("run_local.sh", {"-s", "0", "-w", "1", kDigits},
                 "-s is the number of servers, 1 or more, not '0'");
  expect_refused("run_local.sh", {"-s", "1", "-w", "x", kDigits},
                 "-w is the number of workers, 1 or more, not 'x'");
  expect_refused("run_local.sh", {"-np", "4", kDigits}, "there is no -np: say -s SERVERS -w WORKERS");
  expect_refused("run_local.sh", {"-s", "1", "-w", "1", "nosuch.yaml"}, "cannot read the config nosuch.yaml");
  expect_refused("run_local.sh", {"-s", "1", "-w", "1", "train", kDigits}, "leave out `train`");
  expect_refused("run_local.sh", {"-s", "1", "-w", "1", kDigits, "--set", "cluster.servers=2"},
                 "the number of servers is what -s says");
  expect_refused("run_hostfile.sh", {"-s", "1", "-w", "1", kDigits}, "-f");
  expect_refused("run_hostfile.sh", {"-f", "nosuch", "-s", "1", "-w", "1", kDigits}, "nosuch");
}

TEST_F(LaunchScript, AJobThatFailedIsToldHowToGoOn) {
  const auto hint = [&](const char* code) {
    const Ended ended =
        call("run_local.sh", {"-s", "1", "-w", "2", kDigits, "--fresh", "--set", "job.run_dir=a b"},
             {{"MPIRUN_ENDS_WITH", code}});
    EXPECT_EQ(ended.code, std::atoi(code)) << ended.all();
    return ended.err;
  };
  for (const char* restartable : {"75", "11", "137"}) {
    const std::string text = hint(restartable);
    EXPECT_NE(text.find("the job ended with code " + std::string(restartable)), std::string::npos) << text;
    EXPECT_NE(text.find("--set job.run_dir=a\\ b --resume\n"), std::string::npos) << text;
    EXPECT_EQ(text.find("--fresh"), std::string::npos) << text;
  }
  for (const char* final : {"2", "4"}) EXPECT_EQ(hint(final), "");
}

// --- Slurm

class Batch : public LaunchScript {
 protected:
  void SetUp() override {
    LaunchScript::SetUp();
    program("squeue", "echo RUNNING");
    program("scontrol", "echo \"$@\" >" + dir_ / "requeued");
  }
  Ended submit(const Args& args, std::map<std::string, std::string> more = {}) {
    more.insert({{"SLURM_JOB_ID", "7"},
                 {"SLURM_JOB_NAME", "night"},
                 {"SLURM_NTASKS", "4"},
                 {"SERVERS", "2"},
                 {"RUN_DIR", dir_ / "run"}});
    return call("varscope.sbatch", Args{kDigits} + args, std::move(more));
  }
  void checkpoint_at(const std::string& checkpoints) {
    std::filesystem::create_directories(checkpoints + "/step-000000010");
    write_text(checkpoints + "/step-000000010/MANIFEST", "");
  }
  bool resumes() const { return was_passed({"--resume"}); }
};

TEST_F(Batch, StartsANewRunAndResumesWhereThereIsACheckpoint) {
  Ended ended = submit({});
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(was_passed({"-n", "4", VARSCOPE_BINARY, "train", kDigits, "--set", "cluster.servers=2"}));
  EXPECT_FALSE(resumes());
  EXPECT_NE(ended.out.find("no checkpoint in " + dir_ / "run/checkpoints yet"), std::string::npos)
      << ended.out;
  checkpoint_at(dir_ / "run/checkpoints");
  ended = submit({});
  EXPECT_TRUE(resumes()) << ended.all();
  EXPECT_NE(ended.out.find("resuming from " + dir_ / "run/checkpoints"), std::string::npos) << ended.out;
}

TEST_F(Batch, FindsCheckpointsWhereTheConfigPutsThem) {
  checkpoint_at(dir_ / "run/checkpoints");  // not this one
  const std::string elsewhere = "checkpoint.dir=" + dir_ / "else where";
  const Args asked[] = {{"--set", elsewhere}, {"--set=" + elsewhere, "--profile"}};
  for (const Args& args : asked) EXPECT_FALSE((submit(args), resumes()));
  checkpoint_at(dir_ / "else where");
  for (const Args& args : asked) EXPECT_TRUE((submit(args), resumes()));
  // To a new run they are another one's.
  std::filesystem::remove_all(dir_ / "run");
  std::filesystem::remove(dir_ / "called");
  const Ended ended = submit(asked[0]);
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_NE(ended.err.find("else where holds checkpoints of an earlier run: to go on with it set RUN_DIR"),
            std::string::npos)
      << ended.err;
  EXPECT_EQ(read_text(dir_ / "called"), "") << "nothing was started";
}

TEST_F(Batch, GoesBackIntoTheQueueUntilNothingComesOfIt) {
  const std::map<std::string, std::string> killed = {{"MPIRUN_ENDS_WITH", "137"}, {"MAX_FUTILE", "2"}};
  checkpoint_at(dir_ / "run/checkpoints");
  Ended ended = submit({}, killed);
  EXPECT_EQ(ended.code, 137) << ended.all();
  EXPECT_EQ(read_text(dir_ / "requeued"), "requeue 7\n") << ended.all();
  std::filesystem::remove(dir_ / "requeued");
  ended = submit({}, killed);
  EXPECT_EQ(read_text(dir_ / "requeued"), "") << ended.all();
  EXPECT_NE(ended.out.find("without a new checkpoint in 2 starts: giving up"), std::string::npos)
      << ended.out;
}

TEST_F(Batch, WhatARestartCannotMendIsNotRestarted) {
  Ended ended = submit({}, {{"MPIRUN_ENDS_WITH", "4"}});
  EXPECT_EQ(ended.code, 4) << ended.all();
  EXPECT_EQ(read_text(dir_ / "requeued"), "");
  std::filesystem::remove(dir_ / "called");
  ended = submit({"--set", "train.bacth=3"});
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_NE(ended.err.find("did you mean \"batch\"?"), std::string::npos) << ended.err;
  EXPECT_EQ(read_text(dir_ / "called"), "") << "nothing was started";
  ended = submit({"--resume"});
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_NE(ended.err.find("the job resumes by itself"), std::string::npos) << ended.err;
}

}  // namespace
}  // namespace varscope::testing
