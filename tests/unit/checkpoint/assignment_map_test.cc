// Which values of a checkpoint a warm start takes, and where they go.
#include "checkpoint/restore/assignment_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/restore/warm_start.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/partitioned_model.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_variable;
using ::testing::Not;
using ::testing::Pair;
using Names = std::vector<std::string>;
using Entries = std::vector<AssignmentMap::Entry>;

AssignmentMap::Result resolve(Entries entries, const Names& model, const Names& checkpoint) {
  return AssignmentMap(std::move(entries)).resolve(model, checkpoint);
}

std::string why(Entries entries, const Names& model, const Names& checkpoint) {
  const AssignmentMap::Result r = resolve(std::move(entries), model, checkpoint);
  return r.unused.empty() ? "used" : r.unused[0].why;
}

TEST(AssignmentMap, AScopeGoesToAScope) {
  const auto r = resolve({{"a/", "b/"}}, {"b/x", "b/deep/y", "c/x"}, {"a/x", "a/deep/y", "c/x"});
  EXPECT_THAT(r.sources, ElementsAre(Pair("b/deep/y", "a/deep/y"), Pair("b/x", "a/x")));
  EXPECT_THAT(r.uncaptured, ElementsAre("c/x"));
  EXPECT_THAT(r.unused, IsEmpty());
}

TEST(AssignmentMap, AVariableGoesToAVariable) {
  const auto r = resolve({{"a/x", "b/y"}}, {"b/x", "b/y"}, {"a/x", "a/y"});
  EXPECT_THAT(r.sources, ElementsAre(Pair("b/y", "a/x")));
  EXPECT_THAT(r.uncaptured, ElementsAre("b/x"));
}

TEST(AssignmentMap, TheRootGoesToAScopeAndAScopeToTheRoot) {
  EXPECT_THAT(resolve({{"/", "b/"}}, {"b/x", "b/a/y", "x"}, {"x", "a/y"}).sources,
              ElementsAre(Pair("b/a/y", "a/y"), Pair("b/x", "x")));
  EXPECT_THAT(resolve({{"a/", "/"}}, {"x", "deep/y"}, {"a/x", "a/deep/y"}).sources,
              ElementsAre(Pair("deep/y", "a/deep/y"), Pair("x", "a/x")));
}

TEST(AssignmentMap, TheLongestPrefixWins) {
  // All three forms in one map: b/y by its own name, then the scope, and the root for what the scope lacks.
  const Names checkpoint = {"a/x", "a/w", "a/y", "y", "w", "z"};
  EXPECT_THAT(resolve({{"/", "b/"}, {"a/", "b/"}, {"a/x", "b/y"}}, {"b/y", "b/w", "b/z"}, checkpoint).sources,
              ElementsAre(Pair("b/w", "a/w"), Pair("b/y", "a/x"), Pair("b/z", "z")));
  // The order in which they were written does not matter.
  EXPECT_THAT(resolve({{"a/x", "b/y"}, {"a/", "b/"}, {"/", "b/"}}, {"b/y", "b/w", "b/z"}, checkpoint).sources,
              ElementsAre(Pair("b/w", "a/w"), Pair("b/y", "a/x"), Pair("b/z", "z")));
  // The longer one in the model, whatever they are called in the checkpoint.
  EXPECT_THAT(resolve({{"long/name/", "b/"}, {"s/", "b/deep/"}}, {"b/deep/v", "b/v"},
                      {"long/name/deep/v", "long/name/v", "s/v"})
                  .sources,
              ElementsAre(Pair("b/deep/v", "s/v"), Pair("b/v", "long/name/v")));
}

TEST(AssignmentMap, AScopeDoesNotCaptureANameThatOnlyBeginsAlike) {
  const Names names = {"useful_scope/v", "useful_scope_1/v", "useful_scope"};
  const auto r = resolve({{"useful_scope/", "useful_scope/"}}, names, names);
  EXPECT_THAT(r.sources, ElementsAre(Pair("useful_scope/v", "useful_scope/v")));
  EXPECT_THAT(r.uncaptured, ElementsAre("useful_scope_1/v", "useful_scope"));
  EXPECT_THAT(
      resolve({{"old/", "useful_scope/"}}, {"useful_scope_1/v", "useful_scope/v"}, {"old/v", "old_1/v"})
          .sources,
      ElementsAre(Pair("useful_scope/v", "old/v")));
}

TEST(AssignmentMap, OneVariableOfTheCheckpointMayGoToSeveral) {
  EXPECT_THAT(
      resolve({{"tower/", "left/"}, {"tower/w", "right/w"}}, {"left/w", "right/w"}, {"tower/w"}).sources,
      ElementsAre(Pair("left/w", "tower/w"), Pair("right/w", "tower/w")));
}

