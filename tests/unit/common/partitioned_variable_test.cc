// Partitioned variables, as get_variable shows them; the partitioners alone are in partitioner_test.cc.
#include <set>

#include "tests/support/references/scope_cases.h"

namespace varscope {
namespace {

using testing::expect_words;
using testing::names;
using testing::Names;
using testing::ScopeCase;
using testing::thrown;

const VariableOptions kTwoParts = {.partitioner = fixed_size_partitioner(2)};

Partitioner gives(std::vector<std::int64_t> counts) {
  return [counts](const Shape&, DType) { return counts; };
}

const ScopeCase kPartitioned[] = {
    {"HandleAndParts",
     [] {
       VariableStore store;
       const auto scope = store.scope("scope0", {.partitioner = fixed_size_partitioner(2)});
       const Variable& v = store.get_variable("name0", {3, 1, 1});
       EXPECT_EQ(v.name(), "scope0/name0");
       EXPECT_EQ(v.shape(), (Shape{3, 1, 1}));
       EXPECT_EQ(v.combine(), Combine::concat);
       EXPECT_EQ(v.axis(), 0U);
       EXPECT_TRUE(v.trainable());
       EXPECT_EQ(v.index(), -1);
       const Names parts = {"scope0/name0/part_0", "scope0/name0/part_1"};
       EXPECT_EQ(names(v.parts()), parts);
       EXPECT_EQ(v.parts()[0]->shape(), (Shape{2, 1, 1}));
       EXPECT_EQ(v.parts()[1]->shape(), (Shape{1, 1, 1}));
       EXPECT_EQ(names(store.collection(collections::kGlobal)), parts);
       EXPECT_EQ(names(store.collection(collections::kTrainable)), parts);
       EXPECT_EQ(names(store.variables()), parts);
       EXPECT_EQ(store.find("scope0/name0"), &v);
       EXPECT_EQ(store.find("scope0/name0/part_1"), v.parts()[1]);
     }},
    {"PartsAreDescribed",
     [] {
       VariableStore store;
       const auto scope = store.scope("scope0", {.initializer = &Initializer::he_normal});
       store.get_variable(
           "name0", {4, 6},
           {.constraint = Constraint::max_norm(2), .partitioner = fixed_size_partitioner(3, 1)});
       const VariableTable table = store.table();
       ASSERT_EQ(table.size(), 3U);
       for (int i = 0; i < 3; ++i) {
         const VariableSpec& spec = table[static_cast<std::size_t>(i)];
         EXPECT_EQ(spec.scope, "scope0");
         EXPECT_EQ(spec.part.full_name, "scope0/name0");
         EXPECT_EQ(spec.part.full_shape, (Shape{4, 6}));
         EXPECT_EQ(spec.part.offset, (Shape{0, 2 * i}));
         EXPECT_EQ(spec.part.index, i);
         EXPECT_EQ(spec.part.n_parts, 3);
         EXPECT_EQ(spec.constraint, Constraint::max_norm(2));
         EXPECT_EQ(spec.initializer, Initializer::he_normal({4, 6})) << "made for the full shape";
       }
     }},
    {"PartsStartOnDifferentServers",
     [] {
       VariableStore store;
       std::set<int> servers;
       for (const Variable* p :
            store.get_variable("v", {8, 8}, {.partitioner = fixed_size_partitioner(4)}).parts())
         servers.insert(p->spec().owner(0, 4).value);
       EXPECT_EQ(servers.size(), 4U);
     }},
    {"PartsHaveTheBitsOfTheWhole",
     [] {
       VariableStore whole_store, cut_store;
       Tensor whole(DType::float32, {5, 4});
       whole_store.get_variable("v", {5, 4}).spec().fill(whole.view(), 3, 0);
       for (const Variable* p :
            cut_store.get_variable("v", {5, 4}, {.partitioner = fixed_size_partitioner(3, 1)}).parts()) {
         Tensor part(DType::float32, p->shape());
         p->spec().fill(part.view(), 3, 0);
         const Slice box = p->spec().box();
         const std::int64_t width = box.extent[1];
         for (std::int64_t i = 0; i < part.n_elements(); ++i) {
           EXPECT_EQ(part.as<float>()[static_cast<std::size_t>(i)],
                     whole.as<float>()[static_cast<std::size_t>(i / width * 4 + box.offset[1] + i % width)]);
         }
       }
     }},
    {"ScalarsAreNotCut",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", {}, kTwoParts);
       EXPECT_EQ(v.combine(), Combine::whole);
       EXPECT_EQ(names(store.variables()), Names{"v"});
       const auto root = store.reenter("", {.reuse = Reuse::yes});
       EXPECT_EQ(&store.get_variable("v", {}, kTwoParts), &v);
     }},
    {"ReuseWithAnotherNumberOfParts",
     [] {
       VariableStore store;
       const auto scope = store.scope("s", {.reuse = Reuse::automatic});
       store.get_variable("v", {4, 4}, kTwoParts);
       expect_words(thrown([&] {
                      store.get_variable("v", {4, 4}, {.partitioner = fixed_size_partitioner(3)});
                    }),
                    {"\"s/v\"", "specified partitions [3, 1]", "found partitions [2, 1]",
                     "partitioned_variable_test.cc:"});
       expect_words(thrown([&] {
                      store.get_variable("v", {4, 4}, {.partitioner = fixed_size_partitioner(2, 1)});
                    }),
                    {"specified partitions [1, 2]", "found partitions [2, 1]"});
     }},
    {"ReuseChecksShapeAndDType",
     [] {
       VariableStore store;
       const auto scope = store.scope("s", {.reuse = Reuse::automatic});
       const Variable& v = store.get_variable("v", {4}, kTwoParts);
       expect_words(thrown([&] { store.get_variable("v", {5}, kTwoParts); }), {"\"s/v\"", "[4]", "[5]"});
       expect_words(thrown([&] { store.get_variable("v", {4}, {.dtype = DType::float64}); }),
                    {"\"s/v\"", "float64"});
       EXPECT_EQ(&store.get_variable("v", VariableOptions(kTwoParts)), &v);
     }},
    {"ReuseWithoutAPartitioner",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", {4}, kTwoParts);
       expect_words(thrown([&] { store.get_variable("v", {4}); }), {"\"v\"", "already exists"});
       for (Reuse reuse : {Reuse::yes, Reuse::automatic}) {
         const auto root = store.reenter("", {.reuse = reuse});
         EXPECT_EQ(&store.get_variable("v", {4}), &v);
         EXPECT_EQ(&store.get_variable("v", {4}, kTwoParts), &v);
         EXPECT_EQ(store.get_variable("v/part_1", {2}).name(), "v/part_1");
       }
       const auto root = store.reenter("", {.reuse = Reuse::yes});
       expect_words(thrown([&] { store.get_variable("w", {4}, kTwoParts); }), {"\"w\"", "does not exist"});
     }},
    {"AnUnpartitionedOneExists",
     [] {
       VariableStore store;
       store.get_variable("v", {4});
       for (Reuse reuse : {Reuse::yes, Reuse::automatic}) {
         const auto root = store.reenter("", {.reuse = reuse});
         expect_words(thrown([&] { store.get_variable("v", {4}, kTwoParts); }),
                      {"\"v\"", "unpartitioned version", "partitioned_variable_test.cc:"});
       }
     }},
    {"BadPartitioners",
     [] {
       VariableStore store;
       for (const auto& counts : {std::vector<std::int64_t>{2}, {0, 1}, {2, 2}, {5, 1}}) {
         expect_words(thrown([&] {
                        store.get_variable("v", {4, 4}, {.partitioner = gives(counts)});
                      }),
                      {"\"v\"", "[4, 4]", "partitioner"});
       }
       EXPECT_TRUE(store.variables().empty());
       EXPECT_EQ(store.find("v"), nullptr);
     }},
    {"ATakenPartNameMakesNothing",
     [] {
       VariableStore store;
       store.get_variable("v/part_1", {4});
       expect_words(thrown([&] { store.get_variable("v", {4}, kTwoParts); }),
                    {"\"v/part_1\"", "already exists"});
       EXPECT_EQ(names(store.variables()), Names{"v/part_1"});
     }},
    {"UnequalParts",
     [] {
       VariableStore store;
       std::vector<std::int64_t> widths;
       for (const Variable* p :
            store.get_variable("v", {20, 43}, {.partitioner = fixed_size_partitioner(5, 1)}).parts())
         widths.push_back(p->shape()[1]);
       EXPECT_EQ(widths, (std::vector<std::int64_t>{9, 9, 9, 8, 8}));
     }},
    {"OnePartIsAPartToo",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", {1, 4}, kTwoParts);
       EXPECT_EQ(v.combine(), Combine::concat);
       EXPECT_EQ(names(v.parts()), Names{"v/part_0"});
       EXPECT_EQ(v.parts()[0]->shape(), v.shape());
     }},
    {"ThePartitionerSeesTheDType",
     [] {
       VariableStore store;
       const auto s = store.scope("s", {.partitioner = variable_axis_size_partitioner(32)});
       EXPECT_EQ(store.get_variable("a", {16}).parts().size(), 2U);
       EXPECT_EQ(store.get_variable("b", {16}, {.dtype = DType::float64}).parts().size(), 4U);
     }},
    {"SmallVariablesStayInOnePart",
     [] {
       VariableStore store;
       const auto s = store.scope("s", {.partitioner = min_max_variable_partitioner(4, 0, 64)});
       EXPECT_EQ(store.get_variable("a", {16}).parts().size(), 1U);
       EXPECT_EQ(store.get_variable("b", {1024}).parts().size(), 4U);
     }},
    {"ReuseWithoutShapeOrPartitioner",
     [] {
       VariableStore store;
       const auto s = store.scope("s", {.reuse = Reuse::automatic});
       const Variable& v = store.get_variable("v", {4, 2}, kTwoParts);
       EXPECT_EQ(&store.get_variable("v", kTwoParts), &v);
       EXPECT_EQ(&store.get_variable("v", {4, 2}), &v);
       EXPECT_EQ(&store.get_variable("v", {Shape::kUnknown, 2}, kTwoParts), &v);
       const Variable& state = store.get_local_variable("state", {4, 2});
       EXPECT_EQ(&store.get_local_variable("state", {4, 2}, kTwoParts), &state);
     }},
    {"WithoutElementsThereIsOnePart",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", {0, 7}, {.partitioner = fixed_size_partitioner(5)});
       EXPECT_EQ(names(v.parts()), Names{"v/part_0"});
     }},
    {"SliceInfo",
     [] {
       VariableStore store;
       const Variable& v = store.get_variable("v", {20, 43}, {.partitioner = fixed_size_partitioner(5, 1)});
       EXPECT_EQ(v.parts()[0]->spec().full_name(), "v");
       EXPECT_EQ(v.parts()[0]->spec().box().spec(), "20 43 0,20:0,9");
       EXPECT_EQ(v.parts()[3]->spec().box().spec(), "20 43 0,20:27,8");
       EXPECT_EQ(v.spec().box().spec(), "20 43 0,20:0,43");
     }},
};

