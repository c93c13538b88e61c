// The rows of the table of variable scopes (TensorFlow's observable behaviour) that the C++ interface offers,
// by number.
#include "common/variable_scope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

std::vector<std::string> names(const std::vector<const Variable*>& variables) {
  std::vector<std::string> all;
  for (const Variable* v : variables) all.push_back(v->name());
  return all;
}
using Names = std::vector<std::string>;

// Each of `words` must be in the message.
void expect_words(const std::string& error, const std::vector<std::string>& words) {
  EXPECT_TRUE(error.starts_with("argument: ")) << error;
  for (const std::string& w : words)
    EXPECT_NE(error.find(w), std::string::npos) << "\"" << w << "\" in: " << error;
}

TEST(VariableScope, Row1RootNames) {
  VariableStore store;
  EXPECT_EQ(store.get_variable("v1", {1}).name(), "v1");
  EXPECT_EQ(store.get_variable("v2", {1}).name(), "v2");
  EXPECT_EQ(store.find("v1")->scope(), "");
}

TEST(VariableScope, Row2NestedNames) {
  VariableStore store;
  const auto root = store.scope("root");
  const auto foo = store.scope("foo");
  const auto bar = store.scope("bar");
  const Variable& v = store.get_variable("v", {1});
  EXPECT_EQ(v.name(), "root/foo/bar/v");
  EXPECT_EQ(v.scope(), "root/foo/bar");
}

TEST(VariableScope, Row3ReenteringIsAbsolute) {
  VariableStore store;
  const Variable* made = nullptr;
  std::string tower;
  {
    const auto root = store.scope("root");
    const auto a = store.scope("towerA");
    tower = a.name();
    made = &store.get_variable("v", {1});
  }
  const auto root = store.scope("root");
  const auto foo = store.scope("foo");
  const auto bar = store.scope("bar");
  const auto a = store.reenter(tower, {.reuse = Reuse::yes});
  EXPECT_EQ(&store.get_variable("v", {1}), made);
  EXPECT_EQ(made->name(), "root/towerA/v");
}

TEST(VariableScope, Row4ScopesKnowTheirName) {
  VariableStore store;
  const auto tower = store.scope("tower5");
  const auto bar = store.scope("bar");
  EXPECT_EQ(bar.name(), "tower5/bar");
  EXPECT_EQ(store.current_scope(), "tower5/bar");
}

TEST(VariableScope, Row6ScopesInsideAReenteredOne) {
  VariableStore store;
  { const auto outer = store.scope("outer"); }
  const auto outer = store.reenter("outer");
  EXPECT_EQ(store.get_variable("w", {1}).name(), "outer/w");
  const auto inner = store.scope("default");
  EXPECT_EQ(store.get_variable("w", {1}).name(), "outer/default/w");
}

TEST(VariableScope, Row7ReenteringFromInsideDoesNotNest) {
  VariableStore store;
  const auto outer = store.scope("outer");
  const auto again = store.reenter(outer.name());
  EXPECT_EQ(store.get_variable("w", {1}).name(), "outer/w");
}

TEST(VariableScope, Row8TheRootCanBeReentered) {
  VariableStore store;
  const auto outer = store.scope("outer");
  {
    const auto root = store.reenter("");
    EXPECT_EQ(store.get_variable("w1", {1}).name(), "w1");
  }
  EXPECT_EQ(store.current_scope(), "outer");
}

TEST(VariableScope, Row9ImproperNestingIsCaught) {
  VariableStore store;
  auto outer = std::make_unique<VariableScope>(store.scope("outer"));
  auto inner = std::make_unique<VariableScope>(store.scope("inner"));
  outer.reset();
  expect_words(thrown([&] { store.get_variable("v", {1}); }), {"improper nesting"});
  inner.reset();
  expect_words(thrown([&] { auto s = store.scope("x"); }), {"improper nesting"});
}

