#include "common/variables/variable_table.h"

#include <gtest/gtest.h>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

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
