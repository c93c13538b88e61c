// kill -9 of any rank at any moment: the job ends at once with one message, nothing that was acknowledged is
// lost, and the resumed run ends in the bits of an uninterrupted one.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr std::uint64_t kSeed = 20240601;
constexpr int kMoments = 8;
constexpr int kServers = 2;
constexpr int kRanks = 4;
constexpr std::int64_t kSteps = 1000;
constexpr double kEndSeconds = 10 * kSlowness;

Command train_in(const std::string& run_dir, const Args& more = {}) {
  return mpirun(kRanks, Args{"train", config_file("digits_mlp.yaml")} +
                            set({"job.run_dir=" + run_dir, "cluster.servers=" + std::to_string(kServers),
                                 "train.max_steps=" + std::to_string(kSteps), "train.log_every_steps=10",
                                 "train.eval_every_epochs=0", "checkpoint.every_steps=7"}) +
                            more);
}

const std::string& uninterrupted_hash() {
  static const std::string hash = [] {
    const ScratchDir dir;
    return train(train_in(dir / "run")).hash;
  }();
  return hash;
}

struct Moment {
  std::size_t rank;
  std::int64_t step;                // not before
  bool during_save;                 // and then when a checkpoint is being written
  std::chrono::microseconds delay;  // else this much later
};

// Steps of the first three quarters, so that the run is not over before the signal arrives.
Moment random_moment(std::mt19937_64& random, std::int64_t first_step) {
  Moment m;
  m.rank = random() % kRanks;
  m.step = first_step +
           static_cast<std::int64_t>(random() % static_cast<std::uint64_t>((kSteps - first_step) * 3 / 4));
  m.during_save = random() % 2 == 0;
  m.delay = std::chrono::microseconds(random() % 20000);
  return m;
}

bool saves_now(const std::string& run_dir) {
  const std::vector<std::string> names = names_in(run_dir + "/checkpoints");
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& n) { return n.starts_with(".tmp-0"); });
}

bool has_checkpoint(const std::string& run_dir) {
  const std::vector<std::string> names = names_in(run_dir + "/checkpoints");
  return std::any_of(names.begin(), names.end(), [](const std::string& n) { return n.starts_with("step-"); });
}

// Starts or resumes the run, kills one rank, and returns the step of the newest checkpoint it had announced.
std::int64_t train_and_kill(const std::string& run_dir, const Moment& m, const Args& more = {}) {
  Job job(train_in(run_dir, more));
  const std::vector<pid_t> pids = job.rank_pids(kRanks, kStartSeconds);
  if (pids.empty()) {
    ADD_FAILURE() << "the ranks did not start\n" << job.err();
    return 0;
  }
  const auto printed_header = [&] { return job.out().find("  start        ") != std::string::npos; };
  EXPECT_TRUE(
      job.wait_until([&] { return printed_header() && job.last_step() + 10 > m.step; }, kStartSeconds))
      << job.wait(0).all();
  if (m.during_save) {
    EXPECT_TRUE(job.wait_until([&] { return saves_now(run_dir); }, kStartSeconds)) << job.wait(0).all();
  } else {
    const auto until = std::chrono::steady_clock::now() + m.delay;
    job.wait_until([&] { return std::chrono::steady_clock::now() >= until; }, kStartSeconds);
  }
  kill(pids[m.rank], SIGKILL);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_TRUE(ended.in_time) << ended.all();
  EXPECT_NE(ended.code, 0) << ended.all();
  EXPECT_EQ(ended.messages().size(), 1U) << ended.all();
  EXPECT_TRUE(ended.noise().empty()) << ended.all();
  for (const std::string& message : ended.messages()) {
    EXPECT_NE(message.find(" has died (killed, crashed or out of memory)"), std::string::npos) << message;
    const bool tells = message.find("--resume") != std::string::npos;
    // One that was just being made may count or not.
    EXPECT_TRUE(!tells || has_checkpoint(run_dir)) << message;
    EXPECT_TRUE(tells || summary_of(ended.out).checkpoints.empty()) << message;
  }
  const Summary s = summary_of(ended.out);
  return s.checkpoints.empty() ? 0 : s.checkpoints.back();
}

// To the end; from the newest checkpoint, or anew where none was finished before the kill.
void finish(const std::string& run_dir, std::int64_t acknowledged) {
  const bool resumes = has_checkpoint(run_dir);
  EXPECT_TRUE(resumes || acknowledged == 0)
      << "the announced checkpoint of step " << acknowledged << " is gone";
  const Ended ended = run(train_in(run_dir, resumes ? Args{"--resume"} : Args{}));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(ended.noise().empty()) << ended.all();
  EXPECT_LE(ended.messages().size(), 1U) << ended.all();
  for (const std::string& message : ended.messages()) {
    // Killed between the rename that commits and the rename of LATEST, which is a hint only.
    const char* expected = acknowledged > 0 ? "LATEST is stale" : "LATEST is ";  // there may be none yet
    EXPECT_NE(message.find(expected), std::string::npos) << ended.all();
  }
  const Summary s = summary_of(ended.out);
  EXPECT_GE(s.first_step, acknowledged);
  EXPECT_EQ(s.step, kSteps);
  EXPECT_EQ(s.hash, uninterrupted_hash());
}

class KillAtRandomMoment : public ::testing::TestWithParam<int> {};

TEST_P(KillAtRandomMoment, ResumesToTheSameBits) {
  std::mt19937_64 random(kSeed + static_cast<std::uint64_t>(GetParam()));
  const Moment m = random_moment(random, 0);
  SCOPED_TRACE(::testing::Message() << "rank " << m.rank << ", step " << m.step
                                    << (m.during_save ? ", during a save" : ""));
  const ScratchDir dir;
  finish(dir / "run", train_and_kill(dir / "run", m));
}

INSTANTIATE_TEST_SUITE_P(Seeded, KillAtRandomMoment, ::testing::Range(0, kMoments));

TEST(Kill, BeforeTheFirstCheckpoint) {
  const ScratchDir dir;
  // The first save is due at step 7, so this one is nearly always before it.
  finish(dir / "run", train_and_kill(dir / "run", Moment{2, 0, false, std::chrono::microseconds(0)}));
}

TEST(Kill, TheResumedRunTwiceAgain) {
  const ScratchDir dir;
  std::mt19937_64 random(kSeed);
  const Moment first{1, 200, true, {}};
  std::int64_t acknowledged = train_and_kill(dir / "run", first);
  for (const Moment& m : {Moment{0, 400, true, {}}, Moment{3, 650, true, {}}}) {
    ASSERT_TRUE(has_checkpoint(dir / "run"));
    acknowledged = std::max(acknowledged, train_and_kill(dir / "run", m, {"--resume"}));
  }
  finish(dir / "run", acknowledged);
}

}  // namespace
}  // namespace varscope::testing
