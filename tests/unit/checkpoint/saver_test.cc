// What docs/saver.md promises, in C++; retention, parts, warm starts and rollbacks also have tests of their
// own.
#include "checkpoint/restore/saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/tools/rollback_pin.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "worker/graph/session.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempDir;

// Variables of one store, with memory of their own: element i of the k-th has the value 100 k + i + `shift`.
class Values {
 public:
  explicit Values(const VariableStore& store, float shift = 0) {
    for (const Variable* v : store.variables()) {
      Tensor t(v->dtype(), v->shape());
      const auto x = t.as<float>();
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = 100.0F * static_cast<float>(tensors_.size()) + static_cast<float>(i) + shift;
      tensors_.emplace(v, std::move(t));
    }
  }
  Saver::Values lookup() {
    return [this](const Variable& v) { return tensors_.at(&v).view(); };
  }
  std::vector<float> of(const Variable& v) const {
    const auto x = tensors_.at(&v).as<float>();
    return {x.begin(), x.end()};
  }
  std::map<std::string, std::vector<float>> all() const {
    std::map<std::string, std::vector<float>> values;
    for (const auto& [v, tensor] : tensors_) values[v->name()] = of(*v);
    return values;
  }

 private:
  std::map<const Variable*, Tensor> tensors_;
};

std::vector<std::string> names_in_checkpoint(const std::string& path) {
  PosixFs fs;
  return whole_names(CheckpointReader::open(fs, path).manifest().variables);
}

// a/w [2, 3], a/b [3], c []; the local variable a/state.
class SaverTest : public ::testing::Test {
 protected:
  SaverTest() {
    auto a = store.scope("a");
    store.get_variable("w", {2, 3});
    store.get_variable("b", {3});
    store.get_local_variable("state", {4});
    auto root = store.reenter("");
    store.get_variable("c", Shape{});
  }
  const Variable* at(const char* name) const { return store.find(name); }
  std::string c() const { return dir / "c"; }
  std::vector<std::int64_t> steps() {
    std::vector<std::int64_t> all;
    for (const CheckpointEntry& e : scan_checkpoints(fs, c())) all.push_back(e.step);
    return all;
  }

  TempDir dir;
  PosixFs fs;
  VariableStore store;
};

TEST_F(SaverTest, AllGlobalVariablesAndNoLocalOnes) {
  Values before(store), after(store, 0.5F);
  const std::string path = Saver(store, before.lookup()).save(c(), 7);
  EXPECT_EQ(path, c() + "/step-000000007");
  EXPECT_THAT(names_in_checkpoint(path), ElementsAre("a/w", "a/b", "c"));
  EXPECT_THAT(verify_checkpoint(fs, path), IsEmpty());
  EXPECT_EQ(made_by(load_manifest(fs, path).manifest), Provenance::saver);
  const std::vector<float> state = after.of(*at("a/state"));
  const Saver::Restored restored = Saver(store, after.lookup()).restore(path);
  EXPECT_EQ(restored.step, 7);
  EXPECT_THAT(restored.extra, IsEmpty());
  for (const char* name : {"a/w", "a/b", "c"}) EXPECT_EQ(after.of(*at(name)), before.of(*at(name))) << name;
  EXPECT_EQ(after.of(*at("a/state")), state);
}

TEST_F(SaverTest, VariablesThatAreMadeLaterBelongToIt) {
  Values few(store);
  Saver saver(store, few.lookup());
  VariableStore other;
  Saver empty(other, few.lookup());
  EXPECT_EQ(error_of([&] { empty.save(c(), 1); }), "argument: the saver has no variables to save");
  other.get_variable("late", {2});
  Values late(other);
  Saver now(other, late.lookup());
  EXPECT_THAT(names_in_checkpoint(now.save(c(), 1)), ElementsAre("late"));
}

TEST_F(SaverTest, AListHasTheVariablesOwnNames) {
  Values values(store);
  const std::vector<const Variable*> list = {at("c"), at("a/state")};
  EXPECT_THAT(names_in_checkpoint(Saver(list, values.lookup()).save(c(), 1)), ElementsAre("c", "a/state"));
}

