// kill -9 at every point of the commit protocol: of each role, and of all at once. A checkpoint exists from
// the rename on and not before; the resumed run ends in the bits of an uninterrupted one and leaves no
// litter.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>

#include "tests/support/failure_matrix.h"
#include "tests/support/jobs/points_job.h"
#include "tests/support/jobs/tiny_job.h"

namespace varscope::testing {
namespace {

FailureMatrix& matrix = FailureMatrix::install("processes: SIGKILL at each point of a save",
                                               VARSCOPE_SOURCE_DIR "/docs/failures.md");

constexpr double kEndSeconds = 10 * kSlowness;

enum class Resumes { before, after };  // from the save before, or from the one under way
enum class Hint { current, behind };   // LATEST

struct Point {
  int rank;
  const char* point;
  const char* words;
  Resumes resumes = Resumes::before;
  Hint latest = Hint::current;
};

const Point kPoints[] = {
    {0, "before mkdir tmp", "server 0: before `.tmp-<id>` is made"},
    {0, "after mkdir tmp", "server 0: after `.tmp-<id>` was made"},
    {0, "after sync tmp", "server 0: after the fsync of its parent"},
    {0, "before create shard", "server 0: before its shard is created"},
    {0, "within write shard", "server 0: half of its shard written"},
    {0, "before fsync shard", "server 0: before the fsync of its shard"},
    {0, "after fsync shard", "server 0: after the fsync of its shard"},
    {0, "after close shard", "server 0: before it reports its shard"},
    {1, "before create shard", "server 1: before its shard is created"},
    {1, "within write shard", "server 1: half of its shard written"},
    {1, "before fsync shard", "server 1: before the fsync of its shard"},
    {1, "after fsync shard", "server 1: after the fsync of its shard"},
    {1, "after close shard", "server 1: before it reports its shard"},
    {0, "before create worker-state", "server 0: before the workers' states"},
    {0, "within write worker-state", "server 0: half of a worker's state written"},
    {0, "before create manifest", "server 0: before MANIFEST is created"},
    {0, "within write manifest", "server 0: half of MANIFEST written"},
    {0, "after fsync manifest", "server 0: after the fsync of MANIFEST"},
    {0, "after close json", "server 0: after manifest.json"},
    {0, "before sync-dir tmp", "server 0: before the fsync of `.tmp-<id>`"},
    {0, "before rename step", "server 0: before the rename that commits"},
    {0, "after rename step", "server 0: after the rename, before the fsync of its parent", Resumes::after,
     Hint::behind},
    {0, "after sync step", "server 0: after that fsync", Resumes::after, Hint::behind},
    {0, "within write latest", "server 0: half of `.tmp-LATEST` written", Resumes::after, Hint::behind},
    {0, "before replace latest", "server 0: before LATEST is replaced", Resumes::after, Hint::behind},
    {0, "after replace latest", "server 0: after LATEST was replaced", Resumes::after},
    {0, "after sync latest", "server 0: after the fsync of LATEST's directory", Resumes::after},
    {0, "before rename trash", "server 0: before the old one is moved to `.trash`", Resumes::after},
    {0, "after rename trash", "server 0: after it was moved", Resumes::after},
    {0, "before remove trash", "server 0: before `.trash` is removed", Resumes::after},
    {0, "after remove trash", "server 0: after `.trash` was removed", Resumes::after},
};
const char* const kVictims[] = {"0", "1", "2", "all"};

class Case {
 public:
  Case(const Point& point, int save, std::string victim)
      : point_(point),
        save_(save),
        victim_(std::move(victim)),
        job_(tiny_mpirun(dir_ / "run", saving_always() + set({"checkpoint.keep=1"})),
             {{point.rank, save, point.point, "kill " + victim_}}) {}

  // The end of the job; then from the newest checkpoint to the end, as its user would.
  void expect_end_and_resume() {
    SCOPED_TRACE(::testing::Message() << point_.point << ", save " << save_ << ", kill " << victim_);
    const auto hit = job_.wait_for_hit(point_.rank, 1, kStartSeconds);
    ASSERT_TRUE(hit) << job_->wait(0).all();
    expect_end(*hit);
    const std::int64_t expected = save_ == 1 && point_.resumes == Resumes::before ? 0
                                  : point_.resumes == Resumes::before             ? kFirstSave
                                                                                  : hit->saving;
    if (expected == 0) {
      const Ended refused = run(tiny_alone(dir_ / "run", {"--resume"}));
      EXPECT_EQ(refused.code, 4) << refused.all();
      EXPECT_NE(refused.err.find("holds no checkpoint to resume from"), std::string::npos) << refused.all();
    }
    expect_resume(expected);
  }

