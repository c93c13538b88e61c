// Which checkpoints stay. Everything is decided
// by what is on disk, so each test also asks a second object, as a restarted job would.
#include "checkpoint/directory/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <limits>

#include <nlohmann/json.hpp>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/prune.h"
#include "checkpoint/tools/verify.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::slurp;
using testing::spit;
using testing::TempDir;
using testing::tiny_model;

const double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kHour = 3600, kStart = 1'700'000'000;

class Retention : public ::testing::Test {
 protected:
  void SetUp() override { restart(); }
  // What a new start of the job knows: nothing but the directory.
  void restart() {
    directory.reset();
    directory = std::make_unique<CheckpointDirectory>(fs, dir.path());
    directory->lock("run");
  }
  void save(std::int64_t step, std::int64_t unix_time = 0, double last_element = 1) {
    const std::string id = "id-" + std::to_string(step), tmp = directory->begin(id);
    const testing::Model model = tiny_model(static_cast<unsigned>(step));
    model.value("w").as<float>()[11] = static_cast<float>(last_element);
    Manifest m = testing::make_manifest(model, step, 1);
    m.unix_time = unix_time;
    m.workers = m.logical_workers = 0;
    m.worker_clocks.clear();
    ShardReport report = testing::write_part(fs, tmp, model, step, 0, 1, id);
    report.worker_clocks.clear();
    add_report(m, report);
    directory->commit(id, m);
  }
  // Saves, applies the policy after each, with a restart in between, and returns what is left.
  std::vector<std::int64_t> save_all(const std::vector<std::int64_t>& all, const RetentionPolicy& policy) {
    for (const std::int64_t step : all) {
      save(step);
      directory->retain(policy);
      restart();
    }
    return steps();
  }
  std::vector<std::int64_t> steps() {
    std::vector<std::int64_t> all;
    for (const CheckpointEntry& e : scan_checkpoints(fs, dir.path())) all.push_back(e.step);
    return all;
  }
  std::string path(std::int64_t step) const { return dir / step_name(step); }
  void score(std::int64_t step, double accuracy) {
    directory->record_evaluation({step, {{"accuracy", accuracy}}});
  }
  static RetentionPolicy best(std::int64_t keep, std::int64_t count,
                              MetricOrder order = MetricOrder::larger) {
    return {.keep = keep, .best = RetentionPolicy::Best{"accuracy", count, order}};
  }
  std::map<std::int64_t, std::string> reasons(const RetentionPolicy& policy) {
    std::map<std::int64_t, std::string> why;
    for (const RetentionVerdict& v : judge_retention(fs, directory->scan(), policy))
      why[v.entry.step] = v.stays ? v.why : "removed";
    return why;
  }

  TempDir dir;
  PosixFs fs;
  std::unique_ptr<CheckpointDirectory> directory;
};

TEST_F(Retention, TheNewestStayOverARestartOfTheJob) {
  EXPECT_THAT(save_all({1, 2, 3}, {.keep = 2}), ElementsAre(3, 2));
}

TEST_F(Retention, DeletesAsManyAsNeeded) {
  EXPECT_THAT(save_all({1, 2, 3, 4, 5, 6}, {.keep = 6}), ElementsAre(6, 5, 4, 3, 2, 1));
  EXPECT_THAT(save_all({7}, {.keep = 2}), ElementsAre(7, 6));
  EXPECT_THAT(directory->retain(RetentionPolicy{.keep = 1}), ElementsAre("step-000000006"));
}

TEST_F(Retention, ZeroKeepsAll) {
  EXPECT_THAT(save_all({1, 2, 3}, {.keep = 0, .keep_every_steps = 2}), ElementsAre(3, 2, 1));
}

TEST_F(Retention, EveryNStepsAreNeverRemoved) {
  EXPECT_THAT(save_all({10, 20, 30, 40, 50, 60, 70}, {.keep = 2, .keep_every_steps = 30}),
              ElementsAre(70, 60, 30));
  EXPECT_EQ(
      reasons({.keep = 1, .keep_every_steps = 30}),
      (std::map<std::int64_t, std::string>{{70, "newest"}, {60, "every 30 steps"}, {30, "every 30 steps"}}));
  EXPECT_THAT(directory->retain(RetentionPolicy{.keep = 1}), ElementsAre("step-000000060", "step-000000030"));
}

