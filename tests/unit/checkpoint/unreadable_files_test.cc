// What another user has made unreadable, in a directory that this one may write: it counts as missing, a line
// says so, and the rest goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "checkpoint/format/evaluation.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/prune.h"
#include "checkpoint/tools/reshard.h"
#include "checkpoint/tools/rollback_pin.h"
#include "checkpoint/tools/verify.h"
#include "tests/support/other_user.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::OtherUser;
using testing::slurp;
using testing::TempDir;
using testing::tiny_model;

struct Unreadable : ::testing::Test {
  Unreadable() {
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    for (const std::int64_t step : {5, 10, 20}) {
      testing::save(fs, directory, tiny_model(static_cast<unsigned>(step)), step, 1,
                    "id-" + std::to_string(step));
    }
    directory.record_evaluation({5, {{"accuracy", 0.5}}});
    directory.record("{\"event\":\"rollback\",\"to\":\"step-000000005\",\"unix_time\":1700000000}");
    allow(dir.path(), 0777);
    for (const char* name : {"LOCK", "LATEST", "LINEAGE"}) allow(dir / name, 0666);
    for (const std::int64_t step : {5, 10, 20}) allow(path(step), 0777);
  }
  std::string path(std::int64_t step) const { return dir / step_name(step); }
  static void allow(const std::string& path, mode_t mode) {
    ASSERT_EQ(::chmod(path.c_str(), mode), 0) << path;
  }
  template <class F>
  static std::string said_by(F tool) {
    std::string out;
    const OtherUser user;
    EXPECT_EQ(error_of([&] { tool(out); }), "no error");
    return out;
  }
  static std::size_t count(const std::string& text, const std::string& words) {
    std::size_t n = 0;
    for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) ++n;
    return n;
  }
  PosixFs fs;
  TempDir dir;
};

TEST_F(Unreadable, MetricsCountAsMissing) {
  allow(path(20) + "/METRICS", 0);
  std::string unreadable;
  {
    const OtherUser user;
    EXPECT_FALSE(read_evaluation(fs, path(20), &unreadable));
  }
  EXPECT_EQ(unreadable,
            "cannot open " + path(20) +
                "/METRICS: Permission denied; check the permissions of the directory: the metrics of its "
                "evaluation count as missing");
  EXPECT_TRUE(read_evaluation(fs, path(10), &unreadable));
  EXPECT_EQ(unreadable, "");

  const std::string list =
      said_by([&](std::string& out) { out = list_text(fs, dir.path(), ToolFormat::text); });
  EXPECT_EQ(count(list, "warning: "), 1U) << list;
  EXPECT_THAT(list,
              AllOf(HasSubstr("warning: cannot open " + path(20) + "/METRICS"), HasSubstr("accuracy 0.5")));
  const std::string json =
      said_by([&](std::string& out) { out = list_text(fs, dir.path(), ToolFormat::json); });
  EXPECT_THAT(nlohmann::json::parse(json).at("warning").get<std::string>(), HasSubstr("Permission denied"));

  const std::string reshard =
      said_by([&](std::string& out) { reshard_tool(fs, path(20), dir / "new", 2, ToolFormat::text, out); });
  EXPECT_EQ(count(reshard, "warning: "), 1U) << reshard;
  EXPECT_FALSE(fs.exists(dir / "new/step-000000020/METRICS"));
  EXPECT_THAT(verify_checkpoint(fs, dir / "new/step-000000020"), IsEmpty());

  std::string text;
  const OtherUser user;
  EXPECT_EQ(verify_tool(fs, path(20), text, ToolFormat::text), 5);
  EXPECT_THAT(text, AllOf(HasSubstr(": good, "), HasSubstr("count as missing")));
}

// It could be the best one.
TEST_F(Unreadable, WhatMayBeTheBestStays) {
  allow(path(5) + "/METRICS", 0);
  const RetentionPolicy policy{.keep = 1, .best = RetentionPolicy::Best{"accuracy", 1, MetricOrder::larger}};
  const std::string out = said_by([&](std::string& text) {
    prune_tool(fs, dir.path(), policy, PruneMode::dry_run, ToolFormat::text, text);
  });
  EXPECT_THAT(out, HasSubstr("step-000000005 stays: may be the best: its METRICS cannot be read at present"));
}

TEST_F(Unreadable, AnEvaluationIsRecordedAnew) {
  allow(path(20) + "/METRICS", 0);
  said_by([&](std::string&) {
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    directory.record_evaluation({20, {{"accuracy", 0.75}}});
  });
  EXPECT_EQ(read_evaluation(fs, path(20)), (EvaluationRecord{20, {{"accuracy", 0.75}}}));
}

