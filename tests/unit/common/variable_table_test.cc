#include "common/variables/variable_table.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

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

VariableSpec one(const std::string& name, DType dtype, Shape shape) {
  VariableSpec v;
  v.name = name;
  v.dtype = dtype;
  v.shape = std::move(shape);
  return v;
}

TEST(ValuesHash, CoversNamesShapesAndDtypes) {
  const auto hash = [](const std::vector<VariableSpec>& variables) {
    ValuesHash h{VariableTable(variables)};
    for (const VariableSpec& v : variables) {
      if (v.shape.n_elements() > 0) h.add(v.name, 0, digest_of("the same bytes"));
    }
    return h.finish();
  };
  const std::vector<std::vector<VariableSpec>> all = {
      {one("w", DType::float32, {4, 3})},
      {one("w", DType::float32, {3, 4})},
      {one("w", DType::float32, {12})},
      {one("w", DType::int32, {4, 3})},
      {one("v", DType::float32, {4, 3})},
      {one("w", DType::float32, {4, 3}), one("e", DType::float32, {0, 4})},
      {one("w", DType::float32, {4, 3}), one("e", DType::float32, {4, 0})},
      {one("w", DType::float32, {4, 3}), one("e", DType::int32, {0, 4})},
      {}};
  std::set<Digest> seen;
  for (const auto& variables : all) seen.insert(hash(variables));
  EXPECT_EQ(seen.size(), all.size());
  EXPECT_EQ(hash({one("a", DType::float32, {2}), one("b", DType::float32, {2})}),
            hash({one("b", DType::float32, {2}), one("a", DType::float32, {2})}))
      << "in whatever order they were made";
}

TEST(ValuesHash, DoesNotDependOnTheOrderOfSlices) {
  const VariableTable table({one("v", DType::float32, {8})});
  ValuesHash a(table), b(table), c(table);
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
