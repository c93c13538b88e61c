// Variable scopes: names, nesting, re-entry, reuse.
#include "common/variables/variable_scope.h"

#include <memory>

#include "tests/support/references/scope_cases.h"

namespace varscope {
namespace {

using testing::expect_words;
using testing::names;
using testing::Names;
using testing::ScopeCase;
using testing::thrown;

const ScopeCase kNaming[] = {
    {"RootNames",
     [] {
       VariableStore store;
       EXPECT_EQ(store.get_variable("v1", {1}).name(), "v1");
       EXPECT_EQ(store.get_variable("v2", {1}).name(), "v2");
       EXPECT_EQ(store.find("v1")->scope(), "");
     }},
    {"NestedNames",
     [] {
       VariableStore store;
       const auto root = store.scope("root");
       const auto foo = store.scope("foo");
       const auto bar = store.scope("bar");
       const Variable& v = store.get_variable("v", {1});
       EXPECT_EQ(v.name(), "root/foo/bar/v");
       EXPECT_EQ(v.scope(), "root/foo/bar");
     }},
    {"AHandleIsAnAbsolutePath",
     [] {
       VariableStore store;
       const auto root = store.scope("root");
       ScopeHandle tower;
       const Variable* made = nullptr;
       {
         const auto a = store.scope("towerA");
         tower = a.handle();
         made = &store.get_variable("v", {1});
       }
       const auto foo = store.scope("foo");
       const auto bar = store.scope("bar");
       const auto a = store.reenter(tower, {.reuse = Reuse::yes});
       EXPECT_EQ(&store.get_variable("v", {1}), made);
       EXPECT_EQ(made->name(), "root/towerA/v");
     }},
    {"APathIsAbsolute",
     [] {
       VariableStore store;
       { const auto a = store.scope("root/towerA"); }
       const auto foo = store.scope("foo");
       const auto a = store.reenter("root/towerA");
       EXPECT_EQ(store.get_variable("v", {1}).name(), "root/towerA/v");
     }},
    {"ScopesKnowTheirName",
     [] {
       VariableStore store;
       const auto tower = store.scope("tower5");
       const auto b = store.scope("bar");
       EXPECT_EQ(b.name(), "tower5/bar");
       EXPECT_EQ(b.handle().name(), "tower5/bar");
       EXPECT_EQ(store.current_scope(), "tower5/bar");
     }},
    {"AReenteredScopeKeepsItsNameButNestsItsOperations",
     [] {
       VariableStore store;
       ScopeHandle tower4;
       { tower4 = store.scope("tower4").handle(); }
       const auto tower6 = store.scope("tower6");
       const auto t = store.reenter(tower4, {.reuse = Reuse::yes});
       EXPECT_EQ(t.name(), "tower4");
       EXPECT_EQ(store.current_name_scope(), "tower6/tower4/");
     }},
    {"ScopesInsideAReenteredOne",
     [] {
       VariableStore store;
       ScopeHandle o;
       { o = store.scope("outer").handle(); }
       const auto outer = store.reenter(o);
       EXPECT_EQ(store.get_variable("w", {1}).name(), "outer/w");
       const auto inner = store.scope("default");
       EXPECT_EQ(store.get_variable("w", {1}).name(), "outer/default/w");
     }},
    {"ReenteringFromInsideDoesNotNest",
     [] {
       VariableStore store;
       const auto outer = store.scope("outer");
       {
         const auto again = store.reenter(outer);
         EXPECT_EQ(store.get_variable("w", {1}).name(), "outer/w");
       }
       const auto by_path = store.reenter(outer.name());
       EXPECT_EQ(store.get_variable("w2", {1}).name(), "outer/w2");
     }},
    {"TheRootCanBeReentered",
     [] {
       VariableStore store;
       const ScopeHandle root = store.current_handle();
       const auto outer = store.scope("outer");
       {
         const auto by_handle = store.reenter(root);
         EXPECT_EQ(store.get_variable("w1", {1}).name(), "w1");
         EXPECT_EQ(by_handle.name(), "");
       }
       const auto by_path = store.reenter("");
       EXPECT_EQ(store.get_variable("w2", {1}).name(), "w2");
     }},
    {"ImproperNestingIsCaught",
     [] {
       VariableStore store;
       auto outer = std::make_unique<VariableScope>(store.scope("outer"));
       auto inner = std::make_unique<VariableScope>(store.scope("inner"));
       outer.reset();
       expect_words(thrown([&] { store.get_variable("v", {1}); }), {"improper nesting"});
       expect_words(thrown([&] { inner->reuse_variables(); }), {"improper nesting"});
       inner.reset();
       expect_words(thrown([&] { auto s = store.scope("x"); }), {"improper nesting"});
       expect_words(thrown([&] { auto s = store.name_scope("x"); }), {"improper nesting"});
     }},
    {"ANameScopeCountsAsInner",
     [] {
       VariableStore store;
       auto outer = std::make_unique<VariableScope>(store.scope("outer"));
       const auto inner = store.name_scope("inner");
       outer.reset();
       expect_words(thrown([&] { store.get_variable("v", {1}); }), {"improper nesting"});
     }},
    {"InvalidNames",
     [] {
       VariableStore store;
       expect_words(thrown([&] { auto s = store.scope(""); }), {"a scope needs a name"});
       expect_words(thrown([&] { auto s = store.default_scope(""); }), {"a default scope needs a name"});
       expect_words(thrown([&] { store.get_variable("", {1}); }), {"a variable needs a name"});
       for (const std::string bad : {"_a", "-a", "a b", "a:0", "/a", "a\n", "\xc3\xa4", ">a", "a%"}) {
         expect_words(thrown([&] { auto s = store.scope(bad); }), {"\"" + bad + "\"", "[A-Za-z0-9.]"});
         expect_words(thrown([&] { auto s = store.default_scope(bad); }), {"\"" + bad + "\""});
         expect_words(thrown([&] { store.get_variable(bad, {1}); }), {"\"" + bad + "\""});
         expect_words(thrown([&] { store.make_variable(bad, {1}); }), {"\"" + bad + "\""});
       }
       EXPECT_EQ(store.current_scope(), "");
     }},
    {"ValidNames",
     [] {
       VariableStore store;
       for (const char* good : {"a", "9", ".x", "a_b-c.d/e\\f>g"})
         EXPECT_EQ(thrown([&] { auto s = store.scope(good); }), "no error") << good;
       const auto outer = store.scope("outer");
       for (const char* nested : {"_a", "-a"})
         EXPECT_EQ(thrown([&] { auto s = store.scope(nested); }), "no error") << nested;
       expect_words(thrown([&] { auto s = store.scope("a b"); }), {"\"a b\"", "[A-Za-z0-9._\\>-]"});
     }},
};

const ScopeCase kReuse[] = {
    {"UnknownExtentsFit",
     [] {
       VariableStore store;
       const auto a = store.scope("a", {.reuse = Reuse::automatic});
       const Variable& v = store.get_variable("v", {4, 2});
       EXPECT_EQ(&store.get_variable("v", {Shape::kUnknown, 2}), &v);
       EXPECT_EQ(&store.get_variable("v", {Shape::kUnknown, Shape::kUnknown}), &v);
       for (const Shape& other :
            {Shape{Shape::kUnknown, 3}, Shape{Shape::kUnknown}, Shape{5, Shape::kUnknown}}) {
         expect_words(thrown([&] { store.get_variable("v", other); }), {"\"a/v\"", "[4, 2]", other.str()});
       }
       const Variable& state = store.get_local_variable("state", {Shape::kUnknown, 2});
       EXPECT_EQ(&store.get_local_variable("state", {3, 2}), &state);
     }},
    {"TheCurrentScopeIsChangedWithoutItsGuard",
     [] {
       VariableStore store;
       const Variable* v = &store.get_variable("v", {1});
       {
         const auto s = store.scope("s");
         OpenScope current = store.current();
         EXPECT_EQ(current.name(), "s");
         current.set_dtype(DType::float64);
         current.set_initializer(Initializer::constant(2));
         EXPECT_EQ(store.get_variable("w", {1}).dtype(), DType::float64);
         current.reuse_variables();
         EXPECT_EQ(store.current_reuse(), Reuse::yes);
         EXPECT_EQ(s.reuse(), Reuse::yes);
         EXPECT_EQ(store.get_variable("w", {1}).spec().initializer, Initializer::constant(2));
         const auto names = store.name_scope("n");
         EXPECT_EQ(store.current().name(), "s") << "a name scope is none";
       }
       EXPECT_EQ(store.current_reuse(), Reuse::no);
       store.current().reuse_variables();
       EXPECT_EQ(&store.get_variable("v", {1}), v) << "the root has no guard";
       EXPECT_EQ(store.scope("inner").reuse(), Reuse::yes);
     }},
    {"AlreadyExists",
     [] {
       VariableStore store;
       const auto layer = store.scope("layer");
       store.get_variable("v", {1}, {.made_at = "job.yaml:14"});
       expect_words(thrown([&] { store.get_variable("v", {1}); }),
                    {"\"layer/v\"", "already exists", "job.yaml:14", "reuse"});
       store.get_variable("w", {1});
       expect_words(thrown([&] { store.get_variable("w", {1}); }),
                    {"\"layer/w\"", "variable_scope_test.cc:"});
     }},
    {"ReuseGivesTheSameObject",
     [] {
       VariableStore store;
       const Variable* made = nullptr;
       {
         const auto tower = store.scope("towerA");
         made = &store.get_variable("v", {1});
       }
       const auto tower = store.scope("towerA", {.reuse = Reuse::yes});
       EXPECT_EQ(&store.get_variable("v", {1}), made);
       EXPECT_EQ(store.variables().size(), 1U);
     }},
    {"ReuseIsInheritedAndNeedsTheVariable",
     [] {
       VariableStore store;
       const auto tower = store.scope("tower", {.reuse = Reuse::yes});
       const auto inner = store.scope("inner", {.reuse = Reuse::no});
       EXPECT_EQ(inner.reuse(), Reuse::yes);
       expect_words(thrown([&] { store.get_variable("v", {1}); }),
                    {"\"tower/inner/v\"", "does not exist, or was not created with get_variable"});
     }},
    {"ReuseWithAnotherShape",
     [] {
       VariableStore store;
       store.get_variable("v", {1}, {.made_at = "model.cc:3"});
       const auto root = store.reenter("", {.reuse = Reuse::yes});
       expect_words(thrown([&] { store.get_variable("v", {2}); }),
                    {"\"v\"", "shape", "[1]", "[2]", "model.cc:3"});
     }},
    {"ReuseWithAnotherDType",
     [] {
       VariableStore store;
       store.get_variable("v", {1});
       const auto root = store.reenter("", {.reuse = Reuse::yes});
       expect_words(thrown([&] { store.get_variable("v", {1}, {.dtype = DType::int32}); }),
                    {"\"v\"", "dtype", "float32", "int32", "variable_scope_test.cc:"});
     }},
    {"ReuseWithoutDTypeAcceptsTheStoredOne",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", {1}, {.dtype = DType::float64});
       const auto root = store.reenter("", {.reuse = Reuse::yes, .dtype = DType::float32});
       EXPECT_EQ(&store.get_variable("v", {1}), &v);
     }},
    {"AutomaticReuse",
     [] {
       VariableStore store;
       const auto x = store.scope("x", {.reuse = Reuse::automatic});
       const Variable& first = store.get_variable("v", {1});
       EXPECT_EQ(&store.get_variable("v", {1}), &first);
       EXPECT_EQ(&store.get_variable("v", {1}), &first);
     }},
    {"AReusingHandleStaysSo",
     [] {
       VariableStore store;
       ScopeHandle vs;
       { vs = store.scope("jump", {.reuse = Reuse::yes}).handle(); }
       EXPECT_EQ(store.reenter(vs).reuse(), Reuse::yes);
       EXPECT_EQ(store.reenter(vs, {.reuse = Reuse::no}).reuse(), Reuse::yes);
     }},
    {"AHandleTakesReuse",
     [] {
       VariableStore store;
       ScopeHandle vs;
       { vs = store.scope("jump").handle(); }
       EXPECT_EQ(store.reenter(vs).reuse(), Reuse::no);
       EXPECT_EQ(store.reenter(vs, {.reuse = Reuse::yes}).reuse(), Reuse::yes);
       EXPECT_EQ(store.reenter(vs, {.reuse = Reuse::no}).reuse(), Reuse::no);
     }},
    {"ReuseVariablesLastsUntilTheScopeCloses",
     [] {
       VariableStore store;
       {
         auto scope = store.scope("s");
         store.get_variable("v", {1});
         scope.reuse_variables();
         EXPECT_EQ(store.get_variable("v", {1}).name(), "s/v");
         expect_words(thrown([&] { store.get_variable("absent", {1}); }), {"\"s/absent\"", "does not exist"});
         EXPECT_EQ(store.scope("inner").reuse(), Reuse::yes);
       }
       const auto again = store.scope("s");
       EXPECT_EQ(again.reuse(), Reuse::no);
       EXPECT_EQ(store.get_variable("absent", {1}).name(), "s/absent");
     }},
    {"DefaultNamesRefuseReuse",
     [] {
       VariableStore store;
       for (Reuse reuse : {Reuse::yes, Reuse::automatic}) {
         expect_words(thrown([&] { auto s = store.default_scope("default", {.reuse = reuse}); }),
                      {"reuse needs a name", "\"default\""});
       }
       EXPECT_EQ(store.default_scope("default", {.reuse = Reuse::no}).name(), "default");
     }},
    {"AutomaticInsideReuse",
     [] {
       VariableStore store;
       const auto parent = store.scope("parent", {.reuse = Reuse::yes});
       const auto child = store.scope("child", {.reuse = Reuse::automatic});
       EXPECT_EQ(child.reuse(), Reuse::automatic);
       EXPECT_EQ(store.get_variable("v", {1}).name(), "parent/child/v");
     }},
    {"AHandleBringsItsOwnReuse",
     [] {
       VariableStore store;
       ScopeHandle plain;
       { plain = store.scope("plain").handle(); }
       const auto reusing = store.scope("reusing", {.reuse = Reuse::yes});
       const auto again = store.reenter(plain);
       EXPECT_EQ(again.reuse(), Reuse::no);
       EXPECT_EQ(store.get_variable("v", {1}).name(), "plain/v");
     }},
    {"ReuseWithoutAShape",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", {3, 4});
       const auto root = store.reenter("", {.reuse = Reuse::yes});
       EXPECT_EQ(&store.get_variable("v"), &v);
       EXPECT_EQ(&store.get_variable("v", VariableOptions{.dtype = DType::float32}), &v);
       expect_words(thrown([&] { store.get_variable("absent"); }), {"\"absent\"", "does not exist"});
     }},
    {"ReuseIgnoresAnotherInitializerAndRegularizer",
     [] {
       VariableStore store;
       const auto x = store.scope("x", {.reuse = Reuse::automatic});
       store.get_variable("v", {1},
                          {.initializer = Initializer::constant(1), .regularizer = Regularizer::l2(1)});
       const Variable& v = store.get_variable(
           "v", {1}, {.initializer = Initializer::constant(2), .regularizer = Regularizer::l1(1)});
       EXPECT_EQ(v.spec().initializer, Initializer::constant(1));
       ASSERT_EQ(store.regularization_losses().size(), 1U);
       EXPECT_EQ(store.regularization_losses()[0].regularizer, Regularizer::l2(1));
     }},
    {"BareVariablesAreNotShared",
     [] {
       VariableStore store;
       store.make_variable("v", {1});
       const auto root = store.reenter("", {.reuse = Reuse::yes});
       expect_words(thrown([&] { store.get_variable("v", {1}); }),
                    {"\"v\"", "does not exist, or was not created with get_variable"});
     }},
    {"BareVariablesKeepTheirName",
     [] {
       VariableStore store;
       store.make_variable("v", {1});
       for (Reuse reuse : {Reuse::no, Reuse::automatic}) {
         const auto root = store.reenter("", {.reuse = reuse});
         expect_words(thrown([&] { store.get_variable("v", {1}); }),
                      {"\"v\"", "already exists", "make_variable", "variable_scope_test.cc:"});
       }
     }},
};