TEST_F(Retention, EveryNHoursAreNeverRemoved) {
  // Minutes after the start: 0, 20, ..., 200. From the oldest on every hour: 0, 60, 120, 180.
  const RetentionPolicy policy{.keep = 2, .keep_every_hours = 1};
  for (int i = 0; i <= 10; ++i) {
    save(i, kStart + i * kHour / 3);
    directory->retain(policy);
    restart();
  }
  EXPECT_THAT(steps(), ElementsAre(10, 9, 6, 3, 0));
  EXPECT_EQ(reasons(policy).at(3), "every 1 hours");
  EXPECT_THAT(directory->retain(policy), IsEmpty());
}

TEST_F(Retention, FractionsOfHoursAndAClockThatWasSetBack) {
  save(1, kStart);
  save(2, kStart + kHour / 2 - 1);
  save(3, kStart + kHour / 2);
  save(4, kStart + 1000 * kHour);
  save(5, kStart + kHour);  // set back
  save(6, kStart + kHour + 1);
  save(7, kStart + kHour + 2);
  directory->retain({.keep = 1, .keep_every_hours = 0.5});
  EXPECT_THAT(steps(), ElementsAre(7, 5, 4, 3, 1));
}

TEST_F(Retention, PinnedOnesAreNeverRemovedAndNotCounted) {
  save(1);
  save(2);
  spit(path(1) + "/PINNED", "");
  EXPECT_THAT(save_all({3, 4, 5}, best(1, 1)), ElementsAre(5, 1));
  EXPECT_EQ(reasons({.keep = 1}).at(1), "pinned");
  spit(path(5) + "/PINNED", "");
  save(6);
  save(7);
  directory->retain(RetentionPolicy{.keep = 1});
  EXPECT_THAT(steps(), ElementsAre(7, 5, 1));
}

TEST_F(Retention, RulesAddUp) {
  for (int step : {10, 20, 30, 40, 50}) save(step, kStart + step);
  score(20, 0.9);
  score(30, 0.1);
  RetentionPolicy policy = best(1, 1);
  policy.keep_every_steps = 40;
  policy.keep_every_hours = 1;
  directory->retain(policy);
  EXPECT_THAT(steps(), ElementsAre(50, 40, 20, 10));
}

TEST_F(Retention, DamagedOnesAreKeptByNoRuleButBeingNew) {
  for (int step : {10, 20, 30, 40}) save(step);
  score(20, 0.9);
  std::filesystem::remove(path(20) + "/MANIFEST");
  std::filesystem::remove(path(40) + "/MANIFEST");
  RetentionPolicy policy = best(1, 4);
  policy.keep_every_steps = 10;
  directory->retain(policy);
  EXPECT_THAT(steps(), ElementsAre(40, 30, 10));
}

// --- the best by a metric

TEST_F(Retention, TheBestByAMetricStay) {
  for (const auto& [step, accuracy] : {std::pair(1, 0.5), {2, 0.9}, {3, 0.7}, {4, 0.8}, {5, 0.6}}) {
    save(step);
    score(step, accuracy);
    directory->retain(best(1, 2));
    restart();
  }
  EXPECT_THAT(steps(), ElementsAre(5, 4, 2));
  EXPECT_EQ(reasons(best(1, 2)).at(2), "best accuracy (0.9)");
  save(6);
  score(6, 0.95);  // the best so far: the worse of the old best ones goes
  directory->retain(best(1, 2));
  EXPECT_THAT(steps(), ElementsAre(6, 2));
}

TEST_F(Retention, SmallerMayBeBetter) {
  for (const auto& [step, loss] : {std::pair(1, 0.5), {2, 0.1}, {3, 0.7}, {4, 0.8}}) {
    save(step);
    score(step, loss);
  }
  directory->retain(best(1, 1, MetricOrder::smaller));
  EXPECT_THAT(steps(), ElementsAre(4, 2));
}

TEST_F(Retention, OfEqualOnesTheNearerToTheEvaluationAndThenTheOlderStay) {
  save(10);
  score(8, 0.9);  // the newest evaluation up to step 10
  save(20);
  directory->record_evaluation({20, {{"accuracy", 0.9}}});
  save(30);
  directory->record_evaluation({30, {{"accuracy", 0.9}}});
  save(40);
  directory->record_evaluation({40, {{"accuracy", 0.1}}});
  EXPECT_EQ(read_evaluation(fs, path(10))->step, 8);
  directory->retain(best(1, 1));
  EXPECT_THAT(steps(), ElementsAre(40, 20));
}