TEST_F(SaverTest, AMapRenamesInTheFile) {
  Values before(store), after(store, 0.5F);
  const std::map<std::string, const Variable*> names = {{"new/name", at("a/w")}, {"a/w", at("a/b")}};
  const std::string path = Saver(names, before.lookup()).save(c(), 1);
  EXPECT_THAT(names_in_checkpoint(path), ElementsAre("a/w", "new/name"));
  Saver(names, after.lookup()).restore(path);
  EXPECT_EQ(after.of(*at("a/w")), before.of(*at("a/w")));
  EXPECT_EQ(after.of(*at("a/b")), before.of(*at("a/b")));
  EXPECT_NE(after.of(*at("c")), before.of(*at("c")));
}

TEST_F(SaverTest, TwoOfOneNameAndOneUnderTwoNames) {
  Values values(store);
  VariableStore other;
  auto a = other.scope("a");
  const Variable* twin = &other.get_variable("w", {2, 3});
  const auto refused = [&](std::vector<const Variable*> list) {
    return error_of([&] { Saver(list, values.lookup()); });
  };
  EXPECT_THAT(refused({at("a/w"), twin}),
              AllOf(HasSubstr("argument: variable \"a/w\" ("), HasSubstr("would both be saved as \"a/w\"")));
  EXPECT_THAT(refused({at("c"), at("c")}), HasSubstr("given to the saver twice, as \"c\" and as \"c\""));
  EXPECT_THAT(
      error_of([&] {
        Saver(std::map<std::string, const Variable*>{{"x", at("c")}, {"y", at("c")}}, values.lookup());
      }),
      AllOf(HasSubstr("variable \"c\" ("), HasSubstr("twice, as \"x\" and as \"y\"")));
  EXPECT_THAT(refused({nullptr}), HasSubstr("was given no variable"));
  const std::pair<const char*, const char*> bad_names[] = {
      {"", "cannot save a variable as \"\": a name must not be empty"},
      {"a/", "cannot save a variable as \"a/\": the name of a variable cannot end with '/'"},
      {"__metadata__", "is no name for a variable: safetensors files use it"},
      {"a\n", "a name cannot have control characters"}};
  for (const auto& [name, words] : bad_names) {
    EXPECT_THAT(error_of([&, name = name] {
                  Saver(std::map<std::string, const Variable*>{{name, at("c")}}, values.lookup());
                }),
                HasSubstr(words));
  }
}

TEST_F(SaverTest, MaxToKeep) {
  Values values(store);
  for (int step : {1, 2, 3}) {
    Saver saver(store, values.lookup(), {.retention = {.keep = 2}});  // a new one each time: a restart
    saver.save(c(), step);
    EXPECT_THAT(saver.warnings(), IsEmpty());
  }
  EXPECT_THAT(steps(), ElementsAre(3, 2));
  Saver(store, values.lookup(), {.retention = {.keep = 1}}).save(c(), 4);
  EXPECT_THAT(steps(), ElementsAre(4));
}

