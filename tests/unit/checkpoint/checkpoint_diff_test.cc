// Two checkpoints compared, and what the reading tools say as JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "checkpoint/format/elements.h"
#include "checkpoint/tools/diff.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/verify.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/partitioned_model.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_variable;
using testing::Model;
using testing::partitioned;
using testing::Saved;
using testing::small_model;
using testing::tiny_model;

constexpr int kDifferent = 5;

Model model_of(std::vector<VariableSpec> variables, std::vector<std::string> slots = {}) {
  return {VariableTable(std::move(variables)), std::move(slots), 1};
}

TEST(UlpDistance, CountsRepresentableValues) {
  EXPECT_EQ(ulp_distance(1.0F, 1.0F), 0U);
  EXPECT_EQ(ulp_distance(1.0F, std::nextafter(1.0F, 2.0F)), 1U);
  EXPECT_EQ(ulp_distance(0.0F, -0.0F), 0U);
  const float least = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(ulp_distance(-least, least), 2U);
  EXPECT_EQ(ulp_distance(-3.0, std::nextafter(std::nextafter(-3.0, 0.0), 0.0)), 2U);
  const auto most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(ulp_distance(std::int64_t{-1} - most, most), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(ulp_distance(std::uint8_t{0}, std::uint8_t{255}), 255U);
  EXPECT_EQ(ulp_distance(BFloat16{0x3f80}, BFloat16{0x3f82}), 2U);
  EXPECT_EQ(ulp_distance(BFloat16{0x0001}, BFloat16{0x8001}), 2U);
  EXPECT_EQ(as_double(BFloat16{0xc000}), -2.0);
  // The whole line of floats: from one infinity to the other in steps of one.
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ulp_distance(-inf, inf), 2U * 0x7f800000U);
}

TEST(CheckpointDiff, IsEqualOnAnyNumberOfServersAndParts) {
  const Model model = small_model(3);
  Saved one(model, 1), three(model, 3, 9), parts(partitioned(model, {3, 2}), 2);
  for (const Saved* other : {&one, &three, &parts}) {
    const CheckpointDifference d = diff_checkpoints(one.fs, one.path, other->path);
    EXPECT_TRUE(d.equal());
    EXPECT_EQ(d.n_equal, 9);  // six values, three slots of variables that are trained and not empty
  }
  std::string out;
  EXPECT_EQ(diff_tool(one.fs, one.path, three.path, ToolFormat::text, out), 0);
  EXPECT_THAT(out, HasSubstr("b  " + three.path + "  step 9, momentum, values hash "));
  EXPECT_THAT(out, HasSubstr("equal: 9 equal, 0 with other values, 0 added, 0 removed, 0 of another shape"));
}

TEST(CheckpointDiff, MeasuresEachChangeTheLargestFirst) {
  Model a = model_of({make_variable("w", DType::float32, {300, 40}), make_variable("b", DType::float32, {4}),
                      make_variable("n", DType::int64, {3}, false)},
                     {"m"});
  for (auto& [key, tensor] : a.values) {
    if (tensor.dtype() == DType::float32) std::fill_n(tensor.as<float>().begin(), tensor.n_elements(), 2.0F);
  }
  Model b = model_of(a.table.variables(), {"m"});
  for (auto& [key, tensor] : b.values)
    std::memcpy(tensor.view().bytes(), a.values.at(key).view().bytes(), tensor.n_bytes());
  b.values.at({"w", ""}).as<float>()[11999] = 2.5F;  // in the last slice
  b.values.at({"w", ""}).as<float>()[0] = std::nextafter(2.0F, 3.0F);
  b.values.at({"b", "m"}).as<float>()[1] = -2.0F;
  b.values.at({"n", ""}).as<std::int64_t>()[2] += 7;
  Saved first(a, 2), second(b, 1);
  const CheckpointDifference d = diff_checkpoints(first.fs, first.path, second.path);
  ASSERT_EQ(d.values.size(), 3U);
  EXPECT_EQ(d.n_equal, 2);
  EXPECT_EQ(d.values[0].name, "n");
  EXPECT_EQ(d.values[0].max_abs, 7);
  EXPECT_EQ(d.values[0].max_ulp, 7U);
  EXPECT_EQ(d.values[1].name, "b (slot m)");
  EXPECT_EQ(d.values[1].max_abs, 4);
  EXPECT_EQ(d.values[1].max_relative, 2);
  EXPECT_EQ(d.values[1].max_ulp, 2U * 0x40000000U);
  EXPECT_EQ(d.values[2].name, "w");
  EXPECT_EQ(d.values[2].n_elements, 12000);
  EXPECT_EQ(d.values[2].n_different, 2);
  EXPECT_EQ(d.values[2].max_abs, 0.5);
  EXPECT_EQ(d.values[2].max_relative, 0.2);
  EXPECT_EQ(d.values[2].max_ulp, 1U << 21);

  std::string out;
  EXPECT_EQ(diff_tool(first.fs, first.path, second.path, ToolFormat::text, out), kDifferent);
  EXPECT_THAT(
      out,
      HasSubstr("b (slot m)        float32  [4]        1 of 4      4        2             2147483648\n"));
  EXPECT_THAT(out, HasSubstr("different: 2 equal, 3 with other values"));
}