TEST_F(Retention, AnEvaluationIsOfItsStepAndLaterOnes) {
  for (int step : {1, 2, 3}) save(step);
  score(2, 0.5);
  EXPECT_FALSE(read_evaluation(fs, path(1)));
  EXPECT_EQ(read_evaluation(fs, path(2)), (EvaluationRecord{2, {{"accuracy", 0.5}}}));
  EXPECT_EQ(read_evaluation(fs, path(3)), read_evaluation(fs, path(2)));
  score(3, 0.75);
  score(2, 0.6);  // again, as after a resume: not of step 3, which has a newer one
  EXPECT_EQ(read_evaluation(fs, path(2))->values.at("accuracy"), 0.6);
  EXPECT_EQ(read_evaluation(fs, path(3))->values.at("accuracy"), 0.75);
  for (int step : {2, 3}) EXPECT_THAT(verify_checkpoint(fs, path(step)), IsEmpty());
}

TEST_F(Retention, WhatHasNoMetricIsNotAmongTheBest) {
  const auto sealed = [](const std::string& line) {
    return line + "\n" + digest_of(std::string_view(line + "\n")).hex() + "\n";
  };
  for (int step : {1, 2, 3, 4, 5, 6}) save(step);
  spit(path(1) + "/METRICS", sealed("not json"));
  spit(path(2) + "/METRICS", sealed("{\"step\": 2, \"values\": {\"accuracy\": \"high\", \"loss\": 1}}"));
  spit(path(3) + "/METRICS", sealed("{\"step\": 3}"));
  spit(path(4) + "/METRICS", "");
  directory->record_evaluation({6, {{"accuracy", std::nan("")}, {"loss", 2.0}}});
  EXPECT_EQ(slurp(path(6) + "/METRICS"), sealed("{\"step\":6,\"values\":{\"loss\":2.0}}"));
  directory->retain(best(1, 6));
  EXPECT_THAT(steps(), ElementsAre(6));
}

TEST_F(Retention, PruneRefusesABestThatNobodyHas) {
  for (int step : {1, 2, 3}) save(step);
  directory.reset();
  const auto prune = [&](const RetentionPolicy& policy) {
    std::string out;
    prune_tool(fs, dir.path(), policy, PruneMode::remove, ToolFormat::text, out);
  };
  const std::string refused =
      "has the metric \"accuracy\" (none was evaluated), so the best one is not known";
  EXPECT_THAT(error_of([&] { prune(best(1, 1)); }), HasSubstr(refused));
  write_evaluation(fs, path(1), {1, {{"loss", 1.0}, {"rmse", 2.0}}});
  EXPECT_THAT(error_of([&] { prune(best(1, 1)); }), HasSubstr("(they have loss, rmse)"));
  EXPECT_THAT(steps(), ElementsAre(3, 2, 1));
  prune(best(3, 1));  // removes nothing anyway
  write_evaluation(fs, path(2), {2, {{"accuracy", 0.5}}});
  prune(best(1, 1));
  EXPECT_THAT(steps(), ElementsAre(3, 2));
}

TEST_F(Retention, DamagedMetricsCountAsNoneAndDoTheCheckpointNoHarm) {
  save(1);
  score(1, 0.5);
  const std::string whole = slurp(path(1) + "/METRICS");
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    for (const std::string& text : {flipped, whole.substr(0, at)}) {
      spit(path(1) + "/METRICS", text);
      EXPECT_FALSE(read_evaluation(fs, path(1))) << at;
    }
  }
  EXPECT_THAT(verify_checkpoint(fs, path(1)), IsEmpty());
  std::string out;
  EXPECT_EQ(verify_tool(fs, path(1), out), static_cast<int>(ExitCode::difference));
  EXPECT_THAT(out, HasSubstr("METRICS is damaged: the metrics of the evaluation are lost, the rest "
                             "can be used"));
  EXPECT_THAT(out, HasSubstr("good, ")) << "the checkpoint itself";
  spit(path(1) + "/METRICS", whole + "x");
  EXPECT_FALSE(read_evaluation(fs, path(1)));
  score(1, 0.75);  // is renewed
  EXPECT_EQ(verify_tool(fs, path(1), out), 0);
  EXPECT_EQ(read_evaluation(fs, path(1)), (EvaluationRecord{1, {{"accuracy", 0.75}}}));
}