 private:
  void expect_end(const PointHit& hit) {
    EXPECT_EQ(hit.saving > kFirstSave, save_ == 2) << hit.saving;
    const Ended ended = job_->wait(kEndSeconds);
    EXPECT_TRUE(ended.in_time) << ended.all();
    EXPECT_EQ(ended.code, 128 + SIGKILL) << ended.all();
    if (victim_ == "all") return;
    EXPECT_TRUE(ended.noise().empty()) << ended.all();
    ASSERT_EQ(ended.messages().size(), 1U) << ended.all();
    EXPECT_NE(ended.messages()[0].find(" has died (killed, crashed or out of memory)"), std::string::npos)
        << ended.all();
  }
  void expect_resume(std::int64_t from) {
    const Ended ended = run(tiny_alone(dir_ / "run", from > 0 ? Args{"--resume"} : Args{}));
    EXPECT_EQ(ended.code, 0) << ended.all();
    const std::string latest = save_ == 1 ? "LATEST is missing" : "LATEST is stale";
    const std::vector<std::string> messages = ended.messages();
    ASSERT_EQ(messages.size(), point_.latest == Hint::behind ? 1U : 0U) << ended.all();
    for (const std::string& m : messages) EXPECT_NE(m.find(latest), std::string::npos) << ended.all();
    const Summary s = summary_of(ended.out);
    EXPECT_EQ(s.first_step, from) << ended.all();
    EXPECT_EQ(s.step, kTinySteps);
    EXPECT_EQ(s.hash, tiny_hash());
    for (const std::string& name : names_in(dir_ / "run/checkpoints"))
      EXPECT_FALSE(name.starts_with(".")) << name;
  }

  const Point& point_;
  int save_;
  std::string victim_;
  ScratchDir dir_;
  PointsJob job_;
};

// All victims at once, each with a job of its own: they mostly wait for mpirun.
void kill_each(const Point& point, int save) {
  std::vector<std::unique_ptr<Case>> cases;
  for (const char* victim : kVictims) cases.push_back(std::make_unique<Case>(point, save, victim));
  for (const auto& c : cases) c->expect_end_and_resume();
}

std::string outcome_of(const Point& point, int save) {
  if (point.resumes == Resumes::before) {
    return save == 1 ? "137; `--resume` is refused with 4, a start anew is not"
                     : "137; resumes from the save before; same bits";
  }
  std::string text = "137; resumes from this save; same bits";
  if (point.latest == Hint::current) return text;
  return text + (save == 1 ? "; warning: LATEST is missing" : "; warning: LATEST is stale");
}

void measure(const Point& point, int save) {
  kill_each(point, save);
  matrix.add({"SIGKILL", std::string(save == 1 ? "first save, " : "second save, ") + point.words,
              "server 0, server 1, worker 0, all ranks", outcome_of(point, save)});
}

std::string name_of(const Point& point) {
  std::string name = "Rank" + std::to_string(point.rank);
  bool capital = true;
  for (const char c : std::string(point.point)) {
    if (c == ' ' || c == '-') {
      capital = true;
    } else {
      name += capital ? static_cast<char>(std::toupper(c)) : c;
      capital = false;
    }
  }
  return name;
}

class KillInTheSecondSave : public ::testing::TestWithParam<std::size_t> {};

TEST_P(KillInTheSecondSave, ResumesFromTheCheckpointThatIsDue) {
  if (kSlowness > 1 && GetParam() % 5 != 0) GTEST_SKIP() << "one point in five under a sanitizer";
  measure(kPoints[GetParam()], 2);
}

INSTANTIATE_TEST_SUITE_P(Points, KillInTheSecondSave, ::testing::Range(std::size_t{0}, std::size(kPoints)),
                         [](const auto& info) { return name_of(kPoints[info.param]); });

class KillInTheFirstSave : public ::testing::TestWithParam<std::string> {};

TEST_P(KillInTheFirstSave, LeavesNothingOrAWholeCheckpoint) {
  if (kSlowness > 1) GTEST_SKIP() << "the second save only under a sanitizer";
  const auto point = std::find_if(std::begin(kPoints), std::end(kPoints),
                                  [](const Point& p) { return p.point == GetParam(); });
  ASSERT_NE(point, std::end(kPoints));
  measure(*point, 1);
}

INSTANTIATE_TEST_SUITE_P(Points, KillInTheFirstSave,
                         ::testing::Values("before rename step", "after rename step", "before replace latest",
                                           "after replace latest"),
                         [](const auto& info) {
                           return name_of(
                               *std::find_if(std::begin(kPoints), std::end(kPoints),
                                             [&](const Point& p) { return p.point == info.param; }));
                         });

}  // namespace
}  // namespace varscope::testing