TEST_F(SaverTest, EveryNStepsOrHoursPinnedAndBest) {
  Values values(store);
  const RetentionPolicy policy{.keep = 1,
                               .keep_every_steps = 4,
                               .keep_every_hours = 1,
                               .best = RetentionPolicy::Best{"loss", 1, MetricOrder::smaller}};
  for (int step = 1; step <= 9; ++step) {
    Saver saver(store, values.lookup(), {.retention = policy});
    const double loss = step == 6 ? 0.1 : 1.0 + step;
    saver.save(
        c(), step,
        {.evaluation = EvaluationRecord{step, {{"loss", loss}}}, .unix_time = 1'700'000'000 + step * 900});
    std::string out;
    if (step == 2) pin_tool(fs, c(), 2, PinChange::pin, ToolFormat::text, out);
  }
  // 9 newest, 8 and 4 by steps, 1, 5 and 9 by hours, 6 the best, 2 pinned
  EXPECT_THAT(steps(), ElementsAre(9, 8, 6, 5, 4, 2, 1));
}

TEST_F(SaverTest, LatestByScanAndVerificationAlsoInAMovedDirectory) {
  Values values(store);
  EXPECT_EQ(latest_checkpoint(c()), std::nullopt);
  Saver saver(store, values.lookup());
  for (int step : {1, 2, 3}) saver.save(c(), step);
  EXPECT_EQ(latest_checkpoint(c()), c() + "/step-000000003");
  testing::spit(c() + "/LATEST", "step-000000001 lies\n");
  EXPECT_EQ(latest_checkpoint(c()), c() + "/step-000000003");
  testing::flip_bit(c() + "/step-000000003/" + shard_name(0, 1), 4100);
  EXPECT_EQ(latest_checkpoint(c()), c() + "/step-000000002");
  const std::string moved = dir / "elsewhere";
  std::filesystem::rename(c(), moved);
  EXPECT_EQ(latest_checkpoint(moved), moved + "/step-000000002");
  const Saver::Restored restored = saver.restore(moved);
  EXPECT_EQ(restored.step, 2);
  ASSERT_EQ(restored.warnings.size(), 2U);
  EXPECT_THAT(restored.warnings[1], HasSubstr("falling back to step-000000002"));
  for (int step : {1, 2}) testing::flip_bit(moved + "/" + step_name(step) + "/" + shard_name(0, 1), 4100);
  EXPECT_THAT(error_of([&] { latest_checkpoint(moved); }),
              HasSubstr("no checkpoint in " + moved + " can be used"));
}

TEST_F(SaverTest, MissingKeysAreAllListedAndExtraOnesReported) {
  Values before(store), after(store, 0.5F);
  const std::vector<const Variable*> few = {at("c"), at("a/state")};
  const std::string path = Saver(few, before.lookup()).save(c(), 1);
  const auto untouched = after.all();
  const std::string words = error_of([&] { Saver(store, after.lookup()).restore(path); });
  EXPECT_EQ(words, "checkpoint: checkpoint " + path +
                       " does not fit the model (2 differences):\n"
                       "  variable \"a/w\" float32 [2, 3] is missing in the checkpoint\n"
                       "  variable \"a/b\" float32 [3] is missing in the checkpoint\nnothing was restored");
  EXPECT_EQ(after.all(), untouched);
  const std::vector<const Variable*> one = {at("c")};
  EXPECT_THAT(Saver(one, after.lookup()).restore(path).extra, ElementsAre("a/state"));
  EXPECT_EQ(after.of(*at("c")), before.of(*at("c")));
}

TEST_F(SaverTest, APartialRestoreLeavesMissingOnesAlone) {
  Values before(store), after(store, 0.5F);
  const std::vector<const Variable*> few = {at("c"), at("a/state")};
  const std::string path = Saver(few, before.lookup()).save(c(), 1);
  const std::vector<float> w = after.of(*at("a/w"));
  const Saver::Restored restored = Saver(store, after.lookup()).restore_partial(path);
  EXPECT_THAT(restored.missing, ElementsAre("a/w", "a/b"));
  EXPECT_THAT(restored.extra, ElementsAre("a/state"));
  EXPECT_EQ(after.of(*at("c")), before.of(*at("c")));
  EXPECT_EQ(after.of(*at("a/w")), w);
}

TEST_F(SaverTest, OtherShapesAndDtypesAreListedAndNothingIsAssigned) {
  Values before(store);
  const std::string path = Saver(store, before.lookup()).save(c(), 1);
  VariableStore other;
  auto a = other.scope("a");
  other.get_variable("w", {3, 2});
  auto root = other.reenter("");
  other.get_variable("c", Shape{});
  Values after(other, 0.5F);
  const auto untouched = after.all();
  const auto restore = [&] { Saver(other, after.lookup()).restore_partial(path); };
  EXPECT_THAT(error_of(restore),
              HasSubstr("variable \"a/w\" has shape [2, 3] in the checkpoint and [3, 2] in the model"));
  EXPECT_EQ(after.all(), untouched);
  VariableStore wide;
  wide.get_variable("c", Shape{}, {.dtype = DType::float64});
  const Tensor memory(DType::float64, Shape{});
  EXPECT_THAT(error_of([&] { Saver(wide, [&](const Variable&) { return memory.view(); }).restore(path); }),
              HasSubstr("variable \"c\" is float32 in the checkpoint and float64 in the model"));
}

TEST_F(SaverTest, DamageThatIsMetHalfWayAssignsNothing) {
  VariableStore big;
  big.get_variable("first", {1000});
  big.get_variable("last", {600'000});  // in later CRC blocks
  Values before(big), after(big, 0.5F);
  const std::string path = Saver(big, before.lookup()).save(c(), 1);
  testing::flip_bit(path + "/" + shard_name(0, 1), 2'000'000);
  const auto untouched = after.all();
  EXPECT_THAT(error_of([&] { Saver(big, after.lookup()).restore(path); }),
              HasSubstr("is damaged: CRC block 1"));
  EXPECT_EQ(after.all(), untouched);
}

TEST_F(SaverTest, AnyPartsFromAnyParts) {
  const auto make = [](VariableStore& s, int rows, int columns) -> const Variable& {
    Partitioner parts = [rows, columns](const Shape&, DType) {
      return std::vector<std::int64_t>{rows, columns};
    };
    auto scope = s.scope("s", {.partitioner = rows * columns > 1 ? parts : Partitioner()});
    return s.get_variable("v", {20, 6});
  };
  // The value of each element of the whole by its index.
  const auto check = [](const VariableStore& s, const Values& values) {
    for (const Variable* v : s.variables()) {
      const Slice box = v->spec().box();
      const std::vector<float> x = values.of(*v);
      for (std::int64_t i = 0; i < v->shape().n_elements(); ++i) {
        const std::int64_t row = i / v->shape()[1] + box.offset[0],
                           column = i % v->shape()[1] + box.offset[1];
        ASSERT_EQ(x[static_cast<std::size_t>(i)], static_cast<float>(row * 6 + column)) << v->name();
      }
    }
  };
  int step = 0;
  VariableStore whole;
  Saver::Values unused;
  const Variable& source = make(whole, 1, 1);
  Values original(whole);
  for (const auto& [rows, columns] : {std::pair(1, 1), {2, 1}, {10, 1}}) {
    // Into the parts by way of a checkpoint of the whole, and from there on.
    const std::string full = Saver(whole, original.lookup()).save(c(), ++step);
    VariableStore parts;
    const Variable& handle = make(parts, rows, columns);
    Values in_parts(parts, 0.25F);
    const Variable* list[] = {&handle};
    Saver(list, in_parts.lookup()).restore(full);
    check(parts, in_parts);
    const std::map<std::string, const Variable*> renamed = {{"new/name", &handle}};
    const std::string path = Saver(renamed, in_parts.lookup()).save(c(), ++step);
    EXPECT_THAT(names_in_checkpoint(path), ElementsAre("new/name"));
    for (const auto& [r, k] : {std::pair(1, 1), {2, 1}, {1, 3}}) {
      VariableStore wanted;
      const Variable& target = make(wanted, r, k);
      Values values(wanted, 0.75F);
      const std::map<std::string, const Variable*> names = {{"new/name", &target}};
      Saver(names, values.lookup()).restore(path);
      check(wanted, values);
    }
  }
  EXPECT_EQ(source.name(), "s/v");
}

TEST_F(SaverTest, ARollbackSetsNewerOnesAsideAndTheLineageSaysSo) {
  Values values(store);
  Saver saver(store, values.lookup());
  for (int step : {1, 2, 3}) saver.save(c(), step);
  std::string out;
  rollback_tool(fs, c(), 1, ToolFormat::text, out);
  EXPECT_EQ(saver.restore(c()).step, 1);
  EXPECT_THAT(lineage_text(fs, c()), AllOf(HasSubstr("\"event\":\"rollback\""),
                                           HasSubstr("\"set_aside\":[\"step-000000003\",\"step-000000002\"]"),
                                           HasSubstr("\"to\":\"step-000000001\"")));
  int aside = 0;
  for (const std::string& name : fs.list(c())) {
    if (!name.starts_with(kSupersededPrefix)) continue;
    ++aside;
    EXPECT_THAT(verify_checkpoint(fs, c() + "/" + name), IsEmpty());
  }
  EXPECT_EQ(aside, 2);
}

TEST_F(SaverTest, ASaveOfAnOlderStepSetsNewerOnesAsideToo) {
  Values values(store);
  Saver saver(store, values.lookup(), {.retention = {.keep = 2}});
  for (int step : {100, 200, 300}) saver.save(c(), step);
  const std::string path = saver.save(c(), 150);
  EXPECT_TRUE(fs.exists(path)) << "not what retention removes first";
  EXPECT_THAT(steps(), ElementsAre(150));
  EXPECT_EQ(latest_checkpoint(c()), path);
  EXPECT_THAT(lineage_text(fs, c()),
              HasSubstr("{\"event\":\"save\",\"set_aside\":[\"step-000000300\",\"step-000000200\"],\"to\":"
                        "\"step-000000150\""));
}

TEST_F(SaverTest, RefusesWhatItCannotSave) {
  Values values(store);
  Saver saver(store, values.lookup());
  EXPECT_EQ(error_of([&] { saver.save(c(), -1); }), "argument: cannot save as step -1");
  const Tensor wrong(DType::float32, {5});
  EXPECT_THAT(error_of([&] { Saver(store, [&](const Variable&) { return wrong.view(); }).save(c(), 1); }),
              HasSubstr("is float32 [2, 3], but the saver was given memory for float32 [5]"));
  auto s = store.scope("s");
  const Variable& batch = store.get_local_variable("rows", {Shape::kUnknown, 2});
  const Variable* list[] = {&batch};
  EXPECT_THAT(error_of([&] { Saver(list, values.lookup()); }), HasSubstr("what depends on the batch"));
  const Variable& sum = store.sum("s/sum", {at("a/b"), at("a/b")});
  EXPECT_THAT(error_of([&] {
                Saver(std::map<std::string, const Variable*>{{"x", &sum}}, values.lookup());
              }),
              HasSubstr("is put together from others"));
}

TEST_F(SaverTest, IsRefusedWhileAJobWrites) {
  Values values(store);
  CheckpointDirectory job(fs, c());
  job.lock("run-9");
  EXPECT_THAT(error_of([&] { Saver(store, values.lookup()).save(c(), 1); }),
              AllOf(HasSubstr("is in use by another job"), HasSubstr("run-9")));
}

TEST_F(SaverTest, AFailedSaveLeavesTheOldOne) {
  Values values(store);
  FaultFs faulty(fs);
  Saver saver(store, values.lookup(), {.retention = {.keep = 1}, .fs = &faulty});
  saver.save(c(), 1);
  int failed = 0;
  for (const FsOp op : {FsOp::create, FsOp::write, FsOp::sync, FsOp::rename}) {
    faulty.fail_nth(op, 1, ENOSPC);
    failed += error_of([&] { saver.save(c(), 2); }) != "no error" ? 1 : 0;
    EXPECT_EQ(latest_checkpoint(c()), c() + "/step-000000001") << testing::to_string(op);
    faulty.clear_faults();
  }
  EXPECT_EQ(failed, 4);
  saver.save(c(), 2);
  EXPECT_THAT(steps(), ElementsAre(2));
}

TEST_F(SaverTest, SavesASession) {
  Graph graph;
  const NodeId w = graph.variable(*at("a/w"));
  Session trained(graph, 1), fresh(graph, 2);
  const std::vector<const Variable*> list = {at("a/w")};
  Saver(list, [&](const Variable& v) { return trained.value(v); }).save(c(), 1);
  EXPECT_NE(std::memcmp(trained.value(*at("a/w")).bytes(), fresh.value(*at("a/w")).bytes(), 24), 0);
  Saver(list, [&](const Variable& v) { return fresh.value(v); }).restore(c());
  EXPECT_EQ(std::memcmp(trained.run({w}, {})[0].view().bytes(), fresh.run({w}, {})[0].view().bytes(), 24), 0);
}

}  // namespace
}  // namespace varscope
