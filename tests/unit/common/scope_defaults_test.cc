// Inherited defaults, custom getters.
#include <cmath>

#include "common/variables/variable_scope.h"
#include "tests/support/references/scope_cases.h"

namespace varscope {
namespace {

using testing::expect_words;
using testing::names;
using testing::Names;
using testing::ScopeCase;
using testing::thrown;

Initializer numbers() { return Initializer::values(Tensor::of<std::int32_t>({3}, {4, 5, 6}).view()); }
Initializer halves() { return Initializer::values(Tensor::of<float>({2}, {0.5F, 1.5F}).view()); }

const ScopeCase kDefaults[] = {
    {"InitializersAreInheritedAndOverridden",
     [] {
       VariableStore store;
       ScopeHandle handle;
       {
         const auto foo = store.scope("foo", {.initializer = Initializer::constant(0.3)});
         handle = foo.handle();
         EXPECT_EQ(store.get_variable("v", {}).spec().initializer, Initializer::constant(0.3));
         const auto inner = store.scope("inner");
         EXPECT_EQ(store.get_variable("v", {}).spec().initializer, Initializer::constant(0.3));
         EXPECT_EQ(
             store.get_variable("own", {}, {.initializer = Initializer::constant(7)}).spec().initializer,
             Initializer::constant(7));
       }
       {
         const auto foo = store.reenter(handle);
         EXPECT_EQ(store.get_variable("u", {}).spec().initializer, Initializer::constant(0.3));
       }
       const auto foo = store.reenter(handle, {.initializer = Initializer::normal(0, 1)});
       EXPECT_EQ(store.get_variable("w", {}).spec().initializer, Initializer::normal(0, 1));
     }},
    {"TheSetterReplacesTheInitializer",
     [] {
       VariableStore store;
       auto foo = store.scope("foo", {.initializer = Initializer::constant(0.3)});
       foo.set_initializer(Initializer::constant(1));
       EXPECT_EQ(store.get_variable("v", {}).spec().initializer, Initializer::constant(1));
       foo.set_initializer(std::nullopt);
       EXPECT_EQ(store.get_variable("w", {}).spec().initializer, Initializer::glorot_uniform({}));
     }},
    {"ATensorGivesValueShapeAndDType",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", VariableOptions{.initializer = numbers()});
       EXPECT_EQ(v.shape(), Shape{3});
       EXPECT_EQ(v.dtype(), DType::int32);
       Tensor t(v.dtype(), v.shape());
       v.spec().fill(t.view(), 1, 0);
       EXPECT_EQ(t.as<std::int32_t>()[2], 6);
       const auto scope = store.scope("s", {.initializer = numbers()});
       EXPECT_EQ(store.get_variable("v").shape(), Shape{3});
     }},
    {"ATensorAndAShape",
     [] {
       VariableStore store;
       expect_words(thrown([&] { store.get_variable("v", {3}, {.initializer = numbers()}); }),
                    {"\"v\"", "shape", "[3]"});
       const auto scope = store.scope("s", {.initializer = numbers()});
       expect_words(thrown([&] { store.get_variable("v", {4}); }), {"\"s/v\"", "shape", "[3]", "[4]"});
       EXPECT_TRUE(store.variables().empty());
     }},
    {"ATensorAndAnotherDType",
     [] {
       VariableStore store;
       expect_words(thrown([&] {
                      store.get_variable("v",
                                         VariableOptions{.initializer = numbers(), .dtype = DType::float64});
                    }),
                    {"\"v\"", "don't match", "int32", "float64"});
     }},
    {"ATensorsDTypeWinsOverTheScopes",
     [] {
       VariableStore store;
       const auto s = store.scope("s", {.dtype = DType::float64});
       EXPECT_EQ(store.get_variable("v", VariableOptions{.initializer = halves()}).dtype(), DType::float32);
     }},
    {"DefaultIsGlorotUniform",
     [] {
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
     }},
    {"DefaultOfIntegersIsZeroAndOfBooleansFalse",
     [] {
       VariableStore store;
       for (DType dtype : {DType::int32, DType::int64, DType::uint8}) {
         const Variable& v = store.get_variable(to_string(dtype), {3}, {.dtype = dtype});
         Tensor t(dtype, {3});
         std::fill_n(t.view().bytes(), t.n_bytes(), std::byte{1});
         v.spec().fill(t.view(), 1, 0);
         for (std::size_t i = 0; i < t.n_bytes(); ++i) EXPECT_EQ(t.view().bytes()[i], std::byte{0});
       }
     }},
    {"AnInitializerThatNeedsAShape",
     [] {
       VariableStore store;
       expect_words(thrown([&] { store.get_variable("v"); }),
                    {"\"v\"", "The initializer passed is not valid"});
       expect_words(
           thrown([&] { store.get_variable("v", VariableOptions{.initializer = &Initializer::he_normal}); }),
           {"\"v\"", "The initializer passed is not valid", "shape"});
     }},
    {"AnInitializerFunctionGetsTheShape",
     [] {
       VariableStore store;
       const auto foo = store.scope("foo", {.initializer = &Initializer::he_normal});
       EXPECT_EQ(store.get_variable("v", {8, 4}).spec().initializer,
                 Initializer::normal(0, std::sqrt(2.0 / 8)));
       expect_words(thrown([&] {
                      store.get_variable("w", {8, 4}, {.initializer = InitializerFor()});
                    }),
                    {"\"foo/w\"", "empty"});
     }},
    {"DTypeIsInheritedByNameAndByHandle",
     [] {
       VariableStore store;
       ScopeHandle handle;
       {
         const auto s = store.scope("s", {.dtype = DType::float64});
         handle = s.handle();
         EXPECT_EQ(store.get_variable("v", {1}).dtype(), DType::float64);
         const auto inner = store.scope("inner");
         EXPECT_EQ(store.get_variable("v", {1}).dtype(), DType::float64);
       }
       auto again = store.reenter(handle);
       EXPECT_EQ(store.get_variable("w", {1}).dtype(), DType::float64);
       EXPECT_EQ(store.get_variable("x", {1}, {.dtype = DType::float32}).dtype(), DType::float32);
       again.set_dtype(DType::int32);
       EXPECT_EQ(store.get_variable("y", {1}).dtype(), DType::int32);
     }},
    {"OneLossPerNewVariable",
     [] {
       VariableStore store;
       auto s = store.scope("s", {.regularizer = Regularizer::l1(1)});
       const Variable& v = store.get_variable("v", {1});
       s.set_regularizer(Regularizer::l2(2));
       const Variable& w = store.get_variable("w", {1});
       s.reuse_variables();
       store.get_variable("v", {1});
       const auto losses = store.regularization_losses();
       ASSERT_EQ(losses.size(), 2U);
       EXPECT_EQ(losses[0].variable, &v);
       EXPECT_EQ(losses[0].regularizer, Regularizer::l1(1));
       EXPECT_EQ(losses[0].name, "s/v/Regularizer");
       EXPECT_EQ(losses[1].variable, &w);
       EXPECT_EQ(losses[1].regularizer, Regularizer::l2(2));
     }},
    {"NoRegularizerSwitchesOff",
     [] {
       VariableStore store;
       auto s = store.scope("s", {.regularizer = Regularizer::l1(1)});
       store.get_variable("v", {1}, {.regularizer = Regularizer::none()});
       {
         const auto child = store.scope("child", {.regularizer = Regularizer::none()});
         store.get_variable("v", {1});
       }
       s.set_regularizer(Regularizer::none());
       store.get_variable("w", {1});
       EXPECT_TRUE(store.regularization_losses().empty());
     }},
    {"ConstraintsAreInherited",
     [] {
       VariableStore store;
       auto s = store.scope("s", {.constraint = Constraint::max_norm(3)});
       const auto inner = store.scope("inner");
       EXPECT_EQ(store.get_variable("v", {1}).spec().constraint, Constraint::max_norm(3));
       EXPECT_EQ(store.get_variable("off", {1}, {.constraint = Constraint{}}).spec().constraint,
                 Constraint{});
       s.set_constraint(Constraint::non_neg());
       const auto again = store.reenter(s);
       EXPECT_EQ(store.get_variable("w", {1}).spec().constraint, Constraint::non_neg());
     }},
    {"AHandleKeepsThePartitioner",
     [] {
       VariableStore store;
       ScopeHandle handle;
       { handle = store.scope("s", {.partitioner = fixed_size_partitioner(2)}).handle(); }
       auto again = store.reenter(handle);
       EXPECT_EQ(store.get_variable("v", {4}).parts().size(), 2U);
       again.set_partitioner({});
       EXPECT_EQ(store.get_variable("w", {4}).parts().size(), 0U);
     }},
};

Variable& sum_of_two(GetterCall& call) {
  return call.store().sum(call.name, {&call.next(call.name + "/sum_0"), &call.next(call.name + "/sum_1")});
}
Variable& product_of_two(GetterCall& call) {
  return call.store().product(call.name,
                              {&call.next(call.name + "/prod_0"), &call.next(call.name + "/prod_1")});
}

const ScopeCase kGetters[] = {
    {"AGetterOfOneVariableReplacesThoseOfItsScopes",
     [] {
       VariableStore store;
       Names seen;
       const auto spy = [&seen](const std::string& who) -> CustomGetter {
         return [&seen, who](GetterCall& call) -> Variable& {
           seen.push_back(who + " " + call.name);
           EXPECT_FALSE(call.options.custom_getter);
           return call.next();
         };
       };
       const auto s = store.scope("s", {.custom_getter = spy("scope")});
       store.get_variable("v", {1}, {.custom_getter = spy("own")});
       store.get_variable("w", {1});
       EXPECT_EQ(seen, (Names{"own s/v", "scope s/w"}));
       expect_words(thrown([&] { store.get_variable("x", {1}, {.custom_getter = CustomGetter()}); }),
                    {"\"s/x\"", "not callable"});
     }},
    {"AnEmptyGetter",
     [] {
       VariableStore store;
       expect_words(thrown([&] { auto s = store.scope("s", {.custom_getter = CustomGetter()}); }),
                    {"\"s\"", "not callable"});
       EXPECT_EQ(store.current_scope(), "");
     }},
    {"TheIdentityIsCalledOncePerGet",
     [] {
       VariableStore store;
       int calls = 0;
       const CustomGetter identity = [&](GetterCall& call) -> Variable& {
         ++calls;
         return call.next();
       };
       const Variable* made = nullptr;
       {
         const auto s = store.scope("s", {.custom_getter = identity});
         made = &store.get_variable("v", {1});
         EXPECT_EQ(made->name(), "s/v");
         EXPECT_EQ(calls, 1);
       }
       const auto s = store.scope("s", {.reuse = Reuse::yes, .custom_getter = identity});
       EXPECT_EQ(&store.get_variable("v", {1}), made);
       EXPECT_EQ(calls, 2);
     }},
    {"TheGetterSeesTheEffectiveReuse",
     [] {
       VariableStore store;
       std::vector<Reuse> seen;
       const CustomGetter spy = [&](GetterCall& call) -> Variable& {
         seen.push_back(call.reuse);
         return call.next();
       };
       auto s = store.scope("s", {.custom_getter = spy});
       store.get_variable("v", {1});
       s.reuse_variables();
       store.get_variable("v", {1});
       const auto inner = store.reenter(s, {.reuse = Reuse::automatic});
       store.get_variable("v", {1});
       EXPECT_EQ(seen, (std::vector<Reuse>{Reuse::no, Reuse::yes, Reuse::automatic}));
     }},
    {"TheGetterSeesAndChangesTheOptions",
     [] {
       VariableStore store;
       const CustomGetter freeze = [](GetterCall& call) -> Variable& {
         EXPECT_EQ(call.shape, Shape{2});
         EXPECT_EQ(std::get<Initializer>(*call.options.initializer), Initializer::constant(3));
         call.options.trainable = false;
         return call.next();
       };
       const auto s = store.scope("s", {.initializer = Initializer::constant(3), .custom_getter = freeze});
       EXPECT_FALSE(store.get_variable("v", {2}).trainable());
     }},
    {"AGetterComposes",
     [] {
       VariableStore store;
       const CustomGetter two = [](GetterCall& call) -> Variable& {
         return call.store().sum(call.name, {&call.next(call.name + "/0"), &call.next(call.name + "/1")});
       };
       const auto s = store.scope("scope", {.reuse = Reuse::automatic, .custom_getter = two});
       const Variable& v = store.get_variable("v", {2, 3});
       EXPECT_EQ(names(store.collection(collections::kTrainable)), (Names{"scope/v/0", "scope/v/1"}));
       EXPECT_EQ(names(v.parts()), (Names{"scope/v/0", "scope/v/1"}));
       EXPECT_EQ(v.combine(), Combine::add);
       EXPECT_EQ(v.name(), "scope/v");
       EXPECT_EQ(v.shape(), (Shape{2, 3}));
       EXPECT_EQ(v.parts()[0]->scope(), "scope") << "not scope/v: it decides the server";
       EXPECT_EQ(store.find("scope/v"), &v);
       EXPECT_EQ(&store.get_variable("v", {2, 3}), &v);
       EXPECT_EQ(store.table().size(), 2U);
     }},
    {"NestedGettersRunFromTheInside",
     [] {
       VariableStore store;
       const auto a = store.scope("prod_scope", {.custom_getter = product_of_two});
       const auto b = store.scope("sum_scope", {.custom_getter = sum_of_two});
       const auto c = store.scope("inner_sum_scope", {.custom_getter = sum_of_two});
       const Variable& v = store.get_variable("v", {1, 2, 3});
       Names expected;
       for (const char* i : {"/sum_0", "/sum_1"}) {
         for (const char* j : {"/sum_0", "/sum_1"}) {
           for (const char* k : {"/prod_0", "/prod_1"})
             expected.push_back(std::string("prod_scope/sum_scope/inner_sum_scope/v") + i + j + k);
         }
       }
       EXPECT_EQ(names(store.collection(collections::kTrainable)), expected);
       EXPECT_EQ(v.combine(), Combine::add);
       EXPECT_EQ(v.parts()[0]->combine(), Combine::add);
       EXPECT_EQ(v.parts()[0]->parts()[0]->combine(), Combine::multiply);
       EXPECT_EQ(v.parts()[0]->parts()[0]->parts()[0]->combine(), Combine::whole);
     }},
};

VARSCOPE_SCOPE_CASES(DefaultsTable, kDefaults);
VARSCOPE_SCOPE_CASES(CustomGetterTable, kGetters);

TEST(ComposedVariable, PartsMustBeAlike) {
  VariableStore store;
  const Variable& a = store.get_variable("a", {2});
  const Variable& b = store.get_variable("b", {3});
  const Variable& c = store.get_variable("c", {2}, {.dtype = DType::float64});
  expect_words(thrown([&] { store.sum("s", {&a, &b}); }), {"\"s\"", "\"a\"", "\"b\"", "[2]", "[3]"});
  expect_words(thrown([&] { store.product("s", {&a, &c}); }), {"\"s\"", "float32", "float64"});
  expect_words(thrown([&] { store.sum("s", {}); }), {"\"s\"", "no parts"});
  EXPECT_EQ(store.find("s"), nullptr);
}

TEST(ComposedVariable, OneNameOneComposition) {
  VariableStore store;
  const Variable& a = store.get_variable("a", {2});
  const Variable& frozen = store.get_variable("b", {2}, {.trainable = false});
  const Variable& s = store.sum("s", {&a, &frozen});
  EXPECT_TRUE(s.trainable());
  EXPECT_FALSE(store.product("p", {&frozen}).trainable());
  EXPECT_EQ(&store.sum("s", {&a, &frozen}), &s);
  expect_words(thrown([&] { store.product("s", {&a, &frozen}); }), {"\"s\"", "already exists"});
  expect_words(thrown([&] { store.sum("a", {&a, &frozen}); }), {"\"a\"", "already exists"});
  EXPECT_EQ(s.index(), -1);
  EXPECT_EQ(store.variables().size(), 2U);
}

TEST(MovingAverage, IsNotTrainable) {
  VariableStore store;
  const Variable& v = store.get_variable("mean", {4}, {.trainable = false, .average_decay = 0.99});
  EXPECT_EQ(v.spec().average_decay, 0.99);
  EXPECT_TRUE(v.is_pushed());
  expect_words(thrown([&] { store.get_variable("x", {4}, {.average_decay = 0.9}); }),
               {"\"x\"", "moving average", "0.9", "cannot be trainable"});
  expect_words(thrown([&] { store.get_variable("x", {4}, {.trainable = false, .average_decay = 1.5}); }),
               {"\"x\"", "1.5", "at most 1"});
  expect_words(thrown([&] { store.get_local_variable("x", {4}, {.average_decay = 0.5}); }),
               {"\"x\"", "local"});
}

TEST(ScopeDefaults, TrainableIsInherited) {
  VariableStore store;
  const auto frozen = store.scope("frozen", {.trainable = false});
  EXPECT_FALSE(store.get_variable("a", {1}).trainable());
  EXPECT_TRUE(store.get_variable("b", {1}, {.trainable = true}).trainable());
  EXPECT_EQ(names(store.collection(collections::kTrainable)), Names{"frozen/b"});
}

// Rows come into being all the time: which first values they have must not depend on who asked first.
TEST(ScopeDefaults, ATableIsNotReusedWithOtherOptionsOfItsOwn) {
  VariableStore store;
  const auto scope = store.scope("s", {.reuse = Reuse::automatic, .initializer = Initializer::constant(9)});
  const auto table = [&](std::int64_t units, VariableOptions own, const char* at) -> const Variable& {
    own.rows_are_units = true;
    own.table = TableSpec{};
    own.made_at = at;
    return store.get_variable("t", {0, units}, own);
  };
  const Variable& v = table(4, {.initializer = Initializer::constant(2)}, "a:1");
  EXPECT_EQ(&table(4, {}, "b:2"), &v);  // the scope's say nothing of what is there
  EXPECT_EQ(&table(4, {.initializer = Initializer::constant(2), .trainable = true}, "b:2"), &v);
  EXPECT_EQ(
      thrown([&] { table(4, {.initializer = Initializer::normal(0, 1)}, "b:2"); }),
      "argument: table \"s/t\" has initializer constant(2) (made at a:1), but is reused with normal(0, 1)");
  EXPECT_EQ(thrown([&] { table(4, {.trainable = false}, "b:2"); }),
            "argument: table \"s/t\" has trainable true (made at a:1), but is reused with false");
  EXPECT_EQ(
      thrown([&] { table(5, {}, "b:2"); }),
      "argument: variable \"s/t\" is a table of 4 units (made at a:1), but is reused as a table of 5 units");
  EXPECT_EQ(
      thrown([&] {
        store.get_variable("t", {7, 4}, {.rows_are_units = true});
      }),
      "argument: variable \"s/t\" is a table with ids: int64, parts: 1024 (made at a:1), but is reused as "
      "no table");
}

}  // namespace
}  // namespace varscope
