// Power loss at every rename of a save, on a real file system: what was announced is there and whole, and the
// resumed run ends in the bits of an uninterrupted one. Without fsync it would not be, which is tried as
// well.
#include <gtest/gtest.h>
#include <signal.h>

#include <functional>
#include <map>
#include <set>

#include "tests/support/failure_matrix.h"
#include "tests/support/fs/small_disk.h"
#include "tests/support/jobs/points_job.h"
#include "tests/support/jobs/tiny_job.h"

namespace varscope::testing {
namespace {

FailureMatrix& matrix =
    FailureMatrix::install("disks: power loss at each rename", VARSCOPE_SOURCE_DIR "/docs/failures.md");

constexpr int kSaves = 3;
constexpr int kDiskMib = 16;
constexpr int kWorkerRank = 2;
// More than are made during three saves on a slow disk; and how far to go on from a save.
constexpr std::int64_t kSteps = 20000;
std::int64_t steps_after(std::int64_t save) { return (save / 1000 + 1) * 1000; }

enum class Due { save_before, either, this_save };  // what must be recovered
struct Point {
  const char* point;
  const char* words;
  Due due;
};
const Point kPoints[] = {
    {"before rename step", "before the rename that commits", Due::save_before},
    {"after rename step", "after it, before the fsync of its parent", Due::either},
    {"after sync step", "after that fsync", Due::this_save},
    {"before replace latest", "before LATEST is replaced", Due::this_save},
    {"after replace latest", "after it was replaced", Due::this_save},
    {"before rename trash", "before an old one is moved to `.trash`", Due::this_save},
    {"after rename trash", "after it was moved", Due::this_save},
    {"after remove trash", "after `.trash` was removed", Due::this_save},
};

const Point& point_of(const PointHit& hit) {
  for (const Point& p : kPoints) {
    if (hit.point == p.point) return p;
  }
  throw std::runtime_error("no such point: " + hit.point);
}

std::vector<PointRule> wait_at_each_point() {
  std::vector<PointRule> rules;
  for (int save = 1; save <= kSaves; ++save) {
    for (const Point& p : kPoints) rules.push_back({0, save, p.point, "wait"});
  }
  return rules;
}

Args on_disk(const SmallDisk& disk, const Args& more = {}) {
  return set({"checkpoint.dir=" + disk.path() + "/checkpoints"}) + more;
}
Args saves_two() {
  return saving_always() + set({"checkpoint.keep=2", "train.max_steps=" + std::to_string(kSteps)});
}

struct Recovered {
  std::int64_t step = 0;  // 0: there was none
  bool all_whole = true;
  bool same_bits = true;
};

// Verifies what is there, as a user would before going on, and goes on from it to the end.
Recovered recover(const SmallDisk& disk, std::int64_t steps) {
  const ScratchDir scratch;
  Recovered r;
  const Ended verified = run(varscope({"checkpoint", "verify", disk.path() + "/checkpoints"}));
  r.all_whole = verified.code == 0;
  const Ended ended = run(tiny_alone(
      scratch / "run", on_disk(disk, set({"train.max_steps=" + std::to_string(steps)}) + Args{"--resume"})));
  if (ended.code == 4) {
    EXPECT_NE(ended.err.find("holds no checkpoint to resume from"), std::string::npos) << ended.all();
    r.all_whole = true;  // verify has nothing to verify
    return r;
  }
  const Summary s = summary_of(ended.out);
  r.step = s.first_step;
  r.same_bits = ended.code == 0 && s.step == steps && s.hash == tiny_hash(steps);
  EXPECT_EQ(ended.code, 0) << ended.all();
  return r;
}

// The job; at each hit, in the order of time, training stops and `look` sees what a power loss would leave.
void lose_power(const SmallDisk& disk, Syncs syncs,
                const std::function<void(const PointHit&, const SmallDisk&)>& look) {
  const ScratchDir scratch;
  PointsJob job(tiny_mpirun(scratch / "run", on_disk(disk, saves_two())), wait_at_each_point(), syncs);
  int k = 0;
  while (const auto hit = job.wait_for_hit(0, k + 1, kStartSeconds)) {
    ++k;
    kill(job.pid(kWorkerRank), SIGSTOP);  // else the run is over before the second save
    {
      const auto left = disk.after_power_loss(scratch / ("loss-" + std::to_string(k)));
      look(*hit, *left);
    }
    kill(job.pid(kWorkerRank), SIGCONT);
    job.go_on(0, k);
  }
  const Ended ended = job->wait(kStartSeconds);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(ended.messages().empty()) << ended.all();
  EXPECT_EQ(summary_of(ended.out).hash, tiny_hash(kSteps)) << ended.all();
}

TEST(PowerLoss, AtEachRenameKeepsWhatWasAnnounced) {
  const ScratchDir dir;
  const auto disk = SmallDisk::ext4(dir / "disk", kDiskMib);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  std::map<std::string, std::set<std::int64_t>> seen;
  lose_power(*disk, Syncs::done, [&](const PointHit& hit, const SmallDisk& left) {
    SCOPED_TRACE(::testing::Message() << hit.point << ", save of step " << hit.saving);
    const Recovered r = recover(left, steps_after(hit.saving));
    seen[hit.point].insert(hit.saving);
    EXPECT_TRUE(r.all_whole);
    EXPECT_TRUE(r.same_bits);
    const Due due = point_of(hit).due;
    const bool may_be_old = due != Due::this_save && r.step == hit.announced;
    const bool may_be_new = due != Due::save_before && r.step == hit.saving;
    EXPECT_TRUE(may_be_old || may_be_new) << r.step << ", announced " << hit.announced;
  });
  for (const Point& p : kPoints) {
    const bool removes = std::string(p.point).ends_with("trash");  // two are kept
    EXPECT_EQ(seen[p.point].size(), static_cast<std::size_t>(removes ? kSaves - 2 : kSaves)) << p.point;
    const char* what = p.due == Due::save_before ? "the save before (of the first: none)"
                       : p.due == Due::either    ? "the save before or this one"
                                                 : "this save";
    matrix.add({"power loss", std::string("server 0: ") + p.words, removes ? "save 3" : "saves 1 to 3",
                std::string(what) + "; all there are whole; same bits"});
  }
  const auto left = disk->after_power_loss(dir / "end");
  EXPECT_EQ(recover(*left, kSteps).step, kSteps);
  matrix.add({"power loss", "after the end of the job", "1", "the last save; whole; same bits"});
}

TEST(PowerLoss, WhileNewerOnesAreSetAside) {
  const ScratchDir dir;
  const auto disk = SmallDisk::ext4(dir / "disk", kDiskMib);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  const Args keep_all = on_disk(*disk, set({"checkpoint.keep=9"}));
  for (const char* steps : {"100", "200", "300"}) {
    const Args until = set({std::string("train.max_steps=") + steps});
    train(tiny_alone(dir / "run",
                     keep_all + until + (std::string(steps) == "100" ? Args{} : Args{"--resume"})));
  }
  const std::string from = "--resume=" + (disk->path() + "/checkpoints/step-000000100");
  PointsJob job(tiny_alone(dir / "run", keep_all + Args{from}), {{0, 0, "before rename aside", "wait"},
                                                                 {0, 0, "after rename aside", "wait"},
                                                                 {0, 0, "after sync aside", "wait"}});
  int k = 0;
  while (const auto hit = job.wait_for_hit(0, k + 1, kStartSeconds)) {
    ++k;
    SCOPED_TRACE(hit->point);
    const auto left = disk->after_power_loss(dir / ("loss-" + std::to_string(k)));
    const Recovered r = recover(*left, kTinySteps);
    EXPECT_TRUE(r.all_whole);
    EXPECT_TRUE(r.same_bits);
    if (hit->point == "after sync aside") {
      EXPECT_EQ(r.step, 100);
    } else {
      EXPECT_TRUE(r.step == 100 || r.step == 200 || r.step == 300) << r.step;
    }
    job.go_on(0, k);
  }
  EXPECT_EQ(k, 2 * 2 + 1);
  EXPECT_EQ(job->wait(kStartSeconds).code, 0);
  matrix.add({"power loss", "server 0: `--resume=PATH`, at each rename to `superseded-...`", "2 renames",
              "that checkpoint or a newer one; after the fsync that one; same bits"});
}

// So that the tests above are known to be able to fail.
TEST(PowerLoss, WithoutFsyncLosesWhatWasAnnounced) {
  const ScratchDir dir;
  const auto disk = SmallDisk::ext4(dir / "disk", kDiskMib);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  int n_lost = 0;
  lose_power(*disk, Syncs::left_out, [&](const PointHit& hit, const SmallDisk& left) {
    if (hit.point != "before rename step" && hit.point != "after sync step") return;
    const bool is_announced = hit.announced > 0 || hit.point == "after sync step";
    const std::int64_t due = hit.point == "after sync step" ? hit.saving : hit.announced;
    const std::string newest = left.path() + "/checkpoints/" + fmt::format("step-{:09d}", due);
    if (is_announced && run(varscope({"checkpoint", "verify", newest})).code != 0) ++n_lost;
  });
  EXPECT_GT(n_lost, 0);
  matrix.add({"power loss, every fsync left out", "the same points", "saves 1 to 3",
              "an announced save is lost or damaged: these tests can fail"});
}

}  // namespace
}  // namespace varscope::testing
