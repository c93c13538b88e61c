// Collections, local variables, regularization losses.
#include "tests/support/references/scope_cases.h"

namespace varscope {
namespace {

using testing::expect_words;
using testing::names;
using testing::Names;
using testing::ScopeCase;
using testing::thrown;

const ScopeCase kCollections[] = {
    {"GlobalAndTrainable",
     [] {
       VariableStore store;
       store.get_variable("a", {1});
       store.get_variable("b", {1}, {.trainable = false});
       EXPECT_EQ(names(store.collection(collections::kGlobal)), (Names{"a", "b"}));
       EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"a"});
       EXPECT_TRUE(store.collection("no such").empty());
     }},
    {"CollectionsOfAScope",
     [] {
       VariableStore store;
       {
         const auto s = store.scope("foo_");
         store.get_variable("a", {1});
       }
       {
         const auto s = store.scope("foo");
         store.get_variable("b", {1});
         const auto inner = store.scope("x");
         store.get_variable("c", {1});
       }
       EXPECT_EQ(names(store.collection(collections::kGlobal, "foo")), (Names{"foo/b", "foo/x/c"}));
       EXPECT_EQ(names(store.collection(collections::kGlobal, "foo_")), Names{"foo_/a"});
       EXPECT_EQ(names(store.collection(collections::kGlobal)), (Names{"foo_/a", "foo/b", "foo/x/c"}));
     }},
    {"NamedCollectionsReplaceGlobal",
     [] {
       VariableStore store;
       const std::vector<std::string> mine = {"mine", "mine"};
       store.get_variable("a", {1}, {.collections = mine});
       EXPECT_TRUE(store.collection(collections::kGlobal).empty());
       EXPECT_EQ(names(store.collection("mine")), Names{"a"});
       EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"a"});
       EXPECT_EQ(mine, (std::vector<std::string>{"mine", "mine"}));
     }},
    {"TrainableIsEnteredOnce",
     [] {
       VariableStore store;
       store.get_variable("a", {1}, {.collections = Names{collections::kTrainable}});
       EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"a"});
     }},
    {"LocalVariables",
     [] {
       VariableStore store;
       const auto outer = store.scope("outer", {.trainable = true,
                                                .regularizer = Regularizer::l2(1),
                                                .constraint = Constraint::non_neg(),
                                                .partitioner = fixed_size_partitioner(2)});
       const Names foo = {"foo"};
       const Variable& w = store.get_local_variable("w", {4}, {.trainable = true, .collections = foo});
       EXPECT_EQ(w.name(), "outer/w");
       EXPECT_TRUE(w.is_local());
       EXPECT_FALSE(w.trainable());
       EXPECT_TRUE(w.parts().empty());
       EXPECT_FALSE(w.spec().constraint.exists());
       EXPECT_EQ(names(store.collection(collections::kLocal)), Names{"outer/w"});
       EXPECT_EQ(names(store.collection("foo")), Names{"outer/w"});
       EXPECT_TRUE(store.collection(collections::kTrainable).empty());
       EXPECT_TRUE(store.collection(collections::kGlobal).empty());
       EXPECT_TRUE(store.regularization_losses().empty());
       EXPECT_EQ(store.table().size(), 0U) << "never on a server, not saved";
       EXPECT_EQ(foo, Names{"foo"});
       EXPECT_FALSE(store.get_variable("g", {}).is_local());
     }},
    {"LocalVariablesObeyReuse",
     [] {
       VariableStore store;
       auto outer = store.scope("outer");
       const Variable& w = store.get_local_variable("w", {4});
       expect_words(thrown([&] { store.get_local_variable("w", {4}); }), {"\"outer/w\"", "already exists"});
       outer.reuse_variables();
       EXPECT_EQ(&store.get_local_variable("w", {4}), &w);
       EXPECT_EQ(&store.get_local_variable("w"), &w);
       expect_words(thrown([&] { store.get_local_variable("w", {5}); }), {"\"outer/w\"", "shape"});
       expect_words(thrown([&] { store.get_local_variable("x", {4}); }), {"\"outer/x\"", "does not exist"});
     }},
    {"ARowForEachSample",
     [] {
       VariableStore store;
       const Variable& w = store.get_local_variable("state", {Shape::kUnknown, 3});
       EXPECT_EQ(w.shape(), (Shape{Shape::kUnknown, 3}));
       EXPECT_EQ(w.spec().initializer, Initializer::constant(0));
       expect_words(thrown([&] {
                      store.get_local_variable("x", {3, Shape::kUnknown});
                    }),
                    {"\"x\"", "shape [3, ?]", "but the first"});
       expect_words(thrown([&] { store.get_variable("x", {Shape::kUnknown, 3}); }), {"\"x\"", "[?, 3]"});
     }},
    {"LossesAreCollectedByScope",
     [] {
       VariableStore store;
       const auto outer = store.scope("outer", {.regularizer = Regularizer::l2(0.5)});
       store.get_variable("a", {1});
       {
         const auto inner = store.scope("inner");
         store.get_variable("b", {1}, {.trainable = false});
       }
       {
         const auto other = store.scope("inner2");
         store.get_variable("c", {1});
       }
       ASSERT_EQ(store.regularization_losses().size(), 3U);
       const auto inside = store.regularization_losses("outer/inner");
       ASSERT_EQ(inside.size(), 1U);
       EXPECT_EQ(inside[0].name, "outer/inner/b/Regularizer");
       EXPECT_EQ(inside[0].variable, store.find("outer/inner/b"));
       EXPECT_TRUE(store.regularization_losses("none").empty());
     }},
    {"APartitionedVariableHasALossPerPart",
     [] {
       VariableStore store;
       store.get_variable("v", {5},
                          {.regularizer = Regularizer::l1(2), .partitioner = fixed_size_partitioner(2)});
       const auto losses = store.regularization_losses();
       ASSERT_EQ(losses.size(), 2U);
       EXPECT_EQ(losses[0].name, "v/part_0/Regularizer");
       EXPECT_EQ(losses[1].variable, store.find("v/part_1"));
     }},
};

VARSCOPE_SCOPE_CASES(CollectionTable, kCollections);

}  // namespace
}  // namespace varscope