TEST(VariableScope, Row10InvalidNames) {
  VariableStore store;
  expect_words(thrown([&] { auto s = store.scope(""); }), {"needs a name"});
  expect_words(thrown([&] { store.get_variable("", {1}); }), {"needs a name"});
  for (const std::string bad : {"_a", "-a", "a b", "a:0", "/a", "a\n", "\xc3\xa4", ">a", "a%"}) {
    expect_words(thrown([&] { auto s = store.scope(bad); }), {"\"" + bad + "\"", "[A-Za-z0-9.]"});
    expect_words(thrown([&] { store.get_variable(bad, {1}); }), {"\"" + bad + "\""});
  }
  for (const char* good : {"a", "9", ".x", "a_b-c.d/e\\f>g"}) {
    EXPECT_EQ(thrown([&] { auto s = store.scope(good); }), "no error") << good;
  }
  const auto outer = store.scope("outer");
  for (const char* nested : {"_a", "-a"})
    EXPECT_EQ(thrown([&] { auto s = store.scope(nested); }), "no error") << nested;
  expect_words(thrown([&] { auto s = store.scope("a b"); }), {"\"a b\"", "_-"});
}

TEST(VariableScope, Row11AlreadyExists) {
  VariableStore store;
  const auto layer = store.scope("layer");
  store.get_variable("v", {1}, {.made_at = "job.yaml:14"});
  expect_words(thrown([&] { store.get_variable("v", {1}); }),
               {"\"layer/v\"", "already exists", "job.yaml:14", "reuse"});
  store.get_variable("w", {1});
  expect_words(thrown([&] { store.get_variable("w", {1}); }), {"\"layer/w\"", "variable_scope_test.cc:"});
}

TEST(VariableScope, Row12ReuseGivesTheSameObject) {
  VariableStore store;
  const Variable* made = nullptr;
  {
    const auto tower = store.scope("towerA");
    made = &store.get_variable("v", {1});
  }
  const auto tower = store.scope("towerA", {.reuse = Reuse::yes});
  EXPECT_EQ(&store.get_variable("v", {1}), made);
  EXPECT_EQ(store.variables().size(), 1U);
}

TEST(VariableScope, Row13ReuseIsInheritedAndNeedsTheVariable) {
  VariableStore store;
  const auto tower = store.scope("tower", {.reuse = Reuse::yes});
  const auto inner = store.scope("inner");
  EXPECT_EQ(inner.reuse(), Reuse::yes);
  expect_words(thrown([&] { store.get_variable("v", {1}); }),
               {"\"tower/inner/v\"", "does not exist, or was not created with get_variable"});
}

TEST(VariableScope, Row14ReuseWithAnotherShape) {
  VariableStore store;
  store.get_variable("v", {1}, {.made_at = "model.cc:3"});
  auto root = store.reenter("", {.reuse = Reuse::yes});
  expect_words(thrown([&] { store.get_variable("v", {2}); }), {"\"v\"", "shape", "[1]", "[2]", "model.cc:3"});
}

TEST(VariableScope, Row15ReuseWithAnotherDType) {
  VariableStore store;
  store.get_variable("v", {1});
  auto root = store.reenter("", {.reuse = Reuse::yes});
  expect_words(thrown([&] { store.get_variable("v", {1}, {.dtype = DType::int32}); }),
               {"\"v\"", "dtype", "float32", "int32", "variable_scope_test.cc:"});
}

TEST(VariableScope, ReuseWithoutDTypeAcceptsTheStoredOne) {
  VariableStore store;
  const Variable& v = store.get_variable("v", {1}, {.dtype = DType::float64});
  auto root = store.reenter("", {.reuse = Reuse::yes, .dtype = DType::float32});
  EXPECT_EQ(&store.get_variable("v", {1}), &v);
}

TEST(VariableScope, Row16AutomaticReuse) {
  VariableStore store;
  const auto x = store.scope("x", {.reuse = Reuse::automatic});
  const Variable& first = store.get_variable("v", {1});
  EXPECT_EQ(&store.get_variable("v", {1}), &first);
  EXPECT_EQ(&store.get_variable("v", {1}), &first);
}

TEST(VariableScope, Row18ReuseOfOpeningsByName) {
  VariableStore store;
  {
    const auto jump = store.scope("jump");
    EXPECT_EQ(jump.reuse(), Reuse::no);
    const auto again = store.reenter("jump");
    EXPECT_EQ(again.reuse(), Reuse::no);
  }
  { EXPECT_EQ(store.scope("jump", {.reuse = Reuse::yes}).reuse(), Reuse::yes); }
  { EXPECT_EQ(store.scope("jump", {.reuse = Reuse::no}).reuse(), Reuse::no); }
}

