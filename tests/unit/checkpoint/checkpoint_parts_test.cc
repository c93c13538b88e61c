// Variables that are saved in some parts and wanted in others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/restore/reader.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/partitioned_model.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using testing::cut_out;
using testing::error_of;
using testing::expect_box;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_variable;
using testing::Model;
using testing::partition;
using testing::partitioned;
using testing::Saved;
using testing::small_model;
using testing::tiny_model;
using testing::whole;

TEST(CheckpointParts, ServesAnyPartsFromAnyParts) {
  const Model model = small_model(7);
  const std::vector<std::vector<std::int64_t>> ways = {{1, 1}, {2, 1}, {10, 1}, {1, 3}, {3, 2}};
  for (const auto& saved_as : ways) {
    Saved saved(partitioned(model, saved_as), 3);
    CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
    EXPECT_THAT(reader.verify(), IsEmpty());
    for (const auto& wanted_as : ways) {
      SCOPED_TRACE(
          fmt::format("saved {}x{}, wanted {}x{}", saved_as[0], saved_as[1], wanted_as[0], wanted_as[1]));
      const Model wanted = partitioned(model, wanted_as);
      reader.check_model(wanted.table, wanted.slots, "momentum");
      for (const auto& [key, tensor] : wanted.values) {
        const VariableSpec& v = *wanted.table.find(key.first);
        for (const Slice& box : slice_variable(v.shape, v.dtype)) {
          const Tensor out(v.dtype, box.extent);
          reader.read(v, key.second, box, out.view());
          const std::vector<std::byte> due = cut_out(tensor, box);
          ASSERT_EQ(std::memcmp(due.data(), out.view().bytes(), due.size()), 0)
              << v.name << " " << key.second << " " << box.spec();
        }
      }
    }
    for (const auto& [key, tensor] : model.values) {  // by the whole's name
      if (tensor.n_elements() > 0) expect_box(reader, model, key.first, key.second, whole(tensor.shape()));
    }
  }
}

TEST(CheckpointParts, APartMayBeNamedAsItWasSaved) {
  const Model model = partitioned(tiny_model(3), {2, 1});
  Saved saved(model, 2);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  expect_box(reader, model, "w/part_1", "m", whole({2, 3}));
  EXPECT_TRUE(reader.has("w/part_1", "m") && reader.has("w", "m"));
  EXPECT_FALSE(reader.has("w/part_2", ""));
  EXPECT_EQ(reader.dtype("w/part_0", ""), DType::float32);
  const Tensor out(DType::float32, {4, 3});
  EXPECT_THAT(error_of([&] {
                reader.read("w/part_1", "", whole({4, 3}), out.view());
              }),
              HasSubstr("shape [4, 3] was asked of \"w/part_1\", which has [2, 3]"));
}

TEST(CheckpointParts, ComparesWholeVariables) {
  Saved saved(partitioned(tiny_model(3), {2, 1}), 2);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  VariableSpec other = make_variable("w", DType::float64, {5, 3});
  const std::string words = error_of([&] {
    std::vector<VariableSpec> want = partition(other, {1, 3});
    want.push_back(partition(make_variable("u", DType::float32, {4, 4}), {2, 1})[0]);
    reader.check_model(VariableTable(want), {"m"}, "momentum");
  });
  EXPECT_THAT(words,
              AllOf(HasSubstr("(3 differences)"),
                    HasSubstr("variable \"w\" has shape [4, 3] in the checkpoint and [5, 3] in the model"),
                    HasSubstr("variable \"w\" is float32 in the checkpoint and float64 in the model"),
                    HasSubstr("variable \"u\" float32 [4, 4] is missing in the checkpoint")));
  EXPECT_THAT(error_of([&] { reader.check_model(VariableTable(), {"m"}, "momentum"); }),
              HasSubstr("variable \"w\" float32 [4, 3] is in the checkpoint but not in the model"));
}

}  // namespace
}  // namespace varscope