TEST_F(Retention, AFailureWhileMetricsAreRecordedLeavesTheOldOnesOrTheNew) {
  save(1);
  save(2);
  score(1, 0.25);
  const EvaluationRecord old{1, {{"accuracy", 0.25}}}, renewed{1, {{"accuracy", 0.5}}};
  int failures = 0;
  for (const FsOp op : testing::kMutatingOps) {
    bool failed = true;
    for (int n = 1; failed; ++n) {
      SCOPED_TRACE(fmt::format("{} {}", testing::to_string(op), n));
      score(1, 0.25);
      directory.reset();
      FaultFs faulty(fs);
      auto failing = std::make_unique<CheckpointDirectory>(faulty, dir.path());
      failing->lock("run");
      faulty.fail_nth(op, n, EIO);
      failed = error_of([&] { failing->record_evaluation(renewed); }) != "no error";
      failures += failed ? 1 : 0;
      for (int step : {1, 2}) {
        const auto found = read_evaluation(fs, path(step));
        EXPECT_TRUE(found == old || found == renewed) << step;
        EXPECT_THAT(verify_checkpoint(fs, path(step)), IsEmpty());
      }
      failing.reset();
      restart();
    }
  }
  EXPECT_GE(failures, 8);
  EXPECT_THAT(fs.list(path(1)), ::testing::Not(::testing::Contains(".tmp-METRICS")));
}

TEST_F(Retention, PruneAgreesWithTheJob) {
  for (int step : {10, 20, 30, 40, 50, 60}) save(step, kStart + step * 60);
  score(20, 0.9);
  score(30, 0.3);
  RetentionPolicy policy = best(2, 1);
  policy.keep_every_steps = 40;
  std::vector<std::string> removed;
  for (const CheckpointEntry& e : directory->surplus(policy)) removed.push_back(e.name);
  directory.reset();
  std::string out, json;
  prune_tool(fs, dir.path(), policy, PruneMode::dry_run, ToolFormat::text, out);
  prune_tool(fs, dir.path(), policy, PruneMode::dry_run, ToolFormat::json, json);
  EXPECT_THAT(out, AllOf(HasSubstr("step-000000060 stays: newest\n"),
                         HasSubstr("step-000000040 stays: every 40 steps\n"),
                         HasSubstr("step-000000020 stays: best accuracy (0.9)\n"),
                         HasSubstr("step-000000030 would be removed\n"), HasSubstr("\n2 checkpoints, ")));
  EXPECT_EQ(nlohmann::json::parse(json).at("removed"), nlohmann::json(removed));
  EXPECT_EQ(nlohmann::json::parse(json).at("kept").at("step-000000050"), "newest");
  restart();
  EXPECT_EQ(directory->retain(policy), removed);
  EXPECT_THAT(steps(), ElementsAre(60, 50, 40, 20));
}

// What cannot be read now may be whole: EIO and the like pass.
TEST_F(Retention, WhatCannotBeReadAtPresentStays) {
  for (const std::int64_t step : {10, 20, 30}) save(step);
  PosixFs posix;
  FaultFs faulty(posix);
  CheckpointDirectory job(faulty, dir.path());
  directory.reset();
  job.lock("run");
  for (int nth = 1; nth <= 6; ++nth) {  // MANIFEST and the shard of each
    SCOPED_TRACE(nth);
    for (const int code : {EIO, ESTALE, EMFILE}) {
      faulty.fail_nth(FsOp::open, nth, code);
      const auto surplus = job.surplus(RetentionPolicy{1, 10});
      EXPECT_THAT(surplus, IsEmpty());
      faulty.clear_faults();
    }
  }
}

TEST_F(Retention, PruneRemovesNothingWhenWhatItWouldKeepIsDamaged) {
  for (const std::int64_t step : {10, 20, 30}) save(step);
  directory.reset();
  testing::flip_bit(dir / (step_name(30) + "/" + shard_name(0, 1)), 4100);
  std::string out;
  const auto prune = [&](std::int64_t keep) {
    return error_of(
        [&] { prune_tool(fs, dir.path(), RetentionPolicy{keep}, PruneMode::remove, ToolFormat::text, out); });
  };
  EXPECT_THAT(prune(1),
              AllOf(HasSubstr("step-000000030, which would be kept as one of the newest 1, is damaged"),
                    HasSubstr("CRC block 0"), HasSubstr("nothing was removed")));
  EXPECT_EQ(scan_checkpoints(fs, dir.path()).size(), 3U);
}

TEST_F(Retention, AStepThatIsSavedAgainStaysPinned) {
  save(10);
  spit(dir / (step_name(10) + "/" + kPinnedName), "");
  save(10);
  save(20);
  EXPECT_TRUE(scan_checkpoints(fs, dir.path()).back().pinned);
  EXPECT_THAT(directory->retain(1), IsEmpty());
}