TEST(VariableScope, FalseMeansInherit) {
  VariableStore store;
  const auto outer = store.scope("outer", {.reuse = Reuse::yes});
  EXPECT_EQ(store.scope("inner", {.reuse = Reuse::no}).reuse(), Reuse::yes);
}

TEST(VariableScope, Row19ReuseVariablesLastsUntilTheScopeCloses) {
  VariableStore store;
  {
    auto scope = store.scope("s");
    store.get_variable("v", {1});
    scope.reuse_variables();
    EXPECT_EQ(store.get_variable("v", {1}).name(), "s/v");
    expect_words(thrown([&] { store.get_variable("absent", {1}); }), {"\"s/absent\"", "does not exist"});
    const auto inner = store.scope("inner");
    EXPECT_EQ(inner.reuse(), Reuse::yes);
  }
  const auto again = store.scope("s");
  EXPECT_EQ(again.reuse(), Reuse::no);
  EXPECT_EQ(store.get_variable("absent", {1}).name(), "s/absent");
}

TEST(VariableScope, Row21AutomaticInsideReuse) {
  VariableStore store;
  const auto parent = store.scope("parent", {.reuse = Reuse::yes});
  const auto child = store.scope("child", {.reuse = Reuse::automatic});
  EXPECT_EQ(child.reuse(), Reuse::automatic);
  EXPECT_EQ(store.get_variable("v", {1}).name(), "parent/child/v");
}

TEST(VariableScope, Row24ReuseIgnoresAnotherInitializer) {
  VariableStore store;
  const auto x = store.scope("x", {.reuse = Reuse::automatic});
  store.get_variable("v", {1}, {.initializer = Initializer::constant(1)});
  const Variable& v = store.get_variable("v", {1}, {.initializer = Initializer::constant(2)});
  EXPECT_EQ(v.spec().initializer, Initializer::constant(1));
}

TEST(VariableScope, Row26InitializersAreInheritedAndOverridden) {
  VariableStore store;
  {
    const auto foo = store.scope("foo", {.initializer = Initializer::constant(0.3)});
    EXPECT_EQ(store.get_variable("v", {}).spec().initializer, Initializer::constant(0.3));
    const auto inner = store.scope("inner");
    EXPECT_EQ(store.get_variable("v", {}).spec().initializer, Initializer::constant(0.3));
    EXPECT_EQ(store.get_variable("own", {}, {.initializer = Initializer::constant(7)}).spec().initializer,
              Initializer::constant(7));
  }
  const auto foo = store.reenter("foo", {.initializer = Initializer::normal(0, 1)});
  EXPECT_EQ(store.get_variable("w", {}).spec().initializer, Initializer::normal(0, 1));
}

TEST(VariableScope, AnInitializerThatNeedsTheShapeGetsIt) {
  VariableStore store;
  const auto foo = store.scope("foo", {.initializer = &Initializer::he_normal});
  EXPECT_EQ(store.get_variable("v", {8, 4}).spec().initializer, Initializer::normal(0, std::sqrt(2.0 / 8)));
}

TEST(VariableScope, Row31DefaultIsGlorotUniform) {
  struct Case {
    Shape shape;
    double fans;  // in + out
  };
  VariableStore store;
  int i = 0;
  for (const auto& [shape, fans] : {Case{Shape{}, 2}, Case{Shape{5}, 10}, Case{Shape{784, 256}, 1040},
                                    Case{Shape{3, 3, 16, 32}, 9 * 48}}) {
    for (DType dtype : {DType::float32, DType::float64}) {
      const Variable& v = store.get_variable("v" + std::to_string(i++), shape, {.dtype = dtype});
      const double limit = std::sqrt(6.0 / fans);
      EXPECT_EQ(v.spec().initializer, Initializer::uniform(-limit, limit)) << shape.str();
    }
  }
}