VARSCOPE_SCOPE_CASES(PartitionedTable, kPartitioned);

TEST(PartitionedVariable, ATensorIsCutToo) {
  VariableStore store;
  const Tensor tensor = Tensor::of<float>({3}, {1, 2, 3});
  const Variable& v =
      store.get_variable("v", VariableOptions{.initializer = Initializer::values(tensor.view()),
                                              .partitioner = fixed_size_partitioner(2)});
  ASSERT_EQ(v.parts().size(), 2U);
  Tensor last(DType::float32, {1});
  v.parts()[1]->spec().fill(last.view(), 1, 0);
  EXPECT_EQ(last.as<float>()[0], 3.0F);
}

TEST(PartitionedVariable, AnEmptyPartitionerSwitchesOff) {
  VariableStore store;
  const auto s = store.scope("s", {.partitioner = fixed_size_partitioner(2)});
  EXPECT_TRUE(store.get_variable("v", {4}, {.partitioner = Partitioner()}).parts().empty());
  const auto inner = store.scope("inner", {.partitioner = Partitioner()});
  EXPECT_TRUE(store.get_variable("v", {4}).parts().empty());
}

TEST(PartitionedVariable, MakeVariableRefusesToPartition) {
  VariableStore store;
  expect_words(thrown([&] { store.make_variable("v", {4}, kTwoParts); }), {"\"v\"", "does not partition"});
}

}  // namespace
}  // namespace varscope
