// Rows 72 to 75 of the table of variable scopes: templates and threads; and what make_variable adds.
#include <thread>

#include "tests/support/references/scope_rows.h"

namespace varscope {
namespace {

using testing::expect_words;
using testing::names;
using testing::Names;
using testing::ScopeRow;
using testing::thrown;

const ScopeRow kTemplates[] = {
    {72, "CallsShareVariables",
     [] {
       VariableStore store;
       const auto f = [&store]() -> Variable& { return store.get_variable("v", {1}); };
       auto first = store.make_template("s1", f);
       auto second = store.make_template("s1", f);
       EXPECT_EQ(first.scope_name(), "");
       const Variable& v = first();
       EXPECT_EQ(v.name(), "s1/v");
       EXPECT_EQ(&first(), &v);
       EXPECT_EQ(second().name(), "s1_1/v");
       EXPECT_EQ(first.scope_name(), "s1");
       EXPECT_EQ(second.scope_name(), "s1_1");
       EXPECT_EQ(store.variables().size(), 2U);
     }},
    {72, "CallsTakeArguments",
     [] {
       VariableStore store;
       auto scaled = store.make_template("scaled", [&store](int factor, std::string& log) {
         log += store.get_variable("v", {1}).name() + " ";
         return 2 * factor;
       });
       std::string log;
       EXPECT_EQ(scaled(3, log), 6);
       EXPECT_EQ(scaled(4, log), 8);
       EXPECT_EQ(log, "scaled/v scaled/v ");
     }},
    {73, "TheScopeOfTheFirstCallStays",
     [] {
       VariableStore store;
       auto t = store.make_template("s1", [&store] { return store.get_variable("v", {1}).name(); });
       {
         const auto scope = store.scope("scope");
         EXPECT_EQ(t(), "scope/s1/v");
       }
       const auto scope = store.scope("scope2");
       EXPECT_EQ(t(), "scope/s1/v");
       EXPECT_EQ(store.current_scope(), "scope2");
     }},
    {74, "ALaterTrainableVariable",
     [] {
       VariableStore store;
       auto t = store.make_template("s1", [&store] { store.make_variable("bare", {1}); });
       t();
       expect_words(thrown([&] { t(); }), {"template \"s1\"", "trainable", "\"s1_1/bare\"", "get_variable"});
     }},
    {74, "ALaterGetOfANewVariable",
     [] {
       VariableStore store;
       auto t = store.make_template("s1", [&store](const char* name) { store.get_variable(name, {1}); });
       t("a");
       expect_words(thrown([&] { t("b"); }), {"\"s1/b\"", "does not exist"});
       EXPECT_EQ(thrown([&] { t("a"); }), "no error");
     }},
    {74, "LaterVariablesThatAreNotTrained",
     [] {
       VariableStore store;
       auto t =
           store.make_template("s1", [&store] { store.make_variable("count", {}, {.trainable = false}); });
       t();
       EXPECT_EQ(thrown([&] { t(); }), "no error");
     }},
    {74, "AFirstCallThatFailed",
     [] {
       VariableStore store;
       auto t = store.make_template("s1", [&store](bool fails) {
         if (fails) fail(ErrorKind::argument, "on purpose");
         return store.get_variable("v", {1}).name();
       });
       EXPECT_EQ(thrown([&] { t(true); }), "argument: on purpose");
       EXPECT_EQ(store.current_scope(), "");
       EXPECT_EQ(t(false), "s1/v");
       EXPECT_EQ(t(false), "s1/v");
     }},
};

const ScopeRow kThreads[] = {
    {75, "TheSecondThreadFindsTheVariableTaken",
     [] {
       VariableStore store;
       const auto make = [&] {
         const auto foo = store.scope("foo");
         store.get_variable("v", {1});
       };
       std::string first, second;
       std::thread([&] { first = thrown(make); }).join();
       std::thread([&] { second = thrown(make); }).join();
       EXPECT_EQ(first, "no error");
       expect_words(second, {"\"foo/v\"", "already exists"});
     }},
    {75, "AThreadStartsAtTheRoot",
     [] {
       VariableStore store;
       const auto outer = store.scope("outer", {.reuse = Reuse::automatic});
       std::string path = "unset", made, next;
       Reuse reuse = Reuse::yes;
       std::thread([&] {
         path = store.current_scope();
         reuse = store.current_reuse();
         made = store.default_scope("outer").name();
         const auto entered = store.reenter(outer);
         next = store.get_variable("v", {1}).name();
       }).join();
       EXPECT_EQ(path, "");
       EXPECT_EQ(reuse, Reuse::no);
       EXPECT_EQ(made, "outer") << "counters are a thread's own";
       EXPECT_EQ(next, "outer/v");
       EXPECT_EQ(store.current_scope(), "outer");
     }},
    // For the thread sanitizer, and for the order of creation.
    {75, "ManyThreadsShareVariables",
     [] {
       constexpr int kThreads = 4, kVariables = 50;
       VariableStore store;
       std::vector<std::vector<const Variable*>> seen(kThreads);
       std::vector<std::thread> threads;
       for (int t = 0; t < kThreads; ++t) {
         threads.emplace_back([&, t] {
           const auto shared = store.scope("shared", {.reuse = Reuse::automatic});
           for (int i = 0; i < kVariables; ++i) {
             const auto inner = store.scope("s" + std::to_string(i));
             seen[static_cast<std::size_t>(t)].push_back(&store.get_variable("v", {2}));
           }
         });
       }
       for (std::thread& t : threads) t.join();
       for (const auto& s : seen) EXPECT_EQ(s, seen[0]);
       EXPECT_EQ(store.variables().size(), static_cast<std::size_t>(kVariables));
       EXPECT_EQ(store.collection(collections::kTrainable), store.variables());
       for (int i = 0; i < kVariables; ++i)
         EXPECT_EQ(store.variables()[static_cast<std::size_t>(i)]->index(), i);
     }},
};

VARSCOPE_SCOPE_ROWS(TemplateTable, kTemplates);
VARSCOPE_SCOPE_ROWS(ThreadTable, kThreads);

TEST(MakeVariable, TakesNothingFromTheVariableScope) {
  VariableStore store;
  const auto s = store.scope("s", {.initializer = Initializer::constant(1),
                                   .dtype = DType::float64,
                                   .trainable = false,
                                   .regularizer = Regularizer::l2(1)});
  const Variable& v = store.make_variable("v", {2, 2});
  EXPECT_EQ(v.name(), "s/v");
  EXPECT_EQ(v.dtype(), DType::float32);
  EXPECT_TRUE(v.trainable());
  EXPECT_EQ(v.spec().initializer, Initializer::glorot_uniform({2, 2}));
  EXPECT_TRUE(store.regularization_losses().empty());
  EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"s/v"});
}

TEST(MakeVariable, ATensorMustHaveItsShape) {
  VariableStore store;
  const VariableOptions tensor{.initializer =
                                   Initializer::values(Tensor::of<std::int32_t>({2}, {1, 2}).view())};
  EXPECT_EQ(store.make_variable("v", {2}, tensor).dtype(), DType::int32);
  expect_words(thrown([&] { store.make_variable("v", {3}, tensor); }), {"\"v\"", "[3]", "[2]"});
}

}  // namespace
}  // namespace varscope
