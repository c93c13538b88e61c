// Runs of SSP and ASP that are recorded, and replayed, as their users start them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

Args asp(const std::string& run_dir) {
  return Args{"train", config_file("digits_mlp.yaml")} +
         set({"job.run_dir=" + run_dir, "cluster.servers=2", "cluster.consistency=asp",
              "cluster.logical_workers=6", "optimizer.momentum=0.5", "cluster.record=true",
              "checkpoint.every_steps=20", "checkpoint.when_busy=queue", "train.max_steps=300"});
}

TEST(RecordedRun, IsReplayedToTheSameBits) {
  const ScratchDir dir;
  const Args args = asp(dir / "run") + set({"checkpoint.keep=100"});
  const Summary first = train(mpirun(5, args));
  const Summary other = train(mpirun(5, asp(dir / "other")));
  EXPECT_NE(other.hash, first.hash) << "a run of ASP is as the last one: nothing is tested here";
  const std::vector<std::string> before = names_in(dir / "run/record/server-0001");
  ASSERT_GE(first.checkpoints.size(), 2U);
  for (const std::string& from :
       {std::string("0"), std::to_string(first.checkpoints.front()), std::string()}) {
    SCOPED_TRACE(from);
    const Args where = from.empty() ? Args{} : Args{"--from", from};
    const Ended e = run(mpirun(5, args + Args{"--replay", dir / "run"} + where), 120 * kSlowness);
    ASSERT_EQ(e.code, 0) << e.all();
    EXPECT_EQ(summary_of(e.out).hash, first.hash) << e.all();
    EXPECT_THAT(e.out, ContainsRegex("replay of .*/run: steps [0-9]+ to 300, where the record ends; "));
    EXPECT_THAT(e.out,
                HasSubstr("  consistency  the order of pushes and reads, and so the bits, are those of "));
    EXPECT_THAT(e.out, HasSubstr("  checkpoints  none of a replay\n"));
    EXPECT_THAT(
        e.out, ContainsRegex("  replay       the same values as the recorded run's, compared after [0-9]+ of "
                             "its steps\n"));
    EXPECT_THAT(e.out, Not(HasSubstr("bits depend on timing")));
  }
  EXPECT_EQ(names_in(dir / "run/record/server-0001"), before);
  EXPECT_TRUE(names_in(dir / "run-replay/checkpoints").empty());
}

TEST(RecordedRun, ThatWasKilledIsReplayedAsFarAsItWent) {
  const ScratchDir dir;
  const Args args =
      asp(dir / "run") + set({"train.max_steps=100000", "train.epochs=10000", "checkpoint.keep=100000"});
  Job job(mpirun(5, args));
  const std::vector<pid_t> pids = job.rank_pids(5, kStartSeconds);
  ASSERT_EQ(pids.size(), 5U) << job.err();
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() >= 60; }, kStartSeconds)) << job.err();
  kill(pids[1], SIGKILL);
  ASSERT_TRUE(job.wait(60 * kSlowness).in_time);
  const Ended e = run(mpirun(5, args + Args{"--replay", dir / "run", "--from", "0"}), 240 * kSlowness);
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_THAT(e.out, ContainsRegex("values are compared after [1-9][0-9]* of its steps"));
}

// "step 6", of the one message.
std::string step_in(const Ended& e) {
  const std::string line = e.errors().size() == 1 ? e.errors().front() : "";
  const std::size_t begin = line.find("step ");
  return begin == std::string::npos ? e.all() : line.substr(begin, line.find(':', begin) - begin);
}

TEST(RecordedRun, ThatWentNanDoesSoAgainAtTheSameStep) {
  const ScratchDir dir;
  const Args args =
      asp(dir / "run") + set({"optimizer.type=sgd", "optimizer.momentum=", "optimizer.weight_decay=0.5",
                              "optimizer.learning_rate=22"});
  const Ended first = run(mpirun(5, args));
  ASSERT_EQ(first.code, 6) << first.all();
  EXPECT_THAT(first.err, HasSubstr("; --replay " + (dir / "run") + " --check-numerics names the op"));
  const Ended again = run(mpirun(5, args + Args{"--replay", dir / "run"}));
  EXPECT_EQ(again.code, 6) << again.all();
  EXPECT_EQ(step_in(again), step_in(first));
  EXPECT_THAT(again.err, HasSubstr("; as in the recorded run; with --check-numerics, too, the op is named"));
  const Ended named = run(mpirun(5, args + Args{"--replay", dir / "run", "--check-numerics"}));
  EXPECT_EQ(named.code, 6) << named.all();
  EXPECT_THAT(
      named.err,
      ContainsRegex("node \".*\" \\(.*digits_mlp.yaml:[0-9]+:[0-9]+\\) made .*; as in the recorded run"));
}