VARSCOPE_SCOPE_CASES(NamingTable, kNaming);
VARSCOPE_SCOPE_CASES(ReuseTable, kReuse);

TEST(VariableStore, RefusesAShapeThatIsNotKnown) {
  VariableStore store;
  expect_words(thrown([&] { store.get_variable("v", {Shape::kUnknown, 3}); }), {"\"v\"", "shape [?, 3]"});
}

// A failed get leaves nothing behind.
TEST(VariableStore, AFailedGetMakesNothing) {
  VariableStore store;
  EXPECT_NE(thrown([&] { store.get_variable("v", {Shape::kUnknown}); }), "no error");
  EXPECT_EQ(store.find("v"), nullptr);
  EXPECT_TRUE(store.variables().empty());
  EXPECT_EQ(store.get_variable("v", {1}).index(), 0);
}

TEST(VariableStore, TableHoldsWhatLivesOnServers) {
  VariableStore store;
  {
    const auto layer = store.scope("layer");
    store.get_variable("w", {4, 3});
    store.get_local_variable("local", {2});
  }
  store.get_variable("step", {}, {.dtype = DType::int64, .trainable = false});
  const VariableTable table = store.table();
  ASSERT_EQ(table.size(), 2U);
  EXPECT_EQ(table[0].name, "layer/w");
  EXPECT_EQ(table[0].scope, "layer");
  EXPECT_EQ(table[1].name, "step");
  EXPECT_FALSE(table[1].trainable);
  EXPECT_EQ(table.n_parameters(), 13);
  EXPECT_EQ(table.n_bytes(), 12 * 4 + 8);
}

// For callers that pass no options, {} is the shape of a scalar.
TEST(VariableStore, BracesAreAScalarsShape) {
  VariableStore store;
  EXPECT_EQ(store.get_variable("v", {}).shape(), Shape{});
  EXPECT_EQ(store.get_variable("w", {3}).shape(), Shape{3});
}

}  // namespace
}  // namespace varscope