TEST(AssignmentMap, UnusedEntriesAreToldWithTheReason) {
  const Names model = {"body/w", "body/b", "head/w"}, checkpoint = {"encoder/w", "encoder/b", "x"};
  EXPECT_EQ(why({{"encoder/", "bodi/"}}, model, checkpoint),
            "the model has nothing below \"bodi/\"; did you mean \"body/\"?");
  EXPECT_EQ(why({{"encoder/v", "body/v"}}, model, checkpoint),
            "the model has no variable \"body/v\"; did you mean \"body/w\"?");
  EXPECT_EQ(why({{"encodre/", "body/"}}, model, checkpoint),
            "the checkpoint has nothing below \"encodre/\"; did you mean \"encoder/\"?");
  EXPECT_EQ(why({{"zzzzzz", "body/w"}}, model, checkpoint), "the checkpoint has no variable \"zzzzzz\"");
  EXPECT_EQ(why({{"/", "head/"}}, model, checkpoint),
            "no name below \"/\" in the checkpoint is one below \"head/\" in the model");
  const auto r =
      resolve({{"encoder/", "body/"}, {"encoder/w", "body/w"}, {"encoder/b", "body/b"}}, model, checkpoint);
  ASSERT_EQ(r.unused.size(), 1U);
  EXPECT_EQ(r.unused[0].entry, 0U);
  EXPECT_EQ(r.unused[0].why, "other entries with longer prefixes take all of its variables");
  EXPECT_EQ(why({{"a", "b"}}, {}, {}), "the model has no variable \"b\"");
}

TEST(AssignmentMap, WithoutAMapEveryVariableKeepsItsName) {
  const auto r = AssignmentMap().resolve({"a/x", "y"}, {"y", "z"});
  EXPECT_THAT(r.sources, ElementsAre(Pair("y", "y")));
  EXPECT_THAT(r.uncaptured, ElementsAre("a/x"));
}

TEST(AssignmentMap, RefusesMapsThatMakeNoSense) {
  EXPECT_THAT(error_of([] {
                AssignmentMap(Entries{{"a/", "b"}});
              }),
              AllOf(HasSubstr("argument: assignment \"a/\" -> \"b\""), HasSubstr("a scope (\"a/\")")));
  EXPECT_THAT(error_of([] { AssignmentMap(Entries{{"a", "b/"}}); }), HasSubstr("a scope (\"b/\")"));
  EXPECT_THAT(error_of([] { AssignmentMap(Entries{{"", "b"}}); }), HasSubstr("must not be empty"));
  EXPECT_EQ(error_of([] {
              AssignmentMap(Entries{{"a", "v"}, {"b", "v"}});
            }),
            "argument: \"a\" and \"b\" are both assigned to variable \"v\"");
}

// --- with a checkpoint

TEST(WarmStart, ListsAllOtherShapesAndDtypesAtOnce) {
  testing::Saved saved(testing::small_model(1), 2);
  const Manifest manifest = load_manifest(saved.fs, saved.path).manifest;
  const VariableTable model({make_variable("new/weights", DType::float32, {61, 90}),
                             make_variable("new/biases", DType::float64, {61}),
                             make_variable("scale", DType::float32, {2})});
  const std::string words = error_of([&] {
    WarmStart("c/step-5", manifest, model, AssignmentMap(Entries{{"hidden/", "new/"}, {"scale", "scale"}}));
  });
  EXPECT_THAT(words,
              AllOf(HasSubstr("checkpoint: checkpoint c/step-5 does not fit the model (3 differences)"),
                    HasSubstr("variable \"hidden/weights\" for \"new/weights\" has shape [90, 61] in the "
                              "checkpoint and [61, 90] in the model"),
                    HasSubstr("variable \"hidden/biases\" for \"new/biases\" is float32 in the checkpoint "
                              "and float64 in the model"),
                    HasSubstr("variable \"scale\" has shape [] in the checkpoint and [2] in the model, and "
                              "is bfloat16 in the checkpoint and float32 in the model"),
                    HasSubstr("nothing was assigned")));
}

TEST(WarmStart, SaysWhatIsTakenAndWhatIsLeft) {
  testing::Saved saved(testing::small_model(1), 2);
  const Manifest manifest = load_manifest(saved.fs, saved.path).manifest;
  const VariableTable model({make_variable("new/weights", DType::float32, {90, 61}),
                             make_variable("new/head", DType::float32, {3})});
  const WarmStart start("c", manifest, model, AssignmentMap(Entries{{"hidden/", "new/"}}));
  EXPECT_EQ(start.n_captured(), 1U);
  EXPECT_THAT(start.uncaptured(), ElementsAre("new/head"));
  EXPECT_THAT(start.extra(), ElementsAre("hidden/biases", "norm/mean", "counts", "scale", "nothing"));
  EXPECT_EQ(start.saved_as(model[0])->name, "hidden/weights");
  EXPECT_FALSE(start.saved_as(model[1]));
  EXPECT_FALSE(WarmStart().saved_as(model[0]));
}

TEST(WarmStart, ReadsAnyPartsFromAnyPartsUnderAnotherName) {
  const testing::Model whole = testing::tiny_model(3);
  for (const std::vector<std::int64_t>& saved_as : {std::vector<std::int64_t>{1, 1}, {2, 1}, {1, 3}}) {
    testing::Saved saved(testing::partitioned(whole, saved_as), 2);
    CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
    for (const std::vector<std::int64_t>& wanted_as : {std::vector<std::int64_t>{1, 1}, {4, 1}, {1, 2}}) {
      const VariableTable model(testing::partition(make_variable("b/v", DType::float32, {4, 3}), wanted_as));
      const WarmStart start("c", reader.manifest(), model, AssignmentMap(Entries{{"w", "b/v"}}));
      for (const VariableSpec& v : model.variables()) {
        const Tensor out(v.dtype, v.shape);
        reader.read(*start.saved_as(v), "", testing::whole(v.shape), out.view());
        const auto due = testing::cut_out(whole.value("w"), v.box());
        EXPECT_EQ(std::memcmp(out.view().bytes(), due.data(), due.size()), 0) << v.name;
      }
    }
  }
}

}  // namespace
}  // namespace varscope