// The run goes on from step 100 without a record, and writes another checkpoint of step 200.
TEST(RecordedRun, DoesNotBeginWithTheValuesOfAnotherStart) {
  const ScratchDir dir;
  const Args args = asp(dir / "run") + set({"checkpoint.every_steps=100", "checkpoint.keep=100"});
  const Summary first = train(mpirun(5, args));
  ASSERT_THAT(first.checkpoints, ::testing::ElementsAre(100, 200, 300));
  std::filesystem::remove_all(dir / "run/checkpoints/step-000000200");
  std::filesystem::remove_all(dir / "run/checkpoints/step-000000300");
  train(mpirun(
      5, args + set({"cluster.record=false"}) + Args{"--resume", dir / "run/checkpoints/step-000000100"}));
  ASSERT_THAT(names_in(dir / "run/checkpoints"), ::testing::Contains("step-000000200"));
  const Args replay = args + Args{"--replay", dir / "run"};
  const Ended e = run(mpirun(5, replay), 120 * kSlowness);
  EXPECT_EQ(e.code, 0) << e.all();
  EXPECT_THAT(e.out, ContainsRegex("replay of .*/run: steps 101 to 300, where the record ends; "));
  EXPECT_EQ(summary_of(e.out).hash, first.hash) << e.all();
  const Ended refused = run(mpirun(5, replay + Args{"--from", "200"}));
  EXPECT_EQ(refused.code, 2) << refused.all();
  EXPECT_THAT(refused.err,
              HasSubstr("/run can be replayed from step 0, 100; of step 200 there is only another "
                        "checkpoint than the recorded one: a later start of the run has written it"));
}

// What follows in the record has been done only where the recorded run came together.
TEST(RecordedRun, WhoseReplayIsStoppedEndsWhereItCameTogether) {
  const ScratchDir dir;
  const Args args =
      asp(dir / "run") + set({"train.max_steps=4000", "checkpoint.every_steps=100", "checkpoint.keep=100",
                              "train.log_every_steps=10", "train.epochs=1000"});
  train(mpirun(5, args));
  Job replay(mpirun(5, args + Args{"--replay", dir / "run", "--from", "0"}));
  ASSERT_TRUE(replay.wait_until([&] { return replay.last_step() > 0; }, kStartSeconds)) << replay.err();
  replay.send_signal(SIGUSR2);
  const Ended stopped = replay.wait(60 * kSlowness);
  ASSERT_TRUE(stopped.in_time) << stopped.all();
  EXPECT_EQ(stopped.code, 75) << stopped.all();
  EXPECT_THAT(
      stopped.out,
      HasSubstr("a signal asks to stop: on to where the recorded run came together next, and the end"));
  EXPECT_THAT(stopped.out, HasSubstr("stopped; no value differed so far from the recorded run's"));
  EXPECT_THAT(stopped.out, ContainsRegex("stopped early at step [0-9]+00 after ")) << stopped.all();
}

TEST(RecordedRun, IsReplayedOnlyAsItWasStarted) {
  const ScratchDir dir;
  const Args args = asp(dir / "run");
  train(mpirun(4, args));
  const auto refused = [&](int n_ranks, const Args& more) {
    const Ended e = run(mpirun(n_ranks, args + Args{"--replay", dir / "run"} + more));
    EXPECT_EQ(e.code, 2) << e.all();
    return e.err;
  };
  EXPECT_THAT(refused(5, set({"optimizer.learning_rate=0.01"})),
              ContainsRegex("can only be replayed as it was started:\n"
                            "  workers: 2 in the recorded run, 3 now\n"
                            "  optimizer.learning_rate: 0.05 in the recorded run, 0.01 now\n"
                            "  its config is .*/run/job.yaml; it had 2 servers and 2 workers"));
  const std::string in_bsp = refused(4, set({"cluster.consistency=bsp", "cluster.record="}));
  EXPECT_THAT(
      in_bsp,
      ContainsRegex("as it was started:\n  cluster.consistency: asp in the recorded run, bsp now\n  its "));
  EXPECT_THAT(refused(4, {"--from", "7"}),
              HasSubstr("--from 7: " + (dir / "run") + " can be replayed from step "));
  EXPECT_THAT(refused(4, set({"cluster.consistency=bsp"})),
              HasSubstr("cluster.record: does not go with cluster.consistency: bsp"));
  EXPECT_THAT(refused(4, {"--resume"}), HasSubstr("--resume excludes --replay"));
  const auto not_found = [&](const std::string& what) {
    const Ended e = run(varscope(args + Args{"--replay", what}));
    EXPECT_EQ(e.code, 4) << e.all();
    return e.err;
  };
  EXPECT_THAT(not_found(dir / "nothing"), HasSubstr("nothing: there is no such directory"));
  std::filesystem::create_directory(dir / "empty");
  EXPECT_THAT(not_found(dir / "empty"), HasSubstr("empty holds no record of a run to replay"));
  EXPECT_THAT(
      not_found(dir / "run/record/"),
      HasSubstr("/run/record: this is the record of a run; name the run's directory, " + (dir / "run")));
}

}  // namespace
}  // namespace varscope::testing
