// Name scopes and unique names.
#include "tests/support/references/scope_cases.h"

namespace varscope {
namespace {

using testing::expect_words;
using testing::Names;
using testing::ScopeCase;
using testing::thrown;

const ScopeCase kNameScopes[] = {
    {"GetVariableIgnoresNameScopes",
     [] {
       VariableStore store;
       const auto n = store.name_scope("n");
       EXPECT_EQ(n.name(), "n/");
       EXPECT_EQ(store.get_variable("c", {1}).name(), "c");
       const Variable& bare = store.make_variable("c", {1});
       EXPECT_EQ(bare.name(), "n/c");
       EXPECT_EQ(bare.scope(), "n");
       EXPECT_EQ(store.make_variable("c", {1}).name(), "n/c_1");
       EXPECT_EQ(store.make_variable("c", {1}).name(), "n/c_2");
     }},
    {"NamesOfOperationsDoNotBindVariables",
     [] {
       VariableStore store;
       EXPECT_EQ(store.unique_name("v"), "v");
       EXPECT_EQ(store.get_variable("v", {1}).name(), "v");
       EXPECT_EQ(store.unique_name("v"), "v_2");
     }},
    {"BareVariablesAvoidTheNamesOfOthers",
     [] {
       VariableStore store;
       store.get_variable("c", {1});
       EXPECT_EQ(store.make_variable("c", {1}).name(), "c_1");
       EXPECT_EQ(store.find("c_1")->scope(), "");
     }},
    {"ANameScopeInAVariableScope",
     [] {
       VariableStore store;
       const auto tower = store.scope("tower4");
       EXPECT_EQ(store.current_name_scope(), "tower4/");
       const auto scope = store.name_scope("scope");
       EXPECT_EQ(store.current_name_scope(), "tower4/scope/");
       EXPECT_EQ(store.get_variable("w", {1}).name(), "tower4/w");
     }},
    {"EachOpeningHasItsOwnNameScope",
     [] {
       VariableStore store;
       const auto a = store.name_scope("A");
       ScopeHandle tower;
       {
         const auto s = store.scope("tower");
         tower = s.handle();
         EXPECT_EQ(store.current_name_scope(), "A/tower/");
         EXPECT_EQ(store.get_variable("v1", {1}).name(), "tower/v1");
       }
       {
         const auto s = store.reenter(tower);
         EXPECT_EQ(store.current_name_scope(), "A/tower_1/");
         EXPECT_EQ(store.get_variable("v2", {1}).name(), "tower/v2");
       }
       const auto s = store.scope("tower");
       EXPECT_EQ(store.current_name_scope(), "A/tower_2/");
       EXPECT_EQ(store.get_variable("v3", {1}).name(), "tower/v3");
     }},
    {"TheRootHasNoNameScope",
     [] {
       VariableStore store;
       const ScopeHandle root = store.current_handle();
       const auto c = store.name_scope("C");
       const auto again = store.reenter(root);
       const auto scope2 = store.name_scope("scope2");
       EXPECT_EQ(store.current_name_scope(), "C/scope2/");
     }},
    {"OriginalNameScopeStays",
     [] {
       VariableStore store;
       const auto a = store.name_scope("A");
       ScopeHandle tower;
       {
         const auto s = store.scope("tower");
         EXPECT_EQ(s.original_name_scope(), "A/tower/");
         tower = s.handle();
       }
       const auto again = store.reenter(tower);
       EXPECT_EQ(again.original_name_scope(), "A/tower/");
       EXPECT_EQ(store.current_name_scope(), "A/tower_1/");
       const auto original = store.name_scope(again.original_name_scope());
       EXPECT_EQ(store.current_name_scope(), "A/tower/");
     }},
    {"WithoutAnAuxiliaryNameScope",
     [] {
       VariableStore store;
       const auto outer = store.name_scope("n");
       const auto scope = store.scope("scope", {.auxiliary_name_scope = false});
       EXPECT_EQ(store.get_variable("w", {1}).name(), "scope/w");
       EXPECT_EQ(store.unique_name("op"), "n/op");
       EXPECT_EQ(scope.original_name_scope(), "n/");
       const auto inner = store.scope("inner");
       EXPECT_EQ(store.get_variable("w", {1}).name(), "scope/inner/w");
       EXPECT_EQ(store.current_name_scope(), "n/inner/");
     }},
};

// The names of scopes opened by these default names, one after the other.
Names default_names(VariableStore& store, const Names& prefixes) {
  Names all;
  for (const std::string& p : prefixes) all.push_back(store.default_scope(p).name());
  return all;
}

const ScopeCase kDefaultNames[] = {
    {"DefaultNamesAreMadeUnique",
     [] {
       VariableStore store;
       for (const char* expected : {"default/w", "default_1/w", "default_2/w"}) {
         const auto s = store.default_scope("default");
         EXPECT_EQ(store.get_variable("w", {1}).name(), expected);
       }
     }},
    {"InnerCountersStartAgain",
     [] {
       VariableStore store;
       Names outer;
       for (const char* prefix : {"defaultScope1", "defaultScope1", "defaultScope", "defaultScope1"}) {
         const auto s = store.default_scope(prefix);
         outer.push_back(s.name());
         EXPECT_EQ(store.default_scope("layer").name(), s.name() + "/layer");
       }
       EXPECT_EQ(outer, (Names{"defaultScope1", "defaultScope1_1", "defaultScope", "defaultScope1_2"}));
     }},
    {"ReenteringTheCurrentScopeKeepsItsCounters",
     [] {
       VariableStore store;
       const auto s = store.scope("default");
       EXPECT_EQ(default_names(store, {"layer", "layer"}), (Names{"default/layer", "default/layer_1"}));
       {
         const auto again = store.reenter(s);
         EXPECT_EQ(default_names(store, {"other"}), Names{"default/other"});
       }
       EXPECT_EQ(default_names(store, {"layer", "other"}), (Names{"default/layer_2", "default/other"}))
           << "what was opened inside the re-entered scope is forgotten";
     }},
    {"LeavingByNameForgetsWhatIsBelow",
     [] {
       VariableStore store;
       ScopeHandle foo;
       {
         const auto s = store.scope("foo");
         foo = s.handle();
         EXPECT_EQ(default_names(store, {"bar"}), Names{"foo/bar"});
       }
       const auto again = store.reenter(foo);
       EXPECT_EQ(default_names(store, {"bar", "bar"}), (Names{"foo/bar", "foo/bar_1"}));
     }},
    {"OnlyWhatIsBelow",
     [] {
       VariableStore store;
       const auto top = store.scope("top");
       EXPECT_EQ(default_names(store, {"foo-bar", "foo_bar"}), (Names{"top/foo-bar", "top/foo_bar"}));
       { const auto s = store.scope("foo"); }
       EXPECT_EQ(default_names(store, {"foo-bar", "foo_bar"}), (Names{"top/foo-bar_1", "top/foo_bar_1"}));
     }},
    {"NamedOpeningsCount",
     [] {
       VariableStore store;
       { const auto s = store.scope("layer"); }
       EXPECT_EQ(default_names(store, {"layer"}), Names{"layer_1"});
     }},
    {"DefaultNamesSkipThoseTaken",
     [] {
       VariableStore store;
       { const auto s = store.scope("layer_1"); }
       EXPECT_EQ(default_names(store, {"layer", "layer"}), (Names{"layer", "layer_2"}));
     }},
    {"NamesAreUniqueWithoutRegardToCase",
     [] {
       VariableStore store;
       EXPECT_EQ(store.unique_name("Foo"), "Foo");
       EXPECT_EQ(store.unique_name("foo"), "foo_1");
       EXPECT_EQ(store.unique_name("FOO"), "FOO_2");
       EXPECT_EQ(store.name_scope("foO").name(), "foO_3/");
     }},
    {"NumbersSkipTakenNames",
     [] {
       VariableStore store;
       EXPECT_EQ(store.unique_name("a_1"), "a_1");
       EXPECT_EQ(store.unique_name("a"), "a");
       EXPECT_EQ(store.unique_name("a"), "a_2");
       EXPECT_EQ(store.unique_name("a"), "a_3");
       EXPECT_EQ(store.unique_name("a_1"), "a_1_1");
     }},
    {"ATrailingSlashReentersExactly",
     [] {
       VariableStore store;
       {
         const auto a = store.name_scope("a");
         const auto b = store.name_scope("b");
         EXPECT_EQ(b.name(), "a/b/");
       }
       const auto other = store.name_scope("other");
       const auto again = store.name_scope("a/b/");
       EXPECT_EQ(store.current_name_scope(), "a/b/");
       EXPECT_EQ(store.unique_name("op"), "a/b/op");
     }},
    {"TheEmptyNameIsTheRoot",
     [] {
       VariableStore store;
       const auto a = store.name_scope("a");
       const auto root = store.name_scope("");
       EXPECT_EQ(root.name(), "");
       EXPECT_EQ(store.unique_name("op"), "op");
     }},
    {"LeavingRestoresTheNameScope",
     [] {
       VariableStore store;
       const auto a = store.name_scope("a");
       { const auto b = store.name_scope("b"); }
       { const auto s = store.scope("s"); }
       EXPECT_EQ(store.current_name_scope(), "a/");
     }},
    {"InvalidNames",
     [] {
       VariableStore store;
       expect_words(thrown([&] { auto n = store.name_scope("a b"); }), {"\"a b\"", "name scope"});
       expect_words(thrown([&] { auto n = store.name_scope("_a"); }), {"\"_a\""});
       expect_words(thrown([&] { store.unique_name("a:0"); }), {"\"a:0\"", "operation"});
       const auto a = store.name_scope("a");
       EXPECT_EQ(store.name_scope("_a").name(), "a/_a/");
       EXPECT_EQ(store.name_scope(">a").name(), "a/>a/");
     }},
    {"OnlyScopesEndWithASlash",
     [] {
       VariableStore store;
       const auto refuses = [](const std::string& error, const std::string& what) {
         expect_words(error, {"\"a/\"", what, "ends with '/'", "leave the '/' away"});
       };
       refuses(thrown([&] { store.get_variable("a/", {1}); }), "variable");
       refuses(thrown([&] { store.get_local_variable("a/", {1}); }), "variable");
       refuses(thrown([&] { store.make_variable("a/", {1}); }), "variable");
       refuses(thrown([&] { store.unique_name("a/"); }), "operation");
       const Variable& v = store.get_variable("v", {1});
       refuses(thrown([&] { store.sum("a/", {&v}); }), "variable");
       const auto s =
           store.scope("s", {.custom_getter = [](GetterCall& call) -> Variable& { return call.next("a/"); }});
       refuses(thrown([&] { store.get_variable("w", {1}); }), "variable");
     }},
    {"ACallThatFailsTakesNoName",
     [] {
       VariableStore store;
       EXPECT_NE(thrown([&] { auto s = store.scope("s", {.custom_getter = CustomGetter()}); }), "no error");
       EXPECT_NE(thrown([&] { auto s = store.default_scope("s", {.custom_getter = CustomGetter()}); }),
                 "no error");
       EXPECT_NE(thrown([&] { auto s = store.reenter("s", {.custom_getter = CustomGetter()}); }), "no error");
       EXPECT_EQ(store.unique_name("s"), "s");
       EXPECT_EQ(store.default_scope("s").name(), "s");
     }},
};

VARSCOPE_SCOPE_CASES(NameScopeTable, kNameScopes);
VARSCOPE_SCOPE_CASES(UniqueNameTable, kDefaultNames);

}  // namespace
}  // namespace varscope
