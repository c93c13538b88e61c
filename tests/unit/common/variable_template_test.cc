// Templates and threads; and what make_variable adds.
#include <functional>
#include <thread>

#include "tests/support/references/scope_cases.h"

namespace varscope {
namespace {

using testing::expect_words;
using testing::names;
using testing::Names;
using testing::ScopeCase;
using testing::thrown;

const ScopeCase kTemplates[] = {
    {"CallsShareVariables",
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
    {"CallsTakeArguments",
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
    {"TheScopeOfTheFirstCallStays",
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
    {"ALaterTrainableVariable",
     [] {
       VariableStore store;
       auto t = store.make_template("s1", [&store] { store.make_variable("bare", {1}); });
       t();
       expect_words(thrown([&] { t(); }), {"template \"s1\"", "trainable", "\"s1_1/bare\"", "get_variable"});
     }},
    {"ALaterGetOfANewVariable",
     [] {
       VariableStore store;
       auto t = store.make_template("s1", [&store](const char* name) { store.get_variable(name, {1}); });
       t("a");
       expect_words(thrown([&] { t("b"); }), {"\"s1/b\"", "does not exist"});
       EXPECT_EQ(thrown([&] { t("a"); }), "no error");
     }},
    {"LaterVariablesThatAreNotTrained",
     [] {
       VariableStore store;
       auto t =
           store.make_template("s1", [&store] { store.make_variable("count", {}, {.trainable = false}); });
       t();
       EXPECT_EQ(thrown([&] { t(); }), "no error");
     }},
    {"AFirstCallThatFailed",
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
    {"ABodyThatCallsTheTemplateAgainShares",
     [] {
       VariableStore store;
       Template<std::function<const Variable*(int)>> t(store, "s", [&](int depth) {
         const Variable* mine = &store.get_variable("v", {1});
         if (depth > 0) {
           EXPECT_EQ(t(depth - 1), mine);
         }
         return mine;
       });
       EXPECT_EQ(t(2)->name(), "s/v");
       EXPECT_EQ(t(1)->name(), "s/v");
       EXPECT_EQ(store.variables().size(), 1U);
     }},
    {"ABodyThatCallsTheTemplateBeforeItsVariablesShares",
     [] {
       VariableStore store;
       Template<std::function<const Variable*(int)>> t(store, "s", [&](int depth) {
         const Variable* inner = depth > 0 ? t(depth - 1) : nullptr;
         const auto scope = store.scope("a", {.reuse = Reuse::automatic});
         const Variable* mine = &store.get_variable("v", {1});
         if (inner != nullptr) {
           EXPECT_EQ(inner, mine);
         }
         return mine;
       });
       EXPECT_EQ(t(2)->name(), "s/a/v");
       EXPECT_EQ(t(0)->name(), "s/a/v");
       EXPECT_EQ(store.variables().size(), 1U);
     }},
    {"AFirstCallThatFailsAfterAnInnerOneIsAFirstCallAgain",
     [] {
       VariableStore store;
       Template<std::function<void(bool)>> t(store, "s", [&](bool outer) {
         const auto scope = store.scope("a", {.reuse = Reuse::automatic});
         store.get_variable("v", {1});
         if (!outer) return;
         t(false);
         if (store.find("s/a/w") == nullptr && store.find("stop") == nullptr) {
           store.make_variable("elsewhere", {1});
           const auto root = store.reenter("");
           store.get_variable("stop", {1});
           fail(ErrorKind::argument, "on purpose");
         }
         store.get_variable("w", {1});
       });
       EXPECT_EQ(thrown([&] { t(true); }), "argument: on purpose");
       EXPECT_EQ(thrown([&] { t(true); }), "no error");
       EXPECT_NE(store.find("s/a/w"), nullptr);
     }},
    {"ItsScopeIsMadeNow",
     [] {
       VariableStore store;
       const auto get = [&store] { return store.get_variable("v", {1}).name(); };
       auto outside = store.make_template("t", get, {.create_scope_now = true});
       EXPECT_EQ(outside.scope_name(), "t");
       EXPECT_EQ(store.unique_name("t"), "t") << "no name scope was opened";
       const auto scope = store.scope("scope");
       EXPECT_EQ(outside(), "t/v");
       EXPECT_EQ(outside(), "t/v");
       auto second = store.make_template("t", get, {.create_scope_now = true});
       auto third = store.make_template("t", get);
       EXPECT_EQ(third(), "scope/t_1/v");
       EXPECT_EQ(second(), "scope/t/v");
     }},
    {"AUniqueNameIsTakenAsItIs",
     [] {
       VariableStore store;
       const auto get = [&store] { return store.get_variable("v", {1}).name(); };
       auto first = store.make_template("t", get, {.unique_name = "here"});
       auto second = store.make_template("t", get, {.unique_name = "here"});
       EXPECT_EQ(first(), "here/v");
       EXPECT_EQ(first(), "here/v");
       expect_words(thrown([&] { second(); }), {"\"here/v\"", "already exists"});
       auto now = store.make_template("t", get, {.create_scope_now = true, .unique_name = "now"});
       EXPECT_EQ(now.scope_name(), "now");
       expect_words(
           thrown([&] { store.make_template("t", get, {.create_scope_now = true, .unique_name = "a b"}); }),
           {"\"a b\"", "scope"});
     }},
    {"ItsCustomGetterRunsForEachOfItsVariables",
     [] {
       VariableStore store;
       Names seen;
       const CustomGetter spy = [&](GetterCall& call) -> Variable& {
         seen.push_back(call.name);
         return call.next();
       };
       const auto outer = store.scope("outer");
       auto t = store.make_template("t", [&store] { return store.get_variable("v", {1}).name(); },
                                    {.custom_getter = spy});
       t();
       t();
       store.get_variable("w", {1});
       EXPECT_EQ(seen, (Names{"outer/t/v", "outer/t/v"}));
     }},
};

const ScopeCase kThreads[] = {
    {"TheSecondThreadFindsTheVariableTaken",
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
    {"AThreadStartsAtTheRoot",
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
    {"ManyThreadsShareVariables",
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

VARSCOPE_SCOPE_CASES(TemplateTable, kTemplates);
VARSCOPE_SCOPE_CASES(ThreadTable, kThreads);

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

TEST(MakeVariable, IsMadeUniqueBesideAPartitionedVariable) {
  VariableStore store;
  store.get_variable("w", {4}, {.partitioner = fixed_size_partitioner(2)});
  EXPECT_EQ(store.make_variable("w", {4}).name(), "w_1");
  EXPECT_EQ(store.make_variable("w", {4}).name(), "w_2");
  EXPECT_EQ(store.make_variable("w/part_0", {4}).name(), "w/part_0_1");
  EXPECT_EQ(store.find("w")->combine(), Combine::concat);
}

TEST(MakeVariable, TakesNoNameWhenItFails) {
  VariableStore store;
  EXPECT_NE(thrown([&] { store.make_variable("v", {Shape::kUnknown}); }), "no error");
  EXPECT_NE(thrown([&] { store.make_variable("v", {2}, {.initializer = InitializerFor()}); }), "no error");
  EXPECT_NE(thrown([&] { store.make_variable("v", {2}, {.average_decay = 0.5}); }), "no error");
  EXPECT_EQ(store.make_variable("v", {2}).name(), "v");
}

TEST(MakeVariable, CallsNoGetter) {
  VariableStore store;
  const CustomGetter getter = [](GetterCall& call) -> Variable& { return call.next(); };
  expect_words(thrown([&] { store.make_variable("v", {2}, {.custom_getter = getter}); }),
               {"\"v\"", "no custom getter", "get_variable"});
}

}  // namespace
}  // namespace varscope