TEST(VariableScope, Row32DefaultOfIntegersIsZero) {
  VariableStore store;
  for (DType dtype : {DType::int32, DType::int64}) {
    EXPECT_EQ(store.get_variable(to_string(dtype), {3}, {.dtype = dtype}).spec().initializer,
              Initializer::constant(0));
  }
}

TEST(VariableScope, Row34DTypeIsInheritedByNameAndByObject) {
  VariableStore store;
  {
    const auto s = store.scope("s", {.dtype = DType::float64});
    EXPECT_EQ(store.get_variable("v", {1}).dtype(), DType::float64);
    const auto inner = store.scope("inner");
    EXPECT_EQ(store.get_variable("v", {1}).dtype(), DType::float64);
  }
  const auto again = store.reenter("s", {.dtype = DType::float64});
  EXPECT_EQ(store.get_variable("w", {1}).dtype(), DType::float64);
  EXPECT_EQ(store.get_variable("x", {1}, {.dtype = DType::float32}).dtype(), DType::float32);
}

TEST(VariableScope, Row56Collections) {
  VariableStore store;
  store.get_variable("a", {1});
  store.get_variable("b", {1}, {.trainable = false});
  EXPECT_EQ(names(store.collection(collections::kGlobal)), (Names{"a", "b"}));
  EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"a"});
  EXPECT_TRUE(store.collection("no such").empty());
}

TEST(VariableScope, Row57CollectionsOfAScope) {
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
}

TEST(VariableScope, Row58NamedCollectionsReplaceGlobal) {
  VariableStore store;
  const std::vector<std::string> mine = {"mine"};
  store.get_variable("a", {1}, {.collections = mine});
  EXPECT_TRUE(store.collection(collections::kGlobal).empty());
  EXPECT_EQ(names(store.collection("mine")), Names{"a"});
  EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"a"});
  EXPECT_EQ(mine, std::vector<std::string>{"mine"});
}

TEST(VariableScope, TrainableIsInherited) {
  VariableStore store;
  const auto frozen = store.scope("frozen", {.trainable = false});
  EXPECT_FALSE(store.get_variable("a", {1}).trainable());
  EXPECT_TRUE(store.get_variable("b", {1}, {.trainable = true}).trainable());
  EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"frozen/b"});
}

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
    store.get_variable("local", {2}, {.collections = std::vector<std::string>{collections::kLocal}});
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

TEST(VariableTable, DigestSeesEveryField) {
  const auto digest_of_one = [](auto change) {
    VariableSpec v;
    v.name = "a/w";
    v.scope = "a";
    v.shape = Shape{2, 3};
    change(v);
    return VariableTable({v}).digest();
  };
  const Digest base = digest_of_one([](VariableSpec&) {});
  EXPECT_EQ(base, digest_of_one([](VariableSpec&) {}));
  EXPECT_NE(base, digest_of_one([](VariableSpec& v) { v.name = "a/x"; }));
  EXPECT_NE(base, digest_of_one([](VariableSpec& v) { v.scope = "b"; }));
  EXPECT_NE(base, digest_of_one([](VariableSpec& v) { v.dtype = DType::float64; }));
  EXPECT_NE(base, digest_of_one([](VariableSpec& v) { v.shape = Shape{3, 2}; }));
  EXPECT_NE(base, digest_of_one([](VariableSpec& v) { v.trainable = false; }));
  EXPECT_NE(base, digest_of_one([](VariableSpec& v) { v.initializer = Initializer::constant(1); }));
}

TEST(VariableTable, RefusesTwoOfOneName) {
  VariableSpec v;
  v.name = "a/w";
  EXPECT_EQ(thrown([&] { VariableTable({v, v}); }), "argument: two variables have the name \"a/w\"");
}

TEST(ValuesHash, DoesNotDependOnTheOrderOfSlices) {
  ValuesHash a, b, c;
  a.add("v", 0, digest_of("x"));
  a.add("v", 1, digest_of("y"));
  b.add("v", 1, digest_of("y"));
  b.add("v", 0, digest_of("x"));
  c.add("v", 0, digest_of("y"));
  c.add("v", 1, digest_of("x"));
  EXPECT_EQ(a.finish(), b.finish());
  EXPECT_NE(a.finish(), c.finish());
}

}  // namespace
}  // namespace varscope