TEST_F(Retention, RefusesNegativeNumbers) {
  EXPECT_THAT(error_of([&] { directory->retain(RetentionPolicy{.keep = -1}); }),
              HasSubstr("argument: cannot keep -1 checkpoints"));
  EXPECT_THAT(error_of([&] { directory->retain(RetentionPolicy{.keep = 1, .keep_every_steps = -2}); }),
              HasSubstr("every -2 steps"));
  EXPECT_THAT(error_of([&] { directory->retain(RetentionPolicy{.keep = 1, .keep_every_hours = -2}); }),
              HasSubstr("-2 hours"));
}

TEST_F(Retention, AnEmptyDirectoryIsFine) { EXPECT_THAT(directory->retain(best(1, 1)), IsEmpty()); }

TEST(RetentionOfAConfig, TakesEveryKey) {
  CheckpointConfig config;
  config.keep = 3;
  config.keep_every_steps = 100;
  config.keep_every_hours = 0.5;
  EXPECT_FALSE(retention_of(config).best);
  const auto order = [&](const char* metric, BestMode mode) {
    config.keep_best = KeepBestConfig{metric, 2, mode};
    return retention_of(config).best->order;
  };
  EXPECT_EQ(order("accuracy", BestMode::automatic), MetricOrder::larger);
  EXPECT_EQ(order("top_3", BestMode::automatic), MetricOrder::larger);
  EXPECT_EQ(order("loss", BestMode::automatic), MetricOrder::smaller);
  EXPECT_EQ(order("perplexity", BestMode::automatic), MetricOrder::smaller);
  EXPECT_EQ(order("accuracy", BestMode::min), MetricOrder::smaller);
  EXPECT_EQ(order("loss", BestMode::max), MetricOrder::larger);
  const RetentionPolicy policy = retention_of(config);
  EXPECT_EQ(policy.keep, 3);
  EXPECT_EQ(policy.keep_every_steps, 100);
  EXPECT_EQ(policy.keep_every_hours, 0.5);
  EXPECT_EQ(policy.best->metric, "loss");
  EXPECT_EQ(policy.best->count, 2);
}

TEST_F(Retention, WhatIsNotFinitePushesOutNothingThatIs) {
  for (const std::int64_t step : {1, 2, 3}) save(step);
  for (const std::int64_t step : {4, 5, 6, 7}) {
    save(step, 0, step % 2 == 0 ? kNan : std::numeric_limits<double>::infinity());
    directory->retain(RetentionPolicy{.keep = 2});
    restart();
  }
  EXPECT_THAT(steps(), ElementsAre(7, 3, 2));
  EXPECT_EQ(reasons({.keep = 2}), (std::map<std::int64_t, std::string>{
                                      {7, "newest, though not finite"}, {3, "newest"}, {2, "newest"}}));
  save(8);
  directory->retain(RetentionPolicy{.keep = 2});
  EXPECT_THAT(steps(), ElementsAre(8, 3));
}

TEST_F(Retention, NoRuleButAPinKeepsWhatIsNotFinite) {
  for (const std::int64_t step : {10, 20, 30, 40}) save(step, kStart + step * kHour, step < 40 ? kNan : 1);
  for (const std::int64_t step : {10, 20}) score(step, 0.9);  // of the steps before, for all that is known
  score(40, 0.1);
  EXPECT_EQ(reasons({.keep = 1,
                     .keep_every_steps = 10,
                     .keep_every_hours = 1,
                     .best = RetentionPolicy::Best{"accuracy", 3, MetricOrder::larger}}),
            (std::map<std::int64_t, std::string>{
                {40, "newest"}, {30, "removed"}, {20, "removed"}, {10, "removed"}}));
  spit(join_path(path(20), kPinnedName), "");
  EXPECT_EQ(reasons({.keep = 1}).at(20), "pinned");
  EXPECT_EQ(reasons({.keep = 0}).at(10), "newest") << "0 keeps all";
}

TEST_F(Retention, PruneLeavesTheFiniteOnes) {
  save(1);
  save(2, 0, kNan);
  save(3, 0, kNan);
  std::string out;
  directory.reset();
  prune_tool(fs, dir.path(), {.keep = 1}, PruneMode::remove, ToolFormat::text, out);
  EXPECT_THAT(steps(), ElementsAre(3, 1)) << out;
  EXPECT_THAT(out, HasSubstr("step-000000002 removed"));
}

}  // namespace
}  // namespace varscope