TEST_F(Unreadable, LineageIsNotShownAndNeverLost) {
  const std::string before = slurp(dir / "LINEAGE");
  allow(dir / "LINEAGE", 0);
  const std::string list =
      said_by([&](std::string& out) { out = list_text(fs, dir.path(), ToolFormat::text); });
  EXPECT_EQ(count(list, "warning: "), 1U) << list;
  EXPECT_THAT(list, AllOf(HasSubstr("LINEAGE: Permission denied"), HasSubstr("is not shown"),
                          Not(HasSubstr("lineage:"))));

  const std::string rollback =
      said_by([&](std::string& out) { rollback_tool(fs, dir.path(), 10, ToolFormat::text, out); });
  EXPECT_THAT(rollback,
              AllOf(HasSubstr("warning: cannot open " + (dir / "LINEAGE") + ": Permission denied"),
                    HasSubstr("it is kept as LINEAGE.old-"), HasSubstr("step-000000010 is the newest")));
  EXPECT_THAT(lineage_text(fs, dir.path()), HasSubstr("\"to\":\"step-000000010\""));
  std::vector<std::string> kept;
  for (const std::string& name : fs.list(dir.path())) {
    if (name.starts_with("LINEAGE.old-")) kept.push_back(slurp(dir / name));
  }
  EXPECT_THAT(kept, ElementsAre(before));
}

TEST_F(Unreadable, LatestIsAHint) {
  allow(dir / "LATEST", 0);
  const std::string list =
      said_by([&](std::string& out) { out = list_text(fs, dir.path(), ToolFormat::text); });
  EXPECT_THAT(list, HasSubstr("step-000000020 was found by scanning"));
  const OtherUser user;
  const FoundCheckpoint found = newest_checkpoint(fs, dir.path());
  EXPECT_EQ(found.path, path(20));
  EXPECT_THAT(found.warnings, ElementsAre(HasSubstr("LATEST: Permission denied")));
}

TEST_F(Unreadable, ACheckpointIsPassedOverAndStays) {
  for (const std::string& what : {path(20), path(20) + "/MANIFEST", path(20) + "/" + shard_name(0, 1)}) {
    SCOPED_TRACE(what);
    struct stat st = {};
    ASSERT_EQ(::stat(what.c_str(), &st), 0);
    allow(what, 0);
    const std::string list =
        said_by([&](std::string& out) { out = list_text(fs, dir.path(), ToolFormat::text); });
    EXPECT_THAT(list, AllOf(HasSubstr("step-000000020"), HasSubstr("Permission denied"),
                            HasSubstr("step-000000010")));
    {
      const OtherUser user;
      const FoundCheckpoint found = newest_checkpoint(fs, dir.path());
      EXPECT_EQ(found.path, path(10));
      EXPECT_THAT(found.warnings,
                  ::testing::Contains(AllOf(HasSubstr("checkpoint step-000000020 cannot be used"),
                                            HasSubstr("Permission denied"),
                                            HasSubstr("falling back to step-000000010"))));
      std::vector<std::string> stay;
      for (const RetentionVerdict& v : judge_retention(fs, scan_checkpoints(fs, dir.path()), {.keep = 1})) {
        if (v.stays) stay.push_back(v.entry.name);
      }
      EXPECT_THAT(stay, ElementsAre("step-000000020", "step-000000010"));
    }
    allow(what, st.st_mode & 07777);
  }
}

TEST_F(Unreadable, WhatAnotherUsersJobLeftIsNotInTheWay) {
  const std::string left = dir / ".tmp-000000030-0000abcd-0";
  fs.make_dir(left);
  testing::spit(left + "/shard", "half");
  allow(left, 0700);
  std::vector<std::string> warnings;
  said_by([&](std::string&) {
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    directory.sweep();
    warnings = directory.warnings();
  });
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: of one's own all can be removed";
  EXPECT_THAT(warnings,
              ElementsAre(AllOf(HasSubstr("what an earlier job left takes space: cannot remove " + left),
                                HasSubstr("Permission denied"))));
}

// Of a directory nothing is known: that is an error, and no reason to begin anew.
TEST_F(Unreadable, ADirectoryThatCannotBeListedIsAnError) {
  allow(dir.path(), 0300);
  const OtherUser user;
  EXPECT_THAT(error_of([&] { list_text(fs, dir.path(), ToolFormat::text); }),
              AllOf(HasSubstr("io: "), HasSubstr("Permission denied")));
  EXPECT_THAT(error_of([&] { newest_checkpoint(fs, dir.path()); }), HasSubstr("Permission denied"));
}

}  // namespace
}  // namespace varscope
