// The launch scripts as their users call them: what they refuse, what they pass on, and the command with
// which they say to go on. Slurm and mpirun are stood in for by scripts that write down how they were called;
// the real ones are in signal_test, and in the tests of what mpirun refuses.
#include <gtest/gtest.h>

#include <cstring>
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
  // However often something was started before.
  void expect_refused_again(const std::string& script, const Args& args, const std::string& words) {
    std::filesystem::remove(dir_ / "called");
    expect_refused(script, args, words);
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

// As users write them: glued, long, with "=", before or after the config.
TEST_F(LaunchScript, OptionsMayBeWrittenInEveryUsualWay) {
  write_text(dir_ / "hosts", "localhost slots=9\n");
  for (const Args& args : {Args{"-s2", "-w3", kDigits}, Args{kDigits, "-s", "2", "-w", "3"},
                           Args{"--servers", "2", kDigits, "--workers", "3"},
                           Args{"--servers=2", "--workers=3", kDigits}, Args{"-s=2", kDigits, "-w=3"}}) {
    for (const Args& script : {Args{"run_local.sh"}, Args{"run_hostfile.sh", "--hostfile=" + dir_ / "hosts"},
                               Args{"run_hostfile.sh", "-f" + dir_ / "hosts"}}) {
      std::filesystem::remove(dir_ / "called");
      const Ended ended = call(script[0], Args(script.begin() + 1, script.end()) + args +
                                              Args{"--set", "train.epochs=7", "--fresh"});
      EXPECT_EQ(ended.code, 0) << args[0] << ended.all();
      const std::string called = read_text(dir_ / "called");
      EXPECT_NE(called.find("-n\n5\n"), std::string::npos) << called;
      EXPECT_TRUE(was_passed({VARSCOPE_BINARY, "train", kDigits, "--set", "cluster.servers=2", "--set",
                              "train.epochs=7", "--fresh"}))
          << called;
    }
  }
  call("run_local.sh", {kDigits, "--resume", dir_.path(), "-s1", "-w1"});
  EXPECT_TRUE(was_passed({"--resume=" + dir_.path()})) << read_text(dir_ / "called");
  call("run_local.sh", {"--resume", kDigits, "-s1", "-w1"});
  EXPECT_TRUE(was_passed({"--resume"})) << read_text(dir_ / "called");
  expect_refused_again("run_local.sh", {"-s", "1", "-w", kDigits}, "-w is the number of workers");
  expect_refused_again("run_local.sh", {"--servers", kDigits}, "-s is the number of servers");
  expect_refused_again("run_local.sh", {"-f", "x", "-s1", "-w1", kDigits}, "there is no -f");
}

// Hostfiles that were written elsewhere; and those that mpirun would refuse, each by its line.
TEST_F(LaunchScript, HostfilesAreReadAsTheyAreMeant) {
  program(
      "mpirun",
      "while [ \"$1\" != --hostfile ]; do shift; done; cat \"$2\"; cat \"$2\"; env | grep OMPI_MCA_orte_keep");
  write_text(dir_ / "hosts", "\xef\xbb\xbfw.1.foo.net slots=1\r\n# a comment\r\nw.2.foo.net  slots = 2\r\n");
  const Ended ended = call("run_hostfile.sh", {"-f", dir_ / "hosts", "-s", "1", kDigits});
  const std::string plain = "w.1.foo.net slots=1\n# a comment\nw.2.foo.net  slots = 2\n";
  EXPECT_EQ(ended.out, plain + plain + "OMPI_MCA_orte_keep_fqdn_hostnames=1\n") << ended.all();
  const std::pair<const char*, const char*> mistakes[] = {
      {"n1 slots=2\nn2 slot=2\n", "hosts:2: unknown word \"slot\"; did you mean slots?"},
      {"n1 slots=x\n", "hosts:1: slots needs a number"},
      {"n1 4\n", "hosts:1: unknown word \"4\""},
      {"slots=4\n", "hosts:1: no name of a host"},
      {"# nothing\n", "hosts: names no host"},
  };
  for (const auto& [text, words] : mistakes) {
    write_text(dir_ / "hosts", text);
    expect_refused("run_hostfile.sh", {"-f", dir_ / "hosts", "-s", "1", "-w", "1", kDigits}, words);
  }
}

// Of a job that never started mpirun's own words are all there is, in one message.
TEST_F(LaunchScript, WhatMpirunRefusesIsToldOnce) {
  const std::string frame(74, '-');
  program("mpirun", "printf '%s\\n' " + frame +
                        " 'All nodes which are allocated for this job are already filled.' " + frame +
                        " >&2; exit 1");
  Ended ended = call("run_local.sh", {"-s", "1", "-w", "1", kDigits});
  EXPECT_EQ(ended.code, 1) << ended.all();
  EXPECT_EQ(
      ended.err,
      "run_local.sh: mpirun refuses the job: All nodes which are allocated for this job are already filled.; give the "
      "hosts more slots= in the hostfile, or lower the number of ranks\n");
  program("mpirun", "exit 3");
  ended = call("run_local.sh", {"-s", "1", "-w", "1", kDigits});
  EXPECT_EQ(ended.code, 3) << ended.all();
  EXPECT_NE(ended.err.find("run_local.sh: mpirun ended with code 3 and said nothing"), std::string::npos)
      << ended.err;
}

TEST_F(LaunchScript, RealRefusalsOfMpirunReachTheUser) {
  std::filesystem::remove(dir_ / "bin/mpirun");  // the real one is called
  const auto told = [&](const Args& args, const std::map<std::string, std::string>& environment,
                        const Args& words, const std::string& script = "run_local.sh") {
    Ended ended = call(script, args + set({"job.run_dir=" + dir_ / "run"}), environment);
    // Now and then Open MPI loses its own message: mpirun cannot unpack what the rank sent ("Data unpack
    // would read past end of buffer", "Out of resource").
    constexpr const char* kLost = "orte/util/show_help.c at line";
    for (int tries = 1; tries < 10 && ended.err.find(kLost) != std::string::npos; ++tries)
      ended = call(script, args + set({"job.run_dir=" + dir_ / "run"}), environment);
    EXPECT_NE(ended.code, 0) << ended.all();
    for (const std::string& word : words)
      EXPECT_NE(ended.err.find(word), std::string::npos) << word << ended.all();
    EXPECT_TRUE(ended.err.starts_with(script + ": ")) << ended.all();
    EXPECT_EQ(ended.err.find("to go on"), std::string::npos) << ended.all();
  };
  told({"-s1", "-w1", kDigits}, {{"VARSCOPE_MPIRUN_ARGS", "--foo"}},
       {"unknown option \"--foo\"", "VARSCOPE_MPIRUN_ARGS"});
  told({"-s1", "-w1", kDigits}, {{"OMPI_MCA_btl", "nosuch"}},
       {"MPI could not be initialised", "Component: nosuch"});
  write_text(dir_ / "hosts", "localhost\n");
  told({"-f", dir_ / "hosts", "-s1", "-w99", kDigits}, {{"OMPI_MCA_rmaps_base_oversubscribe", "0"}},
       {"mpirun refuses the job: There are not enough slots", "more slots= in the hostfile"},
       "run_hostfile.sh");
  write_text(dir_ / "hosts", "no-such-host.invalid slots=2\n");
  told({"-f", dir_ / "hosts", "-s1", "-w1", kDigits}, {{"OMPI_MCA_plm_rsh_agent", "false"}},
       {"mpirun could not start its daemon on a host"}, "run_hostfile.sh");
}

TEST_F(LaunchScript, AJobThatFailedIsToldHowToGoOnWhereItCan) {
  const auto hint = [&](const char* code) {
    program("mpirun", std::string("echo 'varscope: rank 0: why' >&2; exit ") + code);
    const Ended ended = call(
        "run_local.sh", {"-s", "1", "-w", "2", kDigits, "--fresh", "--set", "job.run_dir=" + dir_ / "a b"});
    EXPECT_EQ(ended.code, std::atoi(code)) << ended.all();
    EXPECT_TRUE(ended.err.starts_with("varscope: rank 0: why\n")) << ended.err;
    return ended.err.substr(std::strlen("varscope: rank 0: why\n"));
  };
  EXPECT_EQ(hint("11"), "run_local.sh: the job ended with code 11, and it has no checkpoint to go on from\n");
  std::filesystem::create_directories(dir_ / "a b/checkpoints/step-000000010");
  for (const char* restartable : {"75", "11", "137"}) {
    const std::string text = hint(restartable);
    EXPECT_NE(text.find("the job ended with code " + std::string(restartable) +
                        "; to go on from its newest checkpoint: " + kLaunch + "run_local.sh -s 1 -w 2 "),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("a\\ b --resume\n"), std::string::npos) << text;
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

TEST_F(Batch, TakesTheServersAsTheOtherScriptsDo) {
  for (const Args& args : {Args{"-s3"}, Args{"-s", "3"}, Args{"--servers", "3"}, Args{"--servers=3"}}) {
    const Ended ended = submit(args);
    EXPECT_EQ(ended.code, 0) << ended.all();
    EXPECT_TRUE(was_passed({"train", kDigits, "--set", "cluster.servers=3"})) << read_text(dir_ / "called");
  }
  EXPECT_NE(submit({"-s", "many"}).err.find("the number of servers, 1 or more, not 'many'"),
            std::string::npos);
  EXPECT_NE(submit({"-w", "3"}).err.find("there is no -w"), std::string::npos);
}

TEST_F(Batch, SaysTheCommandThatGoesOn) {
  checkpoint_at(dir_ / "run/checkpoints");
  const Ended ended = submit({"--set", "train.epochs=9"}, {{"MPIRUN_ENDS_WITH", "137"}, {"MAX_FUTILE", "1"}});
  EXPECT_NE(ended.out.find("giving up. Its checkpoints are in " + dir_ / "run/checkpoints" +
                           ". Go on with: RUN_DIR=" + dir_ / "run "),
            std::string::npos)
      << ended.out;
  EXPECT_NE(ended.out.find("launch/varscope.sbatch -s 2 " + kDigits + " --set train.epochs=9"),
            std::string::npos)
      << ended.out;
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