TEST(CheckpointDiff, CountsNaNsZerosAndInfinities) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Model a = model_of({make_variable("x", DType::float32, {4})}), b = model_of(a.table.variables());
  const auto set = [](Model& m, std::initializer_list<float> values) {
    std::copy(values.begin(), values.end(), m.values.at({"x", ""}).as<float>().begin());
  };
  const auto compare = [&] {
    Saved first(a, 1), second(b, 1);
    return diff_checkpoints(first.fs, first.path, second.path);
  };
  set(a, {NAN, kInf, 1, 0});
  set(b, {NAN, kInf, 1, 0});
  EXPECT_TRUE(compare().equal());
  set(b, {NAN, kInf, 1, -0.0F});
  ASSERT_EQ(compare().values.size(), 1U) << "the bits differ";
  EXPECT_EQ(compare().values[0].max_abs, 0);
  EXPECT_EQ(compare().values[0].n_different, 1);
  set(b, {1, kInf, 1, 0});
  EXPECT_EQ(compare().values[0].max_abs, kInf);
  set(b, {NAN, 1, 1, 0});
  EXPECT_EQ(compare().values[0].max_relative, kInf);
}

TEST(CheckpointDiff, NamesWhatIsAddedRemovedAndReshaped) {
  Saved a(model_of({make_variable("old", DType::float32, {2}), make_variable("s", DType::float32, {2, 3}),
                    make_variable("t", DType::float32, {5}), make_variable("same", DType::uint8, Shape{})}),
          1);
  const Model b =
      model_of({make_variable("new", DType::float64, {1}), make_variable("s", DType::float32, {6}),
                make_variable("t", DType::float64, {5}), make_variable("same", DType::uint8, Shape{})},
               {"m"});
  Saved other(b, 1);
  const CheckpointDifference d = diff_checkpoints(a.fs, a.path, other.path);
  EXPECT_THAT(d.added, ElementsAre("new float64 [1]", "new (slot m) float64 [1]", "s (slot m) float32 [6]",
                                   "same (slot m) uint8 []", "t (slot m) float64 [5]"));
  EXPECT_THAT(d.removed, ElementsAre("old float32 [2]"));
  EXPECT_THAT(d.changed, ElementsAre("s float32 [2, 3] -> float32 [6]", "t float32 [5] -> float64 [5]"));
  std::string out;
  EXPECT_EQ(diff_tool(a.fs, a.path, other.path, ToolFormat::json, out), kDifferent);
  const auto json = nlohmann::json::parse(out);
  EXPECT_EQ(json.at("equal"), false);
  EXPECT_EQ(json.at("removed"), nlohmann::json({"old float32 [2]"}));
  EXPECT_EQ(json.at("a").at("step"), 5);
}

TEST(CheckpointDiff, NamesADamagedCheckpoint) {
  Saved a(tiny_model(1), 1), b(tiny_model(1), 1);
  testing::flip_bit(b.shard(0, 1), 4096 + 3);
  EXPECT_THAT(error_of([&] { diff_checkpoints(a.fs, a.path, b.path); }),
              HasSubstr("shard-00000-of-00001.safetensors is damaged: CRC block 0"));
  EXPECT_THAT(error_of([&] { diff_checkpoints(a.fs, a.path, a.dir / "none"); }),
              HasSubstr("is not a checkpoint"));
}

TEST(CheckpointToolsAsJson, SayTheSameFacts) {
  Saved saved(tiny_model(2), 2);
  using nlohmann::json;
  const json list = json::parse(list_text(saved.fs, saved.dir.path(), ToolFormat::json));
  ASSERT_EQ(list.at("checkpoints").size(), 1U);
  EXPECT_EQ(list["checkpoints"][0].at("step"), 5);
  EXPECT_EQ(list["checkpoints"][0].at("state"), "committed");
  EXPECT_THAT(list.at("set_aside"), IsEmpty());

  const json inspect = json::parse(inspect_text(saved.fs, saved.path, ToolFormat::json));
  const std::string hash = testing::values_hash_of(tiny_model(2)).hex();
  EXPECT_EQ(inspect.at("values_hash"), hash);
  ASSERT_EQ(inspect.at("variables").size(), 1U);
  EXPECT_EQ(inspect["variables"][0].at("shape"), json({4, 3}));
  EXPECT_GT(inspect["variables"][0].at("norm").get<double>(), 0);

  std::string out;
  EXPECT_EQ(verify_tool(saved.fs, saved.path, out, ToolFormat::json), 0);
  EXPECT_EQ(json::parse(out).at("checkpoints")[0].at("values_hash"), hash);
  testing::flip_bit(saved.shard(0, 2), 9);
  out.clear();
  EXPECT_EQ(verify_tool(saved.fs, saved.path, out, ToolFormat::json), kDifferent);
  EXPECT_EQ(json::parse(out).at("good"), false);
  EXPECT_THAT(json::parse(out).at("checkpoints")[0].at("problems")[0].get<std::string>(),
              HasSubstr("CRC block 0"));
}

}  // namespace
}  // namespace varscope
